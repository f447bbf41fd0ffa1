"""TensorFlow code that makes convolutions on CPUs faster and supports empty batches."""

from collections.abc import Callable

import keras
from keras import ops

from keras_sagan.ops.cpu.winograd import (
    suits_winograd,
    tile_side,
    winograd_convolve,
    winograd_convolve_pool,
    winograd_upsample_convolve,
)

WIDE = 64  # The threshold for small maps; `ops.resampling.WIDE` is the one for larger maps.


def convolve(inputs, kernel, resample: str | None = None):
    """Computes `ops.resampling.convolve` with Winograd's method.

    Returns `None` if the machine has GPUs or TPUs, the dtype isn't float32, the kernel isn't 3 x 3,
    the height or width is odd or unknown, or the channels are too few for a speedup.
    """
    if inputs.dtype != "float32" or not is_in_charge() or not suits_winograd(inputs, kernel):
        return None
    if resample is not None:
        form = winograd_upsample_convolve if resample == "up" else winograd_convolve_pool
        return form(inputs, kernel)
    channels, filters = kernel.shape[2:]
    is_small = tile_side(*inputs.shape[1:3]) == 2
    if is_small and channels * filters < WIDE * (channels + filters):
        return None
    return winograd_convolve(inputs, kernel)


def apply_to_any_batch(function: Callable, images, training: bool):
    """Implements `ops.resampling.of_any_batch` on TensorFlow.

    In TensorFlow 2.21, a oneDNN convolution of an empty batch returns a tensor with the shape of
    its inputs, and the gradient of pooling crashes the process. An inference graph doesn't check
    for an empty batch, because LiteRT's converter wouldn't know the rank of a conditional's result.
    """

    def of_none():
        blank = [ops.zeros((1, *ops.shape(x)[1:]), x.dtype) for x in flat]
        return function(keras.tree.pack_sequence_as(images, blank))[:0]

    flat = keras.tree.flatten(images)
    batch = ops.shape(flat[0])[0]
    if batch is None or isinstance(batch, int):
        return of_none() if batch == 0 else function(images)
    return ops.cond(batch > 0, lambda: function(images), of_none) if training else function(images)


def is_in_charge() -> bool:
    """Returns whether the machine has only CPUs."""
    return all("cpu" in device.lower() for device in keras.distribution.list_devices())
