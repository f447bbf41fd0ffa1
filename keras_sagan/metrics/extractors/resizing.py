"""Resizing to an extractor's size, by name: the choice changes every score."""

import keras
from keras import ops

from keras_sagan.checks import check_choice
from keras_sagan.lazy import tf

RESIZE_METHODS = ("tfgan", "antialiased")


def resize_images(images, size, method):
    """Resizes images to a square, bilinearly.

    `"tfgan"` is TensorFlow 1's pixel grid, as TF-GAN has it: no half-pixel centres, and pixels are
    skipped where an image shrinks. TensorFlow alone has it. `"antialiased"` has half-pixel centres
    and, where an image shrinks, averages over all pixels.

    Args:
        images: Float tensor of shape (batch, height, width, channels).
        size: Integer, height and width of the result.
        method: String, one of `RESIZE_METHODS`.

    Returns:
        Float tensor of shape (batch, size, size, channels).

    Raises:
        ValueError: For another method.

    Reference:
        Parmar et al. 2022, [On Aliased Resizing](https://arxiv.org/abs/2104.11222).
    """
    check_resize(method)
    if method == "tfgan":
        return tf.compat.v1.image.resize_bilinear(as_tensorflow(images), (size, size))
    return ops.image.resize(images, (size, size), antialias=True, data_format="channels_last")


def as_tensorflow(images):
    """Returns images of any backend as what TensorFlow's functions take."""
    is_own = keras.backend.backend() == "tensorflow"
    return images if is_own else tf.constant(ops.convert_to_numpy(images))


def check_resize(method):
    """Raises unless `method` is one of `RESIZE_METHODS`."""
    check_choice("resize", method, RESIZE_METHODS, f"one of {RESIZE_METHODS}")


def to_rgb(images):
    """Checks float images of 1 or 3 channels and repeats grey ones over three channels."""
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
    return ops.concatenate([images] * 3, axis=-1) if images.shape[-1] == 1 else images
