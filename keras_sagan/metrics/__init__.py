"""Metrics for generated images, and the feature extractors they use."""

from keras_sagan.metrics.evaluation import METRICS, evaluate_generator, evaluate_images
from keras_sagan.metrics.extraction import FeatureExtraction
from keras_sagan.metrics.extractors.dinov2 import DINOv2Features
from keras_sagan.metrics.extractors.efficientnet_lite import EfficientNetLite0Features
from keras_sagan.metrics.extractors.fid_inception import FID_INCEPTION_URL, FIDInception
from keras_sagan.metrics.extractors.grey_classifier import (
    GreyClassifierFeatures,
    build_grey_classifier,
    load_grey_classifier,
)
from keras_sagan.metrics.extractors.keras_inception import KerasInceptionV3
from keras_sagan.metrics.extractors.tfgan import load_tfgan_eval
from keras_sagan.metrics.extractors.tfgan_inception import TFGAN_INCEPTION_HANDLE, TFGANInception
from keras_sagan.metrics.folder_images import FolderImages
from keras_sagan.metrics.frechet_inception_distance import FrechetInceptionDistance
from keras_sagan.metrics.frechet_inception_distance_infinity import FrechetInceptionDistanceInfinity
from keras_sagan.metrics.inception_score import InceptionScore
from keras_sagan.metrics.intra_class_frechet_inception_distance import (
    IntraClassFrechetInceptionDistance,
)
from keras_sagan.metrics.kernel_inception_distance import KernelInceptionDistance
from keras_sagan.metrics.memorization import Memorization
from keras_sagan.metrics.monge_inception_distance import MongeInceptionDistance
from keras_sagan.metrics.precision_recall import DensityCoverage, PrecisionRecall
from keras_sagan.metrics.reference_statistics import ReferenceStatistics
from keras_sagan.metrics.report import EvaluationReport
from keras_sagan.metrics.standing_statistics import standing_statistics

__all__ = [
    "FID_INCEPTION_URL",
    "METRICS",
    "TFGAN_INCEPTION_HANDLE",
    "DINOv2Features",
    "DensityCoverage",
    "EfficientNetLite0Features",
    "EvaluationReport",
    "FIDInception",
    "FeatureExtraction",
    "FolderImages",
    "FrechetInceptionDistance",
    "FrechetInceptionDistanceInfinity",
    "GreyClassifierFeatures",
    "InceptionScore",
    "IntraClassFrechetInceptionDistance",
    "KerasInceptionV3",
    "KernelInceptionDistance",
    "Memorization",
    "MongeInceptionDistance",
    "PrecisionRecall",
    "ReferenceStatistics",
    "TFGANInception",
    "build_grey_classifier",
    "evaluate_generator",
    "evaluate_images",
    "load_grey_classifier",
    "load_tfgan_eval",
    "standing_statistics",
]
