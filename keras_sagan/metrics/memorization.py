"""Functions and a metric that detect copies of training images."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sagan.metrics.features import FeatureMetric, check_features, compute_moments
from keras_sagan.metrics.precision_recall import ROWS, squared_distances

# The settings of dgm-eval and of its k-means.
_DIMENSIONS, _CELLS, _LEAST_IN_CELL, _RESTARTS, _ITERATIONS = 64, 3, 21, 10, 300
_FEW = 100  # With fewer images, a warning says that the scores are unreliable.
_NEAREST_SHARE = 0.001  # Use a quantile, because near-duplicates could determine the minimum.


def memorization_scores(
    training: np.ndarray,
    generated: np.ndarray,
    held_out: np.ndarray | None = None,
    progress: Callable | None = None,
) -> dict[str, float]:
    """Measures how close generated samples are to the training samples.

    `authpct` is the percentage of authentic samples. A generated sample is authentic if it is
    farther from its nearest training sample than that training sample is from its own nearest
    neighbor in the training set. With `held_out`, there are two more scores. `memorized` is the
    share of generated samples that are at least as close to a training sample as the closest 0.1 %
    of the held-out samples; it detects individual copies. `ct_score` is computed by the function of
    the same name. It is negative if the generated samples as a group are closer to the training
    samples than the held-out samples are.

    Args:
        training, generated, held_out: Arrays of shape (num_samples, dim) with finite values. At
            least 2 training samples are needed. The held-out samples are real samples that aren't
            in the training set.
        progress: Function that receives the number of processed samples and the total number.

    Returns:
        Dictionary of floats: `authpct` and, with `held_out`, `memorized` and `ct_score`.

    Raises:
        ValueError: If the shapes don't match, a value isn't finite, or there is only one training
            sample.

    Example:
    >>> training, generated = [[0.0], [1.0], [5.0]], [[0.0], [8.0], [10.0], [2.5]]
    >>> memorization_scores(training, generated)  # 8 is nearer to 5 than 1 is
    {'authpct': 50.0}

    Reference: [Alaa et al., 2022](https://arxiv.org/abs/2102.08921);
    [Stein et al., 2023](https://arxiv.org/abs/2306.04675), whose package dgm-eval computes the same
    `authpct`.
    """
    training, generated = check_features(training=training, generated=generated)
    if len(training) < 2:
        raise ValueError("`training` must have at least 2 samples. Received: 1 sample")
    distances = np.empty(len(generated))
    is_authentic = np.empty(len(generated), dtype=bool)
    for start in range(0, len(generated), ROWS):
        part = slice(start, start + ROWS)
        distances[part], indices = nearest(generated[part], training)
        among_training, _ = nearest(training[indices], training, exclude=indices)
        is_authentic[part] = among_training < distances[part]
        if progress:
            progress(min(part.stop, len(generated)), len(generated))
    scores = {"authpct": 100.0 * float(is_authentic.mean())}
    if held_out is not None:
        training, held_out = check_features(training=training, held_out=held_out)
        limit = np.quantile(nearest(held_out, training)[0], _NEAREST_SHARE, method="higher")
        scores["memorized"] = float((distances <= limit).mean())
        scores["ct_score"] = ct_score(training, held_out, generated)
    return scores


def ct_score(training: np.ndarray, held_out: np.ndarray, generated: np.ndarray) -> float:
    """Tests whether generated samples are closer to the training set than held-out samples are.

    The score is 0 on average if generated and held-out samples are equally close, and negative if
    the generated samples are closer. As in dgm-eval, features are reduced to 64 principal
    components, and k-means divides the space into 3 cells. The result is the mean z-score of the
    Mann-Whitney U tests within the cells, weighted by the number of held-out samples. Cells with
    fewer than 21 generated samples are skipped. Unlike in dgm-eval, the components are exact and
    k-means starts from a fixed seed, so the score is reproducible.

    Args:
        training, held_out, generated: Arrays of shape (num_samples, dim) with finite values.

    Returns:
        The score, or NaN if all cells are skipped.

    Raises:
        ValueError: If the shapes don't match, or a value isn't finite.

    Example:
    >>> training, held_out = np.arange(0.0, 30.0)[:, None], np.arange(0.25, 30.0)[:, None]
    >>> score = ct_score(training, held_out, generated=np.repeat(training, 3, axis=0))
    >>> round(score, 3)  # all samples are copies
    -4.677

    Reference: [Meehan et al., 2020](https://arxiv.org/abs/2004.05675).
    """
    samples = check_features(training=training, held_out=held_out, generated=generated)
    if samples[0].shape[1] > _DIMENSIONS:
        _, directions = np.linalg.eigh(compute_moments(samples[0]).scatter)
        samples = [x @ directions[:, -_DIMENSIONS:] for x in samples]
    centers = _k_means(samples[0])
    cells = [squared_distances(x, centers).argmin(axis=1) for x in samples]
    total = weight = 0.0
    for cell in range(len(centers)):
        inside, others, made = (x[which == cell] for x, which in zip(samples, cells))
        if len(made) >= _LEAST_IN_CELL and len(others) and len(inside):
            total += len(others) * _z_score(nearest(made, inside)[0], nearest(others, inside)[0])
            weight += len(others)
    return total / weight if weight else float("nan")


def nearest(
    queries: np.ndarray, points: np.ndarray, exclude: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance from each query to the nearest point, and the index of this point.

    For each query, `exclude` contains the index of a point that doesn't count as a neighbor.
    """
    queries, points = (np.asarray(x, dtype=np.float64) for x in (queries, points))
    indices = np.empty(len(queries), dtype=int)
    for start in range(0, len(queries), ROWS):
        part = slice(start, start + ROWS)
        squares = squared_distances(queries[part], points)
        if exclude is not None:
            np.put_along_axis(squares, exclude[part, None], np.inf, axis=1)
        indices[part] = squares.argmin(axis=1)
    # Compute distances by subtraction, because the distance to a copy must be exactly 0.
    return np.linalg.norm(queries - points[indices], axis=1), indices


def _k_means(samples):
    """Returns the best k-means centers from several random initializations."""
    rng, found = np.random.default_rng(0), []
    for _ in range(_RESTARTS):
        centers = samples[rng.choice(len(samples), min(_CELLS, len(samples)), replace=False)]
        cells = None
        for _ in range(_ITERATIONS):
            squares = squared_distances(samples, centers)
            previous, cells = cells, squares.argmin(axis=1)
            if np.array_equal(cells, previous):
                break
            members = (samples[cells == i] for i in range(len(centers)))
            centers = np.stack([x.mean(axis=0) if len(x) else y for x, y in zip(members, centers)])
        found.append((squares.min(axis=1).sum(), centers))
    return min(found, key=lambda x: x[0])[1]


def _z_score(first, second):
    """Returns the z-score of the Mann-Whitney U statistic of `first`, corrected for continuity."""
    ordered, product = np.sort(second), len(first) * len(second)
    u = sum(np.searchsorted(ordered, first, side).sum() for side in ("left", "right")) / 2
    deviation = np.sqrt(product * (len(first) + len(second) + 1) / 12)
    return float((u - (product / 2 - 0.5)) / deviation)


@keras.saving.register_keras_serializable(package="keras_sagan")
class Memorization(FeatureMetric):
    """Scores that show whether a generator copies its training images.

    The real images must be the training images. By default, the only score is `authpct`. The
    argument `held_out` of `evaluate_generator` adds two scores. The held-out images must be real
    images that aren't in the training set. `memorized` is the share of generated images that are at
    least as close to a training image as the closest 0.1 % (at least two) of the held-out images.
    `ct_score` is a z-score. It is negative if the generated images are closer to the training
    images than the held-out images are. See `memorization_scores` and `ct_score` for the
    definitions and references. The arguments and errors are those of `FrechetInceptionDistance`.

    Example:
    >>> metric = Memorization(lambda x: x[:, 0, 0])
    >>> metric.update_state(np.uint8([0, 50, 250]).reshape(3, 1, 1, 1), real=True)
    >>> metric.update_state(np.uint8([0, 140]).reshape(2, 1, 1, 1), real=False)
    >>> metric.result()
    {'authpct': 50.0}
    """

    _direction = "up"
    default_name = "memorization"
    formula = (
        "authpct; with held-out images, share of images as near to the real ones as the nearest "
        f"{_NEAREST_SHARE:.1%} of them, and C_T in {_CELLS} k-means cells of {_DIMENSIONS} "
        "principal components; Euclidean, float64"
    )

    def compare(self, real: Any, generated: Any) -> dict[str, float]:
        """Returns a dictionary of floats; higher is better, except for `memorized`."""
        first, second = (x.arrays["features"] for x in (real, generated))
        others = None if self.held_out is None else self.held_out.arrays["features"]
        scores = memorization_scores(first, second, others, self._progress())
        prefix = "" if self.name == self.default_name else f"{self.name}_"
        return {prefix + name: value for name, value in scores.items()}

    def notes(self, real: Any, generated: Any) -> list[str]:
        notes, count, has_held_out = [], generated.num_images, self.held_out is not None
        if min(real.num_images or count, count) < _FEW:
            notes.append(
                f"authpct{' and memorized' * has_held_out} can't be trusted below {_FEW} images. "
                f"Received: {real.num_images} real and {count} generated images"
            )
        if not has_held_out:
            notes.append("memorized and ct_score need held-out images (`held_out`)")
        if has_held_out and count < _CELLS * _LEAST_IN_CELL:
            notes.append(
                f"ct_score {'is' if count < _LEAST_IN_CELL else 'may be'} NaN: a cell needs "
                f"{_LEAST_IN_CELL} generated images. Received: {count} in {_CELLS} cells"
            )
        return notes
