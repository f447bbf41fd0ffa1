"""Resizes images for an extractor; the resize method affects every score."""

import keras
import numpy as np
from keras import ops

from keras_sagan.checks import check_choice

RESIZE_METHODS = ("tfgan", "antialiased")


def resize_images(
    images: keras.KerasTensor, size: int, method: str, interpolation: str = "bilinear"
) -> keras.KerasTensor:
    """Resizes float images to a square, with one of `RESIZE_METHODS`.

    `"tfgan"` uses the pixel grid of TensorFlow 1 and TF-GAN, which has no half-pixel centers;
    downscaling skips pixels. `"antialiased"` uses half-pixel centers, and downscaling averages over
    all pixels ([Parmar et al., 2022](https://arxiv.org/abs/2104.11222)).
    """
    if check_choice("resize", method, RESIZE_METHODS) == "tfgan":
        return _resize_side(_resize_side(images, size, 2), size, 1)
    options = {"antialias": True, "data_format": "channels_last"}
    return ops.image.resize(images, (size, size), interpolation, **options)


def _resize_side(images, size, axis):
    """Resizes one axis bilinearly, mapping pixel `i` to `i * scale` without half-pixel centers."""
    length = images.shape[axis]
    positions = np.arange(size, dtype="float32") * np.float32(length / size)
    low = positions.astype("int32")
    shape = [size if i == axis else 1 for i in range(4)]
    weight = (positions - low).astype("float32").reshape(shape)
    first = ops.take(images, low, axis)
    return first + (ops.take(images, np.minimum(low + 1, length - 1), axis) - first) * weight


def to_rgb(images: keras.KerasTensor) -> keras.KerasTensor:
    """Checks float images of 1 or 3 channels, and repeats gray images over three channels."""
    images = ops.convert_to_tensor(images)
    if len(images.shape) != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            "`images` must have shape (batch, height, width, channels) with 1 or 3 channels. "
            f"Received: images.shape={tuple(images.shape)}"
        )
    dtype = keras.backend.standardize_dtype(images.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(f"`images` must be floats in [-1, 1]. Received: images of dtype {dtype}")
    images = ops.cast(images, "float32")
    return ops.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
