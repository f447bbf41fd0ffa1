"""Functions for JAX and PyTorch, where a step receives the full batch and has no replicas."""

import functools

from keras.ops import cond  # noqa: F401


def count_replicas():
    """Returns the number of replicas, which is always 1."""
    return 1


def mean_over_replicas(x):
    """Returns `x`, which is already the mean over the full batch."""
    return x


def traced_once(gan, function, count=1):
    """Binds `gan` to `function(gan, …)`, without tracing the function separately."""
    return functools.partial(function, gan)


def check_compile(strategy, jit_compile, computes_in_float16):
    """Checks nothing: `ONLY` already restricts the arguments."""
