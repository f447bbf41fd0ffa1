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


def normalized_layers(network, besides):
    """The spectrally normalised layers of a network that is built.

    Args:
        network: A Keras model.
        besides: Another one, whose layers are left out.
    """
    others = {id(layer) for layer in besides._flatten_layers()}
    layers = [x for x in network._flatten_layers() if id(x) not in others]
    return [x for x in layers if x.built and hasattr(x, "_normalize_kernel")]


def normalize_kernels(layers):
    """Normalises the kernels of layers once, for passes that have the same weights.

    Args:
        layers: List of layers, as from `normalized_layers`.

    Returns:
        List of `NormalizedKernel`, for `given_kernels`. No state moves.
    """
    return [layer._normalize_kernel() for layer in layers]


@contextlib.contextmanager
def given_kernels(layers, kernels):
    """Gives layers their normalised kernels for one pass; gradients go through sigma all the same.

    A layer that is called again within the pass computes its kernel by itself, from the
    `vector_u` that the first call left, and so does one inside a function that is traced apart
    and would keep this step's kernel for later ones.

    Args:
        layers: List of layers.
        kernels: What `normalize_kernels` returned for them.
    """
    token = _GIVEN.set((current_program(), dict(zip(map(id, layers), kernels))))
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
