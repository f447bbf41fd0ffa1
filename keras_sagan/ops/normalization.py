"""What batch normalization is made of, with gradients in few operations."""

import functools
import math

import keras
from keras import ops

from keras_sagan.ops.compiled import compiled


def moments(x, axes):
    """Mean and variance without cancellation.

    Args:
        x: Float tensor of shape `(…, channels, …)`.
        axes: List of integers, all axes of `x` but one.

    Returns:
        Float tensor of shape `(2, channels)`. Those of an empty batch are NaN.
    """

    @ops.custom_gradient
    def of(x):
        def gradient(*arguments, upstream=None):
            # TensorFlow and JAX give it alone, torch by name.
            upstream = arguments[0] if upstream is None else upstream
            with keras.name_scope("norm_gradient"):  # For who looks at a profile.
                return _moments_gradient(x, axes, upstream)

        mean = ops.mean(x, axes, keepdims=True)
        variance = ops.mean(ops.square(x - mean), axes)
        return ops.stack([ops.reshape(mean, variance.shape), variance]), gradient

    return of(x)


def _moments_gradient(x, axes, upstream):
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    count = ops.cast(math.prod(ops.shape(x)[axis] for axis in axes), x.dtype)
    d_mean, d_variance = (ops.reshape(part, shape) / count for part in ops.unstack(upstream))
    return _sloped(x, ops.mean(x, axes, keepdims=True), 2.0 * d_variance, d_mean)


def scale_and_shift(x, scale, shift):
    """`x * scale + shift`, where factors and summands are along some axes of `x` alone.

    Args:
        x: Float tensor.
        scale, shift: Float tensors of one shape: the size of `x` or 1 along each axis.

    Returns:
        Float tensor of the shape of `x`.
    """
    axes = [axis for axis, size in enumerate(scale.shape) if size == 1]

    @ops.custom_gradient
    def apply(x, scale, shift):
        def gradient(*arguments, upstream=None):
            if upstream is None:
                arguments, upstream = (x, scale, shift), arguments[0]
            inputs, factor, _ = arguments
            total = functools.partial(ops.sum, axis=axes, keepdims=True)
            with keras.name_scope("norm_gradient"):
                return upstream * factor, total(upstream * inputs), total(upstream)

        return _product(x, scale, shift), gradient

    return apply(x, scale, shift)


LEAST = 2**15  # Of smaller maps it takes long to compile for what it saves.
_product = compiled(lambda x, scale, shift: x * scale + shift, least=LEAST)
_sloped = compiled(lambda x, mean, slope, offset: (x - mean) * slope + offset, least=LEAST)
