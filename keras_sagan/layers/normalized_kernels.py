"""Normalised kernels that several passes through a network share."""

import collections
import contextlib
import contextvars

from keras import ops

from keras_sagan.ops.compiled import current_program
from keras_sagan.ops.gradients import with_gradient

# The weight over `divisor`, which is sigma where it `divides` and 1 elsewhere; u and v are the
# singular vectors to which sigma belongs.
NormalizedKernel = collections.namedtuple("NormalizedKernel", "kernel divisor divides u v")
_GIVEN = contextvars.ContextVar("given_kernels", default=(None, {}))


def normalize_kernels(network):
    """Normalises the kernels of a network once, for passes that have the same weights.

    Args:
        network: A Keras model that is built.

    Returns:
        List of `NormalizedKernel`, for `given_kernels`. No state moves.
    """
    return [layer._normalize() for layer in _normalized_layers(network)]


@contextlib.contextmanager
def given_kernels(network, kernels):
    """Gives a network its normalised kernels for one pass; gradients go through sigma all the same.

    A layer that is called again within the pass computes its kernel by itself, from the
    `vector_u` that the first call left, and so does one inside a function that is traced apart
    and would keep this step's kernel for later ones.

    Args:
        network: The Keras model.
        kernels: What `normalize_kernels` returned for it.
    """
    layers = map(id, _normalized_layers(network))
    token = _GIVEN.set((current_program(), dict(zip(layers, kernels))))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def take_given(layer):
    """Returns the `NormalizedKernel` that a layer is given for this call, or `None`."""
    program, kernels = _GIVEN.get()
    return kernels.pop(id(layer), None) if kernels and program is current_program() else None


def as_function_of(weight, normalized):
    """Returns the normalised kernel as if it had been computed of a weight just now."""

    def gradient(inputs, upstream):
        upstream = ops.convert_to_tensor(upstream)  # That of a table is sparse.
        inverse = 1.0 / normalized.divisor
        slope = ops.sum(upstream * inputs[0]) * (-inverse / normalized.divisor)
        slope = ops.where(normalized.divides, slope, ops.zeros_like(slope))
        of_sigma = ops.outer(normalized.v, slope * normalized.u)
        return upstream * inverse + ops.reshape(of_sigma, inputs[0].shape)

    return with_gradient(lambda weight: normalized.kernel, gradient)(weight)


def _normalized_layers(network):
    layers = network._flatten_layers()
    return [x for x in layers if x.built and hasattr(x, "normalized_weight")]
