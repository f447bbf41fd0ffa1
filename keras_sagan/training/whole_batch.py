"""What JAX and PyTorch have in common: a step sees the whole batch, with no replicas to agree."""

import functools


def count_replicas():
    """The parts of a batch that have a step each."""
    return 1


def traced_once(gan, function, count=1):
    """Returns `function(gan, …)` without its first argument: there is nothing to trace apart."""
    return functools.partial(function, gan)


def share_overflow(gradients):
    """Returns the gradients, which are those of the whole batch."""
    return gradients


def check_compile(strategy, jit_compile, computes_in_float16):
    """Nothing beyond the backend's `ONLY`."""


def check_batch(model, check, batch):
    """Raises for a batch that doesn't fit the model, and shows it the first one.

    Args:
        model: A compiled `SAGAN`.
        check: `BatchCheck`.
        batch: Images, or a tuple of images and labels.
    """
    parts = batch if isinstance(batch, (tuple, list)) else (batch,)
    is_first = not check.has_passed
    check([parts])
    check.check_sizes([parts[0].shape[0]], 1)
    if is_first:
        model._see_first_batch(parts)
