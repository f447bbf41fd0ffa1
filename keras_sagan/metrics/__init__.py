"""Measures of generated images, and the networks they look through."""

from keras_sagan.metrics.frechet_inception_distance import FrechetInceptionDistance
from keras_sagan.metrics.grey_classifier import (
    GreyClassifierFeatures,
    build_grey_classifier,
    load_grey_classifier,
)
from keras_sagan.metrics.inception import TFGAN_INCEPTION_HANDLE, TFGANInception
from keras_sagan.metrics.tfgan import load_tfgan_eval

__all__ = [
    "TFGAN_INCEPTION_HANDLE",
    "FrechetInceptionDistance",
    "GreyClassifierFeatures",
    "TFGANInception",
    "build_grey_classifier",
    "load_grey_classifier",
    "load_tfgan_eval",
]
