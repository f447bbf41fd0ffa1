"""Winograd's method: 3 x 3 convolutions with fewer multiplications, as matrix products.

The same sums of inputs, and of kernel entries, occur in several neighboring outputs. If each of
these sums is computed only once, a 4 x 4 tile of outputs needs 36 multiplications instead of 144,
and a 2 x 2 tile needs 16 instead of 36. If the map is upsampled by 2 before the convolution, or
pooled by 2 after it, each location of the smaller map needs 9 multiplications, while the method of
`keras_sagan.ops.resampling` needs 16. Float32 results differ from those of a plain convolution by
approximately 1e-6 times the largest result with 2 x 2 tiles, and 3e-6 times with 4 x 4 tiles.

All convolutions in this module have stride 1 and zero padding. Inputs are
`(batch, height, width, channels)`, with even and known height and width; kernels are
`(3, 3, channels, filters)`.

Reference: [Lavin and Gray, 2016](https://arxiv.org/abs/1509.09308), F(2 x 2, 3 x 3) and
F(4 x 4, 3 x 3). The interpolation points follow
[Barabasz et al., 2018](https://arxiv.org/abs/1803.10986). For upsampled pixels `a, b, b`, the
output of a kernel `w` is `w0 a + (w1 + w2) b = w0 (a - b) + (w0 + w1 + w2) b`.
"""

import functools

import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow.python.ops import control_flow_util  # TensorFlow has no public equivalent.

__all__ = []

# The interpolation points for output tiles of side 2 or 4, without the point at infinity.
POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.75, -0.75, 1.5, -1.5)}
# A convolution with resampling multiplies by `w0`, `w0 + w1 + w2` and `w2`: one row for each.
RESAMPLED = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1]])
# A layout contains the `(axis, place)` arguments of `_to_parts`, first for rows, then for columns.
IN_FRONT = ((1, 0), (3, 1))  # The result has shape (parts, parts, batch, rows, columns, channels).
INSIDE = ((1, 3), (2, 4))  # The result has shape (batch, rows, columns, parts, parts, channels).


def suits_winograd(inputs, kernel):
    """Returns whether this module can compute a "same" convolution with stride 1."""
    sizes = inputs.shape[1:3]
    is_even = all(isinstance(size, int) and size and size % 2 == 0 for size in sizes)
    return is_even and tuple(kernel.shape[:2]) == (3, 3)


def tile_side(height, width):
    """Returns the side of the output tiles. For 4 x 4 maps, four 2 x 2 tiles are faster."""
    return 4 if height % 4 == width % 4 == 0 and height * width > 16 else 2


