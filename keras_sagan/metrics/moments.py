"""Computes means and covariances of streamed feature vectors in float64."""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Sufficient statistics of a set of feature vectors, which can be merged without loss."""

    count: int  # type: ignore[assignment]  # The field hides `tuple.count`.
    """The number of samples."""
    mean: np.ndarray
    """Float64 array of shape (dim,)."""
    scatter: np.ndarray
    """Float64 array of shape (dim, dim), the sum of (x - mean)(x - mean)ᵀ."""


def compute_moments(features: np.ndarray) -> Moments:
    """Computes the float64 moments of a batch of feature vectors in two passes.

    The mean is subtracted before squaring: E[x²] - E[x]² loses all accuracy if the mean is large
    compared with the deviation. `features` must be a finite array of shape (num_samples, dim) that
    isn't empty; otherwise, `ValueError` is raised.

    Example:
    >>> compute_moments([[0.0], [2.0], [4.0]])
    Moments(count=3, mean=array([2.]), scatter=array([[8.]]))
    """
    (features,) = check_features(features=features)
    mean = features.mean(axis=0)
    centered = features - mean
    return Moments(len(features), mean, centered.T @ centered)


def merge_moments(first: Moments | None, second: Moments) -> Moments:
    """Merges the moments of two disjoint sets into the moments of their union.

    count = n₁ + n₂, delta = mean₂ - mean₁, mean = mean₁ + delta · n₂ / count, scatter = scatter₁ +
    scatter₂ + delta deltaᵀ · n₁ n₂ / count. Scatter matrices are never subtracted, so the order and
    sizes of the sets have little effect on rounding errors. For an empty set, `first` is `None`. If
    the sets differ in width, `ValueError` is raised.

    Reference: Chan et al., 1983, "Algorithms for computing the sample variance", equation 1.5.
    """
    if first is None:
        return second
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            "`first` and `second` must have features of the same width. Received: "
            f"first.mean.shape={first.mean.shape}, second.mean.shape={second.mean.shape}"
        )
    count = first.count + second.count
    delta = second.mean - first.mean
    mean = first.mean + delta * (second.count / count)
    scatter = first.scatter + second.scatter
    scatter += np.outer(delta * (first.count * second.count / count), delta)
    return Moments(count, mean, scatter)


def covariance(moments: Moments) -> np.ndarray:
    """Returns the unbiased (ddof = 1) covariance matrix of at least 2 samples."""
    if moments.count < 2:
        raise ValueError(
            "`moments` must be of at least 2 samples for a covariance. "
            f"Received: moments.count={moments.count}"
        )
    return moments.scatter / (moments.count - 1)


def check_features(dtype: type = np.float64, **arrays: np.ndarray) -> list[np.ndarray]:
    """Converts finite arrays of shape (num_samples, dim) to one dtype, or raises an error."""
    result, width = [], None
    for name, value in arrays.items():
        value = np.asarray(value, dtype=dtype)
        if value.ndim != 2 or value.size == 0 or width not in (None, value.shape[1]):
            raise ValueError(
                f"`{name}` must have shape (num_samples, {width or 'dim'}), with at least one of "
                f"each. Received: {name}.shape={value.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(value).all(axis=1))
        if bad.size:
            raise ValueError(
                f"`{name}` must be finite. Received: NaN or infinity in {bad.size} of {len(value)} "
                f"samples, the first at index {bad[0]}"
            )
        width = value.shape[1]
        result.append(value)
    return result
