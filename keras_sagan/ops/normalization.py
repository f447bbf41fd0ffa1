"""What batch normalization is made of, with gradients in few operations."""

import functools
import math

from keras import ops

from keras_sagan.ops.compiled import compiled
from keras_sagan.ops.gradients import with_gradient


def moments(x, axes):
    """Mean and variance without cancellation.

    Args:
        x: Float tensor of shape `(…, channels, …)`.
        axes: List of integers, all axes of `x` but one.

    Returns:
        Float tensor of shape `(2, channels)`. Those of an empty batch are NaN.
    """

    def moments_of(x):
        mean = ops.mean(x, axes, keepdims=True)
        variance = ops.mean(ops.square(x - mean), axes)
        return ops.stack([ops.reshape(mean, variance.shape), variance])

    def gradient(inputs, upstream):
        (x,) = inputs
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        count = ops.cast(math.prod(ops.shape(x)[axis] for axis in axes), x.dtype)
        d_mean, d_variance = (ops.reshape(d, shape) / count for d in ops.unstack(upstream))
        return _sloped(x, ops.mean(x, axes, keepdims=True), 2.0 * d_variance, d_mean)

    return with_gradient(moments_of, gradient)(x)


def scale_and_shift(x, scale, shift):
    """`x * scale + shift`, where factors and summands are along some axes of `x` alone.

    Args:
        x: Float tensor.
        scale, shift: Float tensors of one shape: the size of `x` or 1 along each axis.

    Returns:
        Float tensor of the shape of `x`.
    """
    axes = [axis for axis, size in enumerate(scale.shape) if size == 1]

    def gradient(inputs, upstream):
        x, scale, _ = inputs
        total = functools.partial(ops.sum, axis=axes, keepdims=True)
        return upstream * scale, total(upstream * x), total(upstream)

    return with_gradient(_product, gradient)(x, scale, shift)


def ramped_momentum(momentum, updates):
    """The share of a moving average that its next update keeps, so that its start is forgotten.

    The first ten updates make it their plain mean, later ones the mean over about the last
    fortieth of all, and over ten at least, until `momentum` keeps less than that. The new value's
    share is `max(1 - momentum, 1 / min(n, max(10, n / 40)))` at the `n`-th update. Networks change
    fast at first: with a mean over the last tenth, pictures in inference were further from those
    by batch statistics.

    Args:
        momentum: Float in [0, 1]. With 1 the average never moves.
        updates: Integer tensor of shape `()`, the updates made before.

    Returns:
        float32 tensor of shape `()`.
    """
    if momentum >= 1.0:
        return ops.ones((), "float32")
    count = ops.cast(updates, "float32") + 1.0
    window = ops.minimum(count, ops.maximum(10.0, count / 40.0))
    return ops.minimum(momentum, 1.0 - 1.0 / window)


def matching_momentum(momentum, inner):
    """The share to keep in an average of moving statistics that belongs to averaged weights.

    What a moving average holds is `m / (1 - m)` updates old in the mean, and the average of an
    average is as old as both together. With this share the statistics are as old as the weights,
    or as new as they can be.

    Args:
        momentum: Float tensor, the share that the average of the weights keeps.
        inner: Float tensor, the share that the moving statistics keep.

    Returns:
        float32 tensor of shape `()`.
    """
    age, inner_age = (x / (1.0 - x) for x in (momentum, inner))
    missing = ops.maximum(age - inner_age, 0.0)
    return missing / (1.0 + missing)


SETTLED = 2**30  # So many updates that `momentum` alone rules.
LEAST = 2**15  # Of smaller maps it takes long to compile for what it saves.
_product = compiled(lambda x, scale, shift: x * scale + shift, least=LEAST)
_sloped = compiled(lambda x, mean, slope, offset: (x - mean) * slope + offset, least=LEAST)
