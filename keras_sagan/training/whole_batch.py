"""What JAX and PyTorch have in common: a step sees the whole batch, with no replicas to agree."""

import functools


def count_replicas():
    """The parts of a batch that have a step each."""
    return 1


def traced_once(gan, function, count=1):
    """Returns `function(gan, …)` without its first argument: nothing is traced separately."""
    return functools.partial(function, gan)


def check_compile(strategy, jit_compile, computes_in_float16):
    """Nothing beyond the backend's `ONLY`."""


def check_batch(model, check, parts, gather=lambda sizes: sizes):
    """Raises for a batch that doesn't fit the model, and shows it the first one.

    `parts` has a tuple of images and labels for each device. `gather` makes the list of the sizes
    of all devices from those of this process.
    """
    is_first, error = not check.has_passed, None
    try:
        check(parts)
        sizes = [part[0].shape[0] for part in parts]
    except ValueError as refused:
        sizes, error = [check.REFUSED] * len(parts), refused
    sizes = gather(sizes)  # The other processes wait for it, and learn of an error here.
    if error is not None:
        raise error
    check.check_sizes(sizes, len(parts))
    if is_first:
        model._see_first_batch(parts[0])
