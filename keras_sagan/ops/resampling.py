"""Combines a convolution with upsampling or pooling into a single strided convolution."""

import contextlib
import contextvars
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

cpu: Any = None
if keras.backend.backend() == "tensorflow":
    with contextlib.suppress(ImportError):  # The `cpu` folder is optional.
        from keras_sagan.ops import cpu

WIDE = 28  # The smallest channels * filters / (channels + filters) for which Winograd is faster.
_FAST_FORMS = contextvars.ContextVar("fast_forms", default=True)


@contextlib.contextmanager
def reference_forms():
    """Replaces the fast CPU implementations with reference ones in the `with` block."""
    token = _FAST_FORMS.set(False)
    try:
        yield
    finally:
        _FAST_FORMS.reset(token)


def convolve(
    inputs,
    kernel,
    resample: str | None = None,
    strides: int | tuple = 1,
    padding: str = "same",
    data_format: str = "channels_last",
    dilation_rate: int | tuple = 1,
    training: bool = False,
):
    """Convolves a map, optionally doubling its size beforehand or halving it afterwards.

    Args:
        inputs: Float tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` with `"channels_first"`.
        kernel: Float tensor of shape `(rows, columns, channels / groups, filters)`.
        resample: `"up"` for `upsample_convolve`, `"down"` for `convolve_pool`, or `None`.
            Resampling requires `strides=1` and `dilation_rate=1`.
        strides, padding, data_format, dilation_rate: As in `keras.ops.conv`.
        training: Boolean. In training, TensorFlow on CPUs uses Winograd's method for float32
            convolutions with 3 x 3 kernels and many channels. This changes the outputs by
            approximately 3e-6 times the largest output.

    Returns:
        Float tensor in the dtype of `inputs`.
    """
    is_dense = strides in (1, (1, 1)) and dilation_rate in (1, (1, 1))
    is_plain = is_dense and padding == "same" and data_format == "channels_last"
    if training and is_plain and _is_wide(inputs, kernel):
        outputs = cpu.convolve(inputs, ops.cast(kernel, inputs.dtype), resample)
        if outputs is not None:
            return outputs
    settings: dict = {"padding": padding, "data_format": data_format}
    if resample is None:
        form, kernel = _conv, ops.cast(kernel, inputs.dtype)
        settings |= {"strides": strides, "dilation_rate": dilation_rate}
    else:
        form = {"up": upsample_convolve, "down": convolve_pool}[resample]
    return of_any_batch(lambda x: form(x, kernel, **settings), inputs, training)


def _conv(inputs, kernel, data_format, **settings):
    is_half = keras.backend.standardize_dtype(inputs.dtype) == "float16"
    if keras.backend.backend() != "torch" or kernel.shape[-1] > 1 or not is_half:
        return ops.conv(inputs, kernel, data_format=data_format, **settings)
    # On CPUs, PyTorch 2.13 has no gradient for a single float16 filter.
    kernel = ops.concatenate([kernel, ops.zeros_like(kernel)], axis=-1)
    outputs = ops.conv(inputs, kernel, data_format=data_format, **settings)
    return outputs[:, :1] if data_format == "channels_first" else outputs[..., :1]


def of_any_batch(function: Callable, images, training: bool = False):
    """Returns `function(images)`, even for an empty batch, which TensorFlow on CPUs can't handle.

    `images` is a tensor `(batch, …)`, or a tuple of such tensors. `function` returns a tensor, and
    must treat each image independently. In a graph traced with `training=False` and an unknown
    batch size, the batch must not be empty.
    """
    batch = ops.shape(keras.tree.flatten(images)[0])[0]
    if cpu is None or (isinstance(batch, int) and batch):
        return function(images)
    return cpu.apply_to_any_batch(function, images, training)


def _is_wide(inputs, kernel):
    """Returns whether a convolution has enough channels for Winograd's method to be faster."""
    rows, columns, channels, filters = kernel.shape
    is_3x3 = rows == columns == 3 and channels == inputs.shape[-1]
    is_wide = channels * filters >= WIDE * (channels + filters)
    return is_3x3 and is_wide and cpu is not None and _FAST_FORMS.get()


