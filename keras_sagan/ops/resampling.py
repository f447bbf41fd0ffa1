"""Up-sampling before a convolution and pooling after it, each as one strided convolution."""

from keras import ops


def upsample_convolve(inputs, kernel, padding="same", data_format="channels_last"):
    """Doubles a map by nearest neighbours and convolves it, in one transposed convolution.

    Four neighbours of the doubled map are one value, so the products of the kernel with them are
    one product with a sum of the kernel. `kernel`, flipped and convolved with a 2 x 2 box of ones,
    is the kernel of a transposed convolution with stride 2 that gives the same outputs, at the
    border too. A 3 x 3 kernel takes 16 products for a location of the small map in place of 36.

    Args:
        inputs: Float tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` with `"channels_first"`.
        kernel: Float tensor of shape `(rows, columns, channels, filters)`, rows and columns odd.
            Its sums are taken in its own dtype and cast to that of `inputs` then.
        padding: `"same"` or `"valid"`, as of the convolution of the doubled map.
        data_format: `"channels_last"` or `"channels_first"`.

    Returns:
        Float tensor of the shape that the convolution of the doubled map has, for `"same"`
        `(batch, 2 * height, 2 * width, filters)`.
    """
    if tuple(kernel.shape[:2]) == (1, 1):  # It commutes with the doubling.
        kernel = ops.cast(kernel, inputs.dtype)
        return repeat_twice(ops.conv(inputs, kernel, 1, "valid", data_format), data_format)
    flipped = ops.transpose(ops.flip(kernel, axis=(0, 1)), (0, 1, 3, 2))
    fused = ops.cast(sum_of_shifts(flipped), inputs.dtype)
    outputs = ops.conv_transpose(inputs, fused, 2, "same", None, data_format)
    if padding == "same":
        return outputs
    # What a "valid" convolution of the doubled map has less of.
    window = [slice(None)] * 4
    for axis, size in enumerate(kernel.shape[:2], _first_axis(data_format)):
        window[axis] = slice(size // 2, ops.shape(outputs)[axis] - size // 2)
    return outputs[tuple(window)]


def repeat_twice(inputs, data_format="channels_last"):
    """Doubles height and width by nearest neighbours."""
    first = _first_axis(data_format)
    return ops.repeat(ops.repeat(inputs, 2, axis=first), 2, axis=first + 1)


def convolve_pool(inputs, kernel, padding="same", data_format="channels_last"):
    """Convolves a map and takes the means of 2 x 2 windows, in one convolution with stride 2.

    The mean of four convolutions with shifted kernels is the convolution with the mean of the
    kernels: `kernel` convolved with a 2 x 2 box of quarters. A 3 x 3 kernel takes 16 products for
    a location of the outputs in place of 36. As with Keras's pooling an odd last row or column
    is left out.

    Args:
        inputs, kernel, data_format: As in `upsample_convolve`.
        padding: `"same"` or `"valid"`, as of the convolution; the pooling never pads.

    Returns:
        Float tensor of the shape that the pooled convolution has, for `"same"`
        `(batch, height // 2, width // 2, filters)`.
    """
    if tuple(kernel.shape[:2]) == (1, 1):  # It commutes with the mean.
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
    """Convolves a kernel with a 2 x 2 box of ones: it gets one row and one column more."""
    none, before, after = (0, 0), (1, 0), (0, 1)
    rows = sum(ops.pad(kernel, [side, none, none, none]) for side in (before, after))
    return sum(ops.pad(rows, [none, side, none, none]) for side in (before, after))


def _first_axis(data_format):
    return 2 if data_format == "channels_first" else 1
