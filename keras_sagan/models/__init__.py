"""The networks of a self-attention GAN and the model that trains them."""

from keras_sagan.models.discriminator import build_discriminator
from keras_sagan.models.generator import build_generator
from keras_sagan.models.presets import PRESETS, preset_settings
from keras_sagan.models.sagan import SAGAN

__all__ = ["PRESETS", "SAGAN", "build_discriminator", "build_generator", "preset_settings"]