def upsample_convolve(inputs, kernel, padding: str = "same", data_format: str = "channels_last"):
    """Upsamples a map by 2 (nearest neighbor) and convolves it, in one transposed convolution.

    Each 2 x 2 block of the doubled map has a single value, so multiplying it by several kernel
    entries is the same as multiplying it by their sum. A transposed convolution with stride 2
    therefore has the same outputs, even at the border, if its kernel is `kernel`, flipped and
    convolved with a 2 x 2 kernel of ones. For a 3 x 3 kernel, this method needs 16 multiplications
    per location of the small map instead of 36.

    Args:
        inputs, data_format: As in `convolve`.
        kernel: Float tensor of shape `(rows, columns, channels, filters)`, with odd numbers of rows
            and columns. Kernel entries are summed before they are cast to the dtype of `inputs`.
        padding: `"same"` or `"valid"`, the padding of the convolution over the doubled map.

    Returns:
        Float tensor, of shape `(batch, 2 * height, 2 * width, filters)` if `padding="same"`.
    """
    if tuple(kernel.shape[:2]) == (1, 1):  # A 1 x 1 convolution commutes with doubling.
        kernel = ops.cast(kernel, inputs.dtype)
        return repeat_twice(ops.conv(inputs, kernel, 1, "valid", data_format), data_format)
    flipped = ops.transpose(ops.flip(kernel, axis=(0, 1)), (0, 1, 3, 2))
    fused = ops.cast(sum_of_shifts(flipped), inputs.dtype)
    outputs = ops.conv_transpose(inputs, fused, 2, "same", None, data_format)
    if padding == "same":
        return outputs
    # Crop to the outputs of a "valid" convolution of the doubled map.
    window = [slice(None)] * 4
    for axis, size in enumerate(kernel.shape[:2], _first_axis(data_format)):
        window[axis] = slice(size // 2, ops.shape(outputs)[axis] - size // 2)
    return outputs[tuple(window)]


def repeat_twice(inputs, data_format: str = "channels_last"):
    """Doubles height and width (nearest-neighbor upsampling)."""
    first = _first_axis(data_format)
    return ops.repeat(ops.repeat(inputs, 2, axis=first), 2, axis=first + 1)


def convolve_pool(inputs, kernel, padding: str = "same", data_format: str = "channels_last"):
    """Convolves a map and averages 2 x 2 windows of the result, in one convolution with stride 2.

    The mean of four convolutions with shifted kernels equals a single convolution with the mean of
    the kernels, which is `kernel` convolved with a 2 x 2 kernel of 1/4. For a 3 x 3 kernel, the
    single convolution needs 16 multiplications per output location instead of 36. As in Keras's
    pooling, an odd last row or column is dropped.

    Args:
        inputs, kernel, data_format: As in `upsample_convolve`.
        padding: `"same"` or `"valid"`, the padding of the convolution; the pooling never pads.

    Returns:
        Float tensor, of shape `(batch, height // 2, width // 2, filters)` if `padding="same"`.
    """
    if tuple(kernel.shape[:2]) == (1, 1):  # A 1 x 1 convolution commutes with averaging.
        pooled = ops.average_pool(inputs, 2, 2, "valid", data_format)
        return ops.conv(pooled, ops.cast(kernel, inputs.dtype), 1, "valid", data_format)
    kernel = ops.cast(sum_of_shifts(kernel) / 4, inputs.dtype)
    outputs = ops.conv(inputs, kernel, 2, padding, data_format)
    first = _first_axis(data_format)
    sizes = ops.shape(inputs)[first : first + 2]
    if padding == "valid" or all(isinstance(size, int) and size % 2 == 0 for size in sizes):
        return outputs
    window = [slice(None)] * 4
    window[first : first + 2] = [slice(size // 2) for size in sizes]
    return outputs[tuple(window)]


def sum_of_shifts(kernel):
    """Convolves a kernel with a 2 x 2 kernel of ones, which adds one row and one column."""
    none, before, after = (0, 0), (1, 0), (0, 1)
    rows = sum(ops.pad(kernel, [side, none, none, none]) for side in (before, after))
    return sum(ops.pad(rows, [none, side, none, none]) for side in (before, after))


def _first_axis(data_format):
    return 2 if data_format == "channels_first" else 1
