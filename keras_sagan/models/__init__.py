"""The networks of a self-attention GAN, the model that trains them, presets and export."""

from keras_sagan.models.baking import bake_spectral_norm
from keras_sagan.models.blocks import IMAGE_SIZES
from keras_sagan.models.discriminator import build_discriminator
from keras_sagan.models.export import FORMATS, export_generator
from keras_sagan.models.generator import build_generator
from keras_sagan.models.inversion import Inversion
from keras_sagan.models.normalization import apply_spectral_norm
from keras_sagan.models.presets import PRESETS, preset_settings
from keras_sagan.models.sagan import SAGAN
from keras_sagan.training.optimizers import FusedAdam

__all__ = [
    "FORMATS",
    "FusedAdam",
    "IMAGE_SIZES",
    "Inversion",
    "PRESETS",
    "SAGAN",
    "apply_spectral_norm",
    "bake_spectral_norm",
    "build_discriminator",
    "build_generator",
    "export_generator",
    "preset_settings",
]
