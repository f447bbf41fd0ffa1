"""Draws labels in proportion to class weights."""

import numpy as np


def apportion_labels(weights, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns int32 labels of shape `(count,)`, in proportion to `weights` as closely as possible.

    Each class's share of `count` is rounded down. The classes with the largest remainders get one
    more label each; if remainders are equal, lower ids come first. `rng` shuffles the labels.

    Args:
        weights: Array of shape `(num_classes,)`, the counts or frequencies of the classes.
        count: Integer, the number of labels.
        rng: `numpy.random.Generator`.

    Raises:
        ValueError: If weights are negative or not finite, or all are 0.

    Example:
    >>> import numpy as np
    >>> labels = apportion_labels([3, 1, 0], 10, np.random.default_rng(0))
    >>> np.bincount(labels, minlength=3).tolist()
    [8, 2, 0]
    """
    weights = np.asarray(weights, dtype=np.float64)
    is_valid = weights.ndim == 1 and np.isfinite(weights).all() and (weights >= 0).all()
    if not (is_valid and weights.any()):
        raise ValueError(
            "`weights` must be of shape (num_classes,), not negative and not all 0. "
            f"Received: weights={weights}"
        )
    shares = weights * (count / weights.sum())
    numbers = np.floor(shares).astype(int)
    left = count - numbers.sum()
    numbers[np.argsort(numbers - shares, kind="stable")[:left]] += 1
    return rng.permutation(np.repeat(np.arange(len(weights), dtype="int32"), numbers))