def winograd_convolve(inputs, kernel):
    """Convolves a map; returns a tensor of shape `(batch, height, width, filters)`."""
    _, height, width, channels = inputs.shape
    side = tile_side(height, width)
    count = (side + 2) ** 2
    tiles = _linear(_to_parts, _from_parts, inputs, ("inputs", side), IN_FRONT)
    tiles = ops.reshape(tiles, (count, -1, channels))
    products = ops.matmul(tiles, _transform(_minimal_form(side)[0], kernel))
    shape = (side + 2, side + 2, -1, height // side, width // side, kernel.shape[-1])
    products = ops.reshape(products, shape)
    return _linear(_from_parts, _to_parts, products, ("outputs", side), IN_FRONT[::-1])


def winograd_convolve_pool(inputs, kernel):
    """Convolves and averages 2 x 2 windows; returns `(batch, height / 2, width / 2, filters)`."""
    _, height, width, channels = inputs.shape
    parts = _linear(_to_parts, _from_parts, inputs, ("halves", 2), INSIDE)
    weights = ops.reshape(_transform(RESAMPLED / 2, kernel), (9 * channels, kernel.shape[-1]))
    outputs = ops.matmul(ops.reshape(parts, (-1, 9 * channels)), weights)
    return ops.reshape(outputs, (-1, height // 2, width // 2, kernel.shape[-1]))


def winograd_upsample_convolve(inputs, kernel):
    """Upsamples and convolves a map; returns `(batch, 2 * height, 2 * width, filters)`."""
    _, height, width, channels = inputs.shape
    filters = kernel.shape[-1]
    # This function is the transpose of `winograd_convolve_pool` with a mirrored kernel.
    weights = ops.transpose(_transform(RESAMPLED[::-1], kernel), (1, 0, 2))
    weights = ops.reshape(weights, (channels, 9 * filters))
    products = ops.matmul(ops.reshape(inputs, (-1, channels)), weights)
    products = ops.reshape(products, (-1, height, width, 3, 3, filters))
    return _linear(_from_parts, _to_parts, products, ("halves", 2), INSIDE[::-1])


def _transform(matrix, kernel):
    """Applies a matrix to a kernel's rows and columns; returns `(n * n, channels, filters)`."""
    matrix = ops.convert_to_tensor(np.kron(matrix, matrix), kernel.dtype)
    flat = ops.reshape(kernel, (9, kernel.shape[2] * kernel.shape[3]))
    return ops.reshape(ops.matmul(matrix, flat), (-1, kernel.shape[2], kernel.shape[3]))


@functools.cache
def _minimal_form(side):
    """Returns the kernel, input and output matrices, with one row per multiplication.

    For a kernel `w` with three entries and `side + 2` inputs `x`, the `side` outputs are
    `outputs.T @ ((kernel @ w) * (inputs @ x))`. The formula is the transposed Toom-Cook algorithm.
    """
    points = POINTS[side]
    count = len(points) + 1
    kernel, inputs, outputs = (np.zeros((count, entries)) for entries in (3, count, side))
    for row, point in enumerate(points):
        others = [x for x in points if x != point]
        kernel[row] = point ** np.arange(3.0) / np.prod(point - np.array(others))
        inputs[row, :-1] = np.poly(others)[::-1]
        outputs[row] = point ** np.arange(float(side))
    kernel[-1, -1] = outputs[-1, -1] = 1.0
    inputs[-1] = np.poly(points)[::-1]
    return kernel, inputs, outputs


@functools.cache
def _table(kind, size):
    """Returns the weights of `_to_parts` for 3 adjacent tiles, of shape `(parts, 3, size)`."""
    if kind == "halves":
        rows = [0, 1, 0, -1, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, -1, 0, 1, 0]
        return np.reshape(rows, (3, 3, 2)).astype(float)
    _, inputs, outputs = _minimal_form(size)
    table = np.zeros((size + 2, 3, size))
    if kind == "outputs":
        table[:, 1] = outputs
    else:
        table[:, 0, -1], table[:, 1], table[:, 2, 0] = inputs[:, 0], inputs[:, 1:-1], inputs[:, -1]
    return table


def _linear(function, transpose, x, name, layout):
    """Applies a linear function to rows and columns; `transpose` computes its gradient."""

    @tf.custom_gradient
    def apply(x):
        # TensorFlow's tape uses this name scope for gradients, and the profiler groups by it.
        scope = f"gradient_tape/{tf.get_current_name_scope()}/".replace("//", "/")

        def gradient(upstream):
            with tf.name_scope(scope):
                return _linear(transpose, function, upstream, name, layout[::-1])

        for axis, place in layout:
            x = function(x, name=name, axis=axis, place=place)
        return x, gradient

    return apply(x)


def _compiled(function):
    """Compiles a function with XLA, unless XLA already compiles the surrounding graph.

    XLA fuses elementwise sums and products into one loop, while TensorFlow writes each result to
    memory. Each shape is compiled once, in approximately 0.1 seconds.
    """

    @functools.cache
    def with_settings(**settings):
        in_one_loop = functools.partial(function, combine=_at_once, **settings)
        return tf.function(in_one_loop, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(x, **settings):
        graph = tf.compat.v1.get_default_graph()
        if not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(graph):
            return function(x, **settings)
        return with_settings(**settings)(x)

    return call


def _one_by_one(tensors, matrix, place):
    """Stacks linear combinations of tensors, one per row of a matrix, on a new axis at `place`."""
    sums = (
        functools.reduce(ops.add, (float(f) * x for f, x in zip(row, tensors) if f))
        for row in matrix
    )
    return ops.stack(list(sums), axis=place)


def _at_once(tensors, matrix, place):
    """Does the same as `_one_by_one` but also adds zero terms; this is slow in large XLA graphs."""
    shape = [1] * (len(tensors[0].shape) + 1)
    shape[place] = -1
    terms = (
        ops.convert_to_tensor(factors.reshape(shape), x.dtype) * ops.expand_dims(x, place)
        for factors, x in zip(matrix.T, tensors)
        if factors.any()
    )
    return functools.reduce(ops.add, terms)


@_compiled
def _to_parts(x, name, axis, place, combine=_one_by_one):
    """Splits `axis` into tiles, and stacks weighted sums (parts) on a new axis at `place`."""
    table = _table(*name)
    size = table.shape[-1]
    shape = _with_batch(x.shape)
    shape[axis : axis + 1] = [x.shape[axis] // size, size]
    entries = ops.unstack(ops.reshape(x, shape), axis=axis + 1)
    near_entries = [_neighbor(entry, axis, near) for near in range(3) for entry in entries]
    return combine(near_entries, table.reshape(len(table), -1), place)


@_compiled
def _from_parts(parts, name, axis, place, combine=_one_by_one):
    """Applies the transpose of `_to_parts`."""
    table = _table(*name)
    size = table.shape[-1]
    parts = ops.unstack(parts, axis=place)
    near_parts = [_neighbor(part, axis, 2 - near) for part in parts for near in range(3)]
    entries = combine(near_parts, table.reshape(-1, size).T, axis + 1)
    shape = _with_batch(parts[0].shape)
    shape[axis] *= size
    return ops.reshape(entries, shape)


def _with_batch(shape):
    return [-1 if size is None else size for size in shape]


def _neighbor(x, axis, near):
    """Returns the previous (`near=0`), current (1) or next (2) tile for each tile along `axis`."""
    if near == 1:
        return x
    before, after = ops.split(x, [x.shape[axis] - 1 if near == 0 else 1], axis=axis)
    padding = [(0, 0)] * len(x.shape)
    padding[axis] = (int(near == 0), int(near == 2))
    return ops.pad(before if near == 0 else after, padding)
