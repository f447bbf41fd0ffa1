"""Computes the Monge Inception Distance, as a float32 numpy function and a Keras metric."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_sagan.checks import check_integer
from keras_sagan.metrics.features import FeatureMetric, check_features

_ROWS = 256  # The largest number of rows or columns in one matrix product.


def monge_distance(
    real: np.ndarray,
    generated: np.ndarray,
    directions: np.ndarray,
    progress: Callable | None = None,
) -> float:
    """Returns the sliced squared 2-Wasserstein distance between two sets, times 3 · dim.

    Along a direction u, the optimal transport plan maps the i-th smallest value of uᵀx to the i-th
    smallest value of uᵀy. The distance is the mean of (uᵀx - uᵀy)² over all directions and sorted
    samples, times 3 · dim. Unlike the Fréchet distance, it needs no covariance. The running time is
    proportional to `num_samples * num_directions * dim`. Projections are computed in float32, as in
    torch-fidelity, after the mean of all samples is subtracted from both sets.

    Args:
        real, generated: Arrays of shape (num_samples, dim) with finite values and the same number
            of samples.
        directions: Array of shape (num_directions, dim); each row is scaled to unit length.
        progress: Function that receives the number of processed directions and the total number.

    Raises:
        ValueError: If the shapes don't match, a value isn't finite, or a direction is zero.

    Example:
    >>> real, generated = [[0.0], [2.0]], [[3.0], [2.0]]
    >>> monge_distance(real, generated, directions=[[1.0]])  # 3 * ((2 - 0)² + (3 - 2)²) / 2
    7.5

    Reference: [Berthet et al., 2026](https://arxiv.org/abs/2605.06797).
    """
    real, generated, directions = check_features(
        np.float32, real=real, generated=generated, directions=directions
    )
    if len(real) != len(generated):
        raise ValueError(
            "`real` and `generated` must have the same number of samples. "
            f"Received: {len(real)} real and {len(generated)} generated samples"
        )
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    if not norms.all():
        row = int(np.argmin(norms))
        raise ValueError(f"`directions` must have no row of zeros. Received: zeros in row {row}")
    directions = directions / norms
    # Subtracting the center reduces rounding errors, and doesn't change the distance.
    center = (real.mean(axis=0) + generated.mean(axis=0)) / 2
    total = 0.0
    for start in range(0, len(directions), _ROWS):
        part = directions[start : start + _ROWS]
        first, second = (_sorted_projections(part, x, center) for x in (real, generated))
        total += np.square(first - second).sum(dtype=np.float64)
        if progress:
            progress(start + len(part), len(directions))
    return float(3.0 * real.shape[1] * total / (len(directions) * len(real)))


def _sorted_projections(directions, samples, center):
    parts = (samples[start : start + _ROWS] - center for start in range(0, len(samples), _ROWS))
    return np.sort(np.concatenate([directions @ part.T for part in parts], axis=1), axis=1)


@keras.saving.register_keras_serializable(package="keras_sagan")
class MongeInceptionDistance(FeatureMetric):
    """Monge Inception Distance (MIND): a sliced Wasserstein distance between features.

    It needs fewer images than FID: in the paper, MIND with 5,000 images ranks models in the same
    order as FID with 50,000 images. It equals torch-fidelity's MIND for the same directions. The
    metric keeps all features in memory. If the numbers of real and generated images differ, a
    random subset of the larger set is used. See `monge_distance` for the formula and the reference.

    Args:
        feature_extractor, value_range, name, batch_size: As in `FrechetInceptionDistance`, which
            raises the same errors.
        num_projections: The number of random directions. The paper recommends 100 to 1,000. With
            100 directions, the random error is up to 14 %; scores with the same seed use the same
            directions. The default of torch-fidelity, 1,000 directions, has an error of up to 4.5 %
            and takes 10 times as long.
        seed: The seed for the directions and the subset.

    Example:
    >>> mind = MongeInceptionDistance(lambda x: x[:, 0, 0], value_range=(0, 1))
    >>> mind.update_state(np.array([0.0, 1.0]).reshape(2, 1, 1, 1), real=True)
    >>> mind.update_state(np.array([0.5, 0.5]).reshape(2, 1, 1, 1), real=False)
    >>> mind.result()  # 3 * 1², because features are in [-1, 1]
    3.0
    """

    _direction = "down"
    default_name = "mind"
    settings = ("num_projections", "seed")
    formula = "Monge distance, {num_projections} directions of seed {seed}, float32"

    def __init__(
        self,
        feature_extractor: Callable,
        value_range: Sequence[float] | None = None,
        num_projections: int = 100,
        seed: int = 0,
        name: str | None = None,
        batch_size: int = 64,
    ):
        super().__init__(feature_extractor, value_range, name, batch_size)
        self.num_projections = check_integer("num_projections", num_projections, 1)
        self.seed = check_integer("seed", seed, 0)

    def compare(self, real: Any, generated: Any) -> float:
        """Returns the distance, which is at least 0; lower is better."""
        rng = np.random.default_rng(self.seed)
        first, second = (x.arrays["features"] for x in (real, generated))
        directions = rng.standard_normal((self.num_projections, first.shape[1]))
        count = min(len(first), len(second))
        first, second = (
            x if len(x) == count else x[rng.choice(len(x), count, replace=False)]
            for x in (first, second)
        )
        return monge_distance(first, second, directions, self._progress())
