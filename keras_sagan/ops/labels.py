"""Checks of class labels, shared by everything that takes them."""

import numpy as np
from keras import KerasTensor, backend, ops


def check_labels(labels, num_classes, rank=1, argument="labels"):
    """Raises unless labels are integer class ids of the given rank and range.

    Rank and dtype are checked always, the range where the values can be read: eagerly, not while
    a graph is traced. An id out of range would otherwise wrap around or be clamped in silence.

    Args:
        labels: Array-like or tensor of integer class ids.
        num_classes: Integer, the number of classes.
        rank: Integer, the expected rank, or `None` for any. Defaults to 1: `(batch,)`.
        argument: String, the name to use in messages. Defaults to `"labels"`.

    Returns:
        The labels as a tensor (a `KerasTensor` stays what it is).

    Raises:
        ValueError: For a dtype that is not an integer, another rank, or an id outside
            `[0, num_classes)`.
    """
    if not isinstance(labels, KerasTensor):
        labels = ops.convert_to_tensor(labels)
    dtype = backend.standardize_dtype(labels.dtype)
    if "int" not in dtype:
        raise ValueError(
            f"`{argument}` must be integer class ids, not probabilities or one-hot vectors. "
            f"Received: {argument} of dtype {dtype} and shape {tuple(labels.shape)}"
        )
    if rank is not None and len(labels.shape) != rank:
        expected = {0: "()", 1: "(batch,)"}.get(rank, f"rank {rank}")
        raise ValueError(
            f"`{argument}` must have shape {expected}: one integer class id per image. "
            f"Received: {argument} of shape {tuple(labels.shape)}"
        )
    values = known_values(labels)
    if values is not None and values.size:
        outside = values[(values < 0) | (values >= num_classes)]
        if outside.size:
            raise ValueError(
                f"`{argument}` must lie in [0, {num_classes}), the classes there are. "
                f"Received: {argument} with {outside.flat[0]}"
            )
    return labels


def apportion_labels(weights, count, rng):
    """Makes labels whose numbers follow class weights as exactly as whole numbers can.

    Each class gets the whole part of its share; what is left goes one by one to the largest
    remainders, the lower class first among equals. The order is shuffled.

    Args:
        weights: Array of shape (num_classes,), not negative and not all 0: counts or frequencies.
        count: Integer, the number of labels.
        rng: `numpy.random.Generator`.

    Returns:
        int32 array of shape (count,).

    Raises:
        ValueError: For weights that are negative, not finite, or all 0.

    Example:

    >>> import numpy as np
    >>> labels = apportion_labels([3, 1, 0], 10, np.random.default_rng(0))
    >>> np.bincount(labels, minlength=3).tolist()
    [8, 2, 0]
    """
    weights = np.asarray(weights, dtype=np.float64)
    if (
        weights.ndim != 1
        or not (np.isfinite(weights).all() and weights.sum() > 0)
        or (weights.min() < 0)
    ):
        raise ValueError(
            "`weights` must be of shape (num_classes,), not negative and not all 0. "
            f"Received: weights={weights}"
        )
    shares = weights * (count / weights.sum())
    numbers = np.floor(shares).astype(int)
    left = count - numbers.sum()
    numbers[np.argsort(numbers - shares, kind="stable")[:left]] += 1
    return rng.permutation(np.repeat(np.arange(len(weights), dtype="int32"), numbers))


def known_values(x):
    """Returns the values of a tensor as a numpy array, or `None` while they are not known."""
    try:
        return np.asarray(ops.convert_to_numpy(x))
    except Exception:  # Each backend has its own error for a tensor that is being traced.
        return None
