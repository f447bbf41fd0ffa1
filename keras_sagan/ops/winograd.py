"""3 x 3 convolutions with fewer products, as matrix products of transformed maps and kernels.

Outputs that lie side by side share sums of inputs and of kernel entries. Taken once, they leave
16 products for a 2 x 2 square of outputs in place of 36, and 9 in place of the 16 of
`keras_sagan.ops.resampling` where the map is doubled before or halved after the convolution. The
transforms are sums and differences: results are the same to float32's rounding, about 1e-6. They
pay where channels are many and maps small.

Reference:
    [Lavin and Gray, 2016](https://arxiv.org/abs/1509.09308), F(2 x 2, 3 x 3). The other two follow
    from `w0 a + (w1 + w2) b = w0 (a - b) + (w0 + w1 + w2) b`.
"""

import numpy as np
from keras import ops

# By rows: what each product of a tile takes of a kernel's three entries.
_TILE = np.array([[-1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, -1]], "float32")
_RESAMPLED = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1]], "float32")


def suits_winograd(inputs, kernel):
    """Whether the functions here can compute a "same" convolution with stride 1.

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        kernel: Tensor of shape `(rows, columns, channels, filters)`.
    """
    sizes = inputs.shape[1:3]
    is_even = all(isinstance(size, int) and size and size % 2 == 0 for size in sizes)
    return is_even and tuple(kernel.shape[:2]) == (3, 3)


def is_winograd_faster(kernel, resample=None):
    """Whether the products saved outweigh the transforms, by measurement on CPUs.

    Args:
        kernel: Tensor of shape `(3, 3, channels, filters)`.
        resample: `"up"`, `"down"` or `None`.
    """
    channels, filters = kernel.shape[2:]
    enough = 40 if resample == "up" else 64
    return channels * filters >= enough * (channels + filters)


