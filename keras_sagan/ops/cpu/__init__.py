"""Code that exists only for TensorFlow on CPUs.

`keras_sagan.ops.resampling` has the reference forms and calls this folder if it exists. Without it
everything works the same, except for empty batches.
"""

import keras
from keras import ops

from keras_sagan.ops.cpu.winograd import (
    square_side,
    suits_winograd,
    winograd_convolve,
    winograd_resample,
)

WIDE = 64  # On small maps, as `keras_sagan.ops.resampling.WIDE` on others.


def convolve(inputs, kernel, resample=None):
    """Convolves with fewer products, by Winograd's method.

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        kernel: Tensor of shape `(3, 3, channels, filters)`.
        resample: `"up"`, `"down"` or `None`, as in `keras_sagan.ops.resampling.convolve`.

    Returns:
        The tensor that `keras_sagan.ops.resampling.convolve` returns, or `None` where the method
        doesn't apply: on other devices, in half precision and float64, for maps of odd or unknown
        size, and where it would be slower.
    """
    if inputs.dtype != "float32" or not is_in_charge() or not suits_winograd(inputs, kernel):
        return None
    if resample is None:
        channels, filters = kernel.shape[2:]
        is_small = square_side(*inputs.shape[1:3]) == 2
        if is_small and channels * filters < WIDE * (channels + filters):
            return None
        return winograd_convolve(inputs, kernel)
    return winograd_resample(inputs, kernel, resample)


def apply_to_any_batch(function, images, training):
    """Returns `function(images)`, with the right shape for an empty batch too.

    With oneDNN, TensorFlow 2.21's convolution of no images has the shape of its inputs, and the
    gradient of its pooling ends the process.

    Args:
        function: Function of a tensor `(batch, …)`, or a tuple of them, to another, image by image.
        images: Tensor of shape `(batch, …)`, or a tuple of them; the batch may be unknown.
        training: Boolean. A program for inference computes `function(images)` alone: with a
            condition, TensorFlow's converter to LiteRT would lose the rank of the result.

    Returns:
        Tensor of shape `(batch, …)`.
    """

    def of_none():
        blank = [ops.zeros((1, *ops.shape(x)[1:]), x.dtype) for x in flat]
        return function(keras.tree.pack_sequence_as(images, blank))[:0]

    flat = keras.tree.flatten(images)
    batch = ops.shape(flat[0])[0]
    if batch is None or isinstance(batch, int):
        return of_none() if batch == 0 else function(images)
    return ops.cond(batch > 0, lambda: function(images), of_none) if training else function(images)


def is_in_charge():
    """Whether the machine has no GPUs and TPUs."""
    return all("cpu" in device.lower() for device in keras.distribution.list_devices())
