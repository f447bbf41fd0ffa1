"""Extrapolates the FID to infinitely many images, as a numpy function and a Keras metric."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_sagan.checks import check_integer
from keras_sagan.metrics.features import FeatureMetric, check_features, compute_moments, covariance
from keras_sagan.metrics.frechet_inception_distance import frechet_distance


def frechet_distance_infinity(
    real_mean: np.ndarray,
    real_cov: np.ndarray,
    generated: np.ndarray,
    num_points: int = 15,
    seed: int = 0,
    progress: Callable | None = None,
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Extrapolates the Fréchet distance to infinitely many generated samples.

    The distance measured on N samples is too large by approximately c / N, where c depends on the
    model, so the ranking of models can change with N. This function computes the distance for
    `num_points` random subsets, from a tenth of the samples to all samples, and fits distance =
    intercept + slope / N by least squares. The bias from the number of real samples remains.

    Args:
        real_mean, real_cov: Arrays of shape (dim,) and (dim, dim).
        generated: Array of shape (num_samples, dim) with finite values and at least 20 samples. For
            a good fit, the smallest subset should have more than dim samples.
        num_points: The number of subsets, at least 2.
        seed: The seed for choosing the subsets.
        progress: Function that receives the number of processed samples and the total number.

    Returns:
        `(intercept, slope, counts, distances)`: two floats, and the arrays that the line was fitted
        to. The intercept can be negative, like any unbiased estimate of a value near 0.

    Raises:
        ValueError: If there are fewer than 20 samples, or a value isn't finite.

    Reference: [Chong & Forsyth, 2020](https://arxiv.org/abs/1911.07023), section 3.
    """
    (generated,) = check_features(generated=generated)
    if len(generated) < 20:
        raise ValueError(
            "`generated` must have at least 20 samples, so that a tenth of them has 2. "
            f"Received: {len(generated)} samples"
        )
    rng = np.random.default_rng(seed)
    counts = np.linspace(len(generated) // 10, len(generated), num_points).astype(int)
    distances = []
    for done, count in zip(counts.cumsum(), counts):
        moments = compute_moments(generated[rng.choice(len(generated), count, replace=False)])
        distances.append(frechet_distance(real_mean, real_cov, moments.mean, covariance(moments)))
        if progress:
            progress(int(done), int(counts.sum()))
    slope, intercept = np.polyfit(1.0 / counts, distances, 1)
    return float(intercept), float(slope), counts, np.array(distances)


@keras.saving.register_keras_serializable(package="keras_sagan")
class FrechetInceptionDistanceInfinity(FeatureMetric):
    """Fréchet distance extrapolated to infinitely many generated images.

    See `frechet_distance_infinity` for the method and its reference. The metric keeps the moments
    of the real images and all features of the generated images.

    Args:
        feature_extractor, value_range, name, batch_size: As in `FrechetInceptionDistance`.
        num_points: The number of subsets, 15 in the paper.
        seed: The seed for choosing the subsets.

    Raises:
        ValueError: In the same cases as `FrechetInceptionDistance`. `result` also raises it if
            there are fewer than 20 real or 20 generated images.
    """

    _direction = "down"
    default_name = "fid_infinity"
    needs = {"real": ("moments",), "generated": ("features",)}
    least = 20
    settings = ("num_points", "seed")
    formula = (
        "Frechet distance, line in 1/N through {num_points} subsets of seed {seed} "
        "from a tenth of the generated images to all, at 1/N = 0"
    )

    def __init__(
        self,
        feature_extractor: Callable,
        value_range: Sequence[float] | None = None,
        num_points: int = 15,
        seed: int = 0,
        name: str | None = "fid_infinity",
        batch_size: int = 64,
    ):
        super().__init__(feature_extractor, value_range, name, batch_size)
        self.num_points = check_integer("num_points", num_points, 2)
        self.seed = check_integer("seed", seed, 0)

    def compare(self, real: Any, generated: Any) -> float:
        """Returns the distance, which may be negative; lower is better."""
        return frechet_distance_infinity(
            real.moments.mean,
            covariance(real.moments),
            generated.arrays["features"],
            self.num_points,
            self.seed,
            self._progress(),
        )[0]