def winograd_convolve(inputs, kernel):
    """Convolves with stride 1 and zeros around the map.

    Args:
        inputs: Float tensor of shape `(batch, height, width, channels)`, height and width even
            and known.
        kernel: Float tensor of shape `(3, 3, channels, filters)`.

    Returns:
        Float tensor of shape `(batch, height, width, filters)`.
    """
    _, height, width, channels = inputs.shape
    padded = ops.pad(inputs, [(0, 0), (1, 1), (1, 1), (0, 0)])
    tiles = _analyze(_TILES, padded, axis=0)
    products = ops.matmul(ops.reshape(tiles, (16, -1, channels)), _transform(_TILE, kernel))
    shape = (16, -1, height // 2, width // 2, kernel.shape[-1])
    return _synthesize(_SQUARES, ops.reshape(products, shape), axis=0)


def winograd_convolve_pool(inputs, kernel):
    """Convolves as `winograd_convolve`, and takes the means of 2 x 2 windows.

    Args:
        inputs, kernel: As in `winograd_convolve`.

    Returns:
        Float tensor of shape `(batch, height / 2, width / 2, filters)`.
    """
    _, height, width, channels = inputs.shape
    parts = ops.reshape(_analyze(_HALVES, inputs, axis=3), (-1, 9 * channels))
    weights = ops.reshape(_transform(_RESAMPLED / 2, kernel), (9 * channels, kernel.shape[-1]))
    outputs = ops.matmul(parts, weights)
    return ops.reshape(outputs, (-1, height // 2, width // 2, kernel.shape[-1]))


def winograd_upsample_convolve(inputs, kernel):
    """Doubles a map by nearest neighbours, and convolves it as `winograd_convolve`.

    Args:
        inputs, kernel: As in `winograd_convolve`.

    Returns:
        Float tensor of shape `(batch, 2 * height, 2 * width, filters)`.
    """
    _, height, width, channels = inputs.shape
    filters = kernel.shape[-1]
    # The transpose of a convolution and pooling, whose kernel is mirrored.
    weights = ops.transpose(_transform(_RESAMPLED[::-1], kernel), (1, 0, 2))
    weights = ops.reshape(weights, (channels, 9 * filters))
    products = ops.matmul(ops.reshape(inputs, (-1, channels)), weights)
    return _synthesize(_HALVES, ops.reshape(products, (-1, height, width, 9, filters)), axis=3)


def _transform(matrix, kernel):
    """Applies a matrix to the rows and the columns of a kernel: `(n * n, channels, filters)`."""
    matrix = ops.convert_to_tensor(np.kron(matrix, matrix), kernel.dtype)
    flat = ops.reshape(kernel, (9, kernel.shape[2] * kernel.shape[3]))
    return ops.reshape(ops.matmul(matrix, flat), (-1, kernel.shape[2], kernel.shape[3]))


# Each transform of an axis is a pair: to parts, and its transpose, from parts. So one is the
# gradient of the other. TensorFlow would find the same gradient in more and slower operations.


def _to_tiles(x, axis):
    even, odd = _split(x, axis)
    first, second = _without(even, axis, last=True), _without(odd, axis, last=True)
    third, fourth = _without(even, axis, last=False), _without(odd, axis, last=False)
    return first - third, second + third, third - second, second - fourth


def _from_tiles(parts, axis):
    first, second, third, fourth = parts
    even = _padded(first, axis, 1) + _padded(second + third - first, axis, 0)
    odd = _padded(second - third + fourth, axis, 1) - _padded(fourth, axis, 0)
    return _interleave(even, odd, axis)


def _to_products(x, axis):
    even, odd = _split(x, axis)
    return -even, even + odd, even - odd, odd


def _from_products(parts, axis):
    first, second, third, fourth = parts
    # Not as a sum of three, which TensorFlow adds up in the order in which buffers become free.
    return _interleave(second + third - first, second - third + fourth, axis)


def _to_halves(x, axis):
    even, odd = _split(x, axis)
    return _moved(odd, axis, 1) - odd, even + odd, _moved(even, axis, 0) - even


def _from_halves(parts, axis):
    before, pair, after = parts
    even = pair + _moved(after, axis, 1) - after
    odd = pair + _moved(before, axis, 0) - before
    return _interleave(even, odd, axis)


_TILES = (_to_tiles, _from_tiles)
_SQUARES = (_to_products, _from_products)
_HALVES = (_to_halves, _from_halves)


def _analyze(pair, x, axis):
    """Transforms rows and columns to parts, stacked on a new axis."""
    return _linear(_parts_of, _whole_of, pair, x, axis)


def _synthesize(pair, parts, axis):
    """The transpose of `_analyze`: from parts, stacked on an axis."""
    return _linear(_whole_of, _parts_of, pair, parts, axis)


def _linear(function, transpose, pair, x, axis):
    @ops.custom_gradient
    def apply(x):
        def gradient(*arguments, upstream=None):
            # TensorFlow and JAX give it alone, torch by name.
            upstream = arguments[0] if upstream is None else upstream
            return transpose(pair, upstream, axis)

        return function(pair, x, axis), gradient

    return apply(x)


def _parts_of(pair, x, axis):
    to_parts, _ = pair
    parts = [part for rows in to_parts(x, 1) for part in to_parts(rows, 2)]
    return ops.stack(parts, axis=axis)


def _whole_of(pair, x, axis):
    _, from_parts = pair
    parts = ops.unstack(x, axis=axis)
    count = int(len(parts) ** 0.5)
    rows = [from_parts(parts[i : i + count], 2) for i in range(0, len(parts), count)]
    return from_parts(rows, 1)


def _split(x, axis):
    """Even and odd entries of an axis."""
    shape = (-1, *x.shape[1:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    return ops.unstack(ops.reshape(x, shape), axis=axis + 1)


def _interleave(even, odd, axis):
    x = ops.stack([even, odd], axis=axis + 1)
    return ops.reshape(x, (-1, *x.shape[1:axis], 2 * x.shape[axis], *x.shape[axis + 2 :]))


def _without(x, axis, last):
    """All entries of an axis but the last, or but the first."""
    head, tail = ops.split(x, [x.shape[axis] - 1 if last else 1], axis=axis)
    return head if last else tail


def _padded(x, axis, end):
    """Adds a zero to an axis: in front (`end=0`) or behind (`end=1`)."""
    padding = [(0, 0)] * len(x.shape)
    padding[axis] = (end == 0, end == 1)
    return ops.pad(x, padding)


def _moved(x, axis, by):
    """Moves entries along an axis by one, up (`by=1`) or down (`by=0`), with a zero for the gap."""
    return _padded(_without(x, axis, last=by == 1), axis, 1 - by)
