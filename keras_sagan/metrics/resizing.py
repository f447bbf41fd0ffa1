"""Resizing to an extractor's size, by name: the choice changes every score."""

import tensorflow as tf

from keras_sagan.checks import check_choice

RESIZE_METHODS = ("tfgan", "antialiased")


def resize_images(images, size, method):
    """Resizes images to a square, bilinearly.

    `"tfgan"` is TensorFlow 1's pixel grid, as TF-GAN has it: no half-pixel centres, and pixels are
    skipped where an image shrinks. `"antialiased"` has half-pixel centres and, where an image
    shrinks, averages over all pixels.

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
        return tf.compat.v1.image.resize_bilinear(images, (size, size))
    return tf.image.resize(images, (size, size), antialias=True)


def check_resize(method):
    """Raises unless `method` is one of `RESIZE_METHODS`."""
    check_choice("resize", method, RESIZE_METHODS, f"one of {RESIZE_METHODS}")


def to_rgb(images):
    """Checks float images of 1 or 3 channels and repeats grey ones over three channels."""
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            "`images` must have shape (batch, height, width, channels) with 1 or 3 channels. "
            f"Received: images.shape={tuple(images.shape)}"
        )
    if not images.dtype.is_floating:
        raise ValueError(
            f"`images` must be floats in [-1, 1]. Received: images of dtype {images.dtype.name}"
        )
    images = tf.cast(images, tf.float32)
    return tf.image.grayscale_to_rgb(images) if images.shape[-1] == 1 else images
