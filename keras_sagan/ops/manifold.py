"""Precision, recall, density and coverage from nearest neighbours, in numpy."""

from typing import NamedTuple

import numpy as np

from keras_sagan.ops.samples import check_features

_ROWS = 1024  # of a distance matrix at a time


class ManifoldScores(NamedTuple):
    """How two sets of samples cover each other.

    Attributes:
        precision: Float, the share of generated samples inside the real manifold.
        recall: Float, the share of real samples inside the generated manifold.
        density: Float, how many real neighbourhoods hold a generated sample, over `nearest_k`.
        coverage: Float, the share of real neighbourhoods that hold a generated sample.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(real, generated, nearest_k=5, progress=None):
    """Computes precision, recall, density and coverage of generated samples.

    The neighbourhood of a sample is the open ball that reaches to its `nearest_k`-th neighbour
    among the samples of its own set; a manifold is the union of its set's neighbourhoods.
    Distances are computed a block of rows at a time: O(N² · dim) time and O(N) memory for N
    samples.

    Args:
        real: Array of shape (num_samples, dim) with finite values.
        generated: Array of shape (num_samples, dim); the number of samples may differ, but the
            scores of sets of different size can't be compared.
        nearest_k: Integer. Defaults to `5`.
        progress: Optional function, called with the numbers of samples done and to do.

    Returns:
        `ManifoldScores`.

    Raises:
        ValueError: If the arrays don't fit together, or a set has no more than `nearest_k`
            samples.

    Example:

    >>> real, generated = [[0.0], [1.0], [3.0]], [[0.5], [9.0], [9.5]]
    >>> manifold_scores(real, generated, nearest_k=1)
    ManifoldScores(precision=0.333..., recall=1.0, density=0.666..., coverage=0.666...)

    Reference:
        Kynkäänniemi et al. 2019, [Improved Precision and Recall
        Metric](https://arxiv.org/abs/1904.06991); Naeem et al. 2020, [Reliable Fidelity and
        Diversity Metrics](https://arxiv.org/abs/2002.09797).
    """
    real, generated = check_features(real=real, generated=generated)
    if not 1 <= nearest_k < min(len(real), len(generated)):
        raise ValueError(
            "`nearest_k` must be at least 1, and less than the number of samples of each set. "
            f"Received: nearest_k={nearest_k}, {len(real)} real and {len(generated)} generated "
            "samples"
        )
    # Near the origin the squares that are subtracted are as small as they can be.
    centre = real.mean(axis=0)
    real, generated = real - centre, generated - centre
    done, total = 0, 2 * len(real) + len(generated)

    def count(rows):
        nonlocal done
        done += rows
        if progress:
            progress(done, total)

    real_radii, generated_radii = (_radii(x, nearest_k, count) for x in (real, generated))
    inside = np.zeros(len(generated), dtype=np.int64)  # real neighbourhoods around each sample
    recalled = covered = 0
    for start, distances in _squared_distances(real, generated):
        is_near = distances < real_radii[start : start + len(distances), None]
        inside += is_near.sum(axis=0)
        covered += np.count_nonzero(is_near.any(axis=1))
        recalled += np.count_nonzero((distances < generated_radii).any(axis=1))
        count(len(distances))
    return ManifoldScores(
        precision=float((inside > 0).mean()),
        recall=float(recalled / len(real)),
        density=float(inside.mean() / nearest_k),
        coverage=float(covered / len(real)),
    )


def _radii(samples, nearest_k, count):
    """Squared distance of each sample to its k-th neighbour in the same set."""
    radii = np.empty(len(samples))
    for start, distances in _squared_distances(samples, samples):
        rows = np.arange(len(distances))
        distances[rows, start + rows] = 0.0  # itself: the nearest, whatever the rounding
        radii[start : start + len(distances)] = np.partition(distances, nearest_k)[:, nearest_k]
        count(len(distances))
    return radii


def _squared_distances(first, second):
    """Yields (first row, squared distances of some rows of `first` to all of `second`)."""
    squares, doubled = (second**2).sum(axis=1), -2.0 * second.T
    for start in range(0, len(first), _ROWS):
        rows = first[start : start + _ROWS]
        distances = rows @ doubled
        distances += squares
        distances += (rows**2).sum(axis=1)[:, None]
        yield start, np.maximum(distances, 0.0, out=distances)
