"""What JAX and PyTorch have in common: a step sees the whole batch, with no replicas to agree."""

import functools

from keras.ops import cond  # noqa: F401


def count_replicas():
    """The parts of a batch that have a step each."""
    return 1


def mean_over_replicas(x):
    """Nothing: it is the mean over the whole batch already."""
    return x


def traced_once(gan, function, count=1):
    """Returns `function(gan, …)` without its first argument: nothing is traced separately."""
    return functools.partial(function, gan)


def check_compile(strategy, jit_compile, computes_in_float16):
    """Nothing beyond the backend's `ONLY`."""
