"""Computes precision, recall, density and coverage, as a numpy function and Keras metrics."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sagan.checks import check_integer
from keras_sagan.metrics.features import FeatureMetric, check_features

# With fewer images, noise can have a high precision: with GreyClassifierFeatures on Fashion-MNIST,
# the precision of noise is 0.97 for 500 images on each side, 0.84 for 1,000 and 0.05 for 2,000.
ENOUGH_IMAGES = 2000
ROWS = 256  # The number of distance-matrix rows that are in memory at once.


class ManifoldScores(NamedTuple):
    """Scores that describe how well two sets of samples cover each other."""

    precision: float
    """The share of generated samples inside the real manifold."""
    recall: float
    """The share of real samples inside the generated manifold."""
    density: float
    """The mean number of real neighborhoods a generated sample is in, divided by `nearest_k`."""
    coverage: float
    """The share of real neighborhoods that contain a generated sample."""


def manifold_scores(
    real: np.ndarray,
    generated: np.ndarray,
    nearest_k: int = 5,
    progress: Callable | None = None,
) -> ManifoldScores:
    """Computes precision, recall, density and coverage of generated samples.

    The neighborhood of a sample is an open ball. Its radius is the distance from the sample to the
    `nearest_k`-th neighbor in the same set. The manifold of a set is the union of its
    neighborhoods. As in the `prdc` package, the border of the ball is excluded (`<`); the code of
    Kynkäänniemi et al. includes it (`<=`). The results differ only if samples are repeated.
    Distances are computed in float64, in chunks of samples. N samples take O(N² · dim) time and
    O(N) memory.

    Args:
        real, generated: Arrays of shape (num_samples, dim) with finite values. The numbers of
            samples may differ, but scores from sets of different sizes aren't comparable.
        nearest_k: Integer k. The radius of a neighborhood is the distance to the k-th nearest
            neighbor.
        progress: Function that receives the number of processed samples and the total number.

    Raises:
        ValueError: If the shapes don't match, or a set has at most `nearest_k` samples.

    Example:
    >>> real, generated = [[0.0], [1.0], [3.0]], [[0.5], [9.0], [9.5]]
    >>> manifold_scores(real, generated, nearest_k=1)
    ManifoldScores(precision=0.333..., recall=1.0, density=0.666..., coverage=0.666...)

    Reference: [Kynkäänniemi et al., 2019](https://arxiv.org/abs/1904.06991);
    [Naeem et al., 2020](https://arxiv.org/abs/2002.09797).
    """
    real, generated = check_features(real=real, generated=generated)
    if not 1 <= nearest_k < min(len(real), len(generated)):
        raise ValueError(
            "`nearest_k` must be at least 1, and less than the number of samples of each set. "
            f"Received: nearest_k={nearest_k}, {len(real)} real and {len(generated)} generated "
            "samples"
        )
    progress = progress or (lambda done, total: None)
    total = len(real) + len(generated)
    real_radii = np.empty(len(real))
    for start in range(0, len(real), ROWS):
        part = slice(start, start + ROWS)
        real_radii[part] = _radii(real[part], real, nearest_k)
        progress(min(part.stop, len(real)), total)
    inside = np.empty(len(generated))  # The number of real neighborhoods that contain each sample.
    covered, recalled = np.zeros((2, len(real)), dtype=bool)
    for start in range(0, len(generated), ROWS):
        part = slice(start, start + ROWS)
        distances = squared_distances(generated[part], real)
        near = distances < real_radii
        inside[part] = near.sum(axis=1)
        covered |= near.any(axis=0)
        radii = _radii(generated[part], generated, nearest_k)
        recalled |= (distances < radii[:, None]).any(axis=0)
        progress(min(len(real) + part.stop, total), total)
    return ManifoldScores(
        precision=float((inside > 0).mean()),
        recall=float(recalled.mean()),
        density=float(inside.mean() / nearest_k),
        coverage=float(covered.mean()),
    )


def squared_distances(x, y):
    squares = (np.einsum("ij,ij->i", z, z) for z in (x, y))
    distances = np.add.outer(*squares) - 2.0 * (x @ y.T)
    return np.maximum(distances, 0.0, out=distances)


def _radii(part, samples, nearest_k):
    """Returns squared distances to `nearest_k`-th neighbors; neighbor 0 is the sample itself."""
    return np.partition(squared_distances(part, samples), nearest_k, axis=1)[:, nearest_k]


@keras.saving.register_keras_serializable(package="keras_sagan")
class PrecisionRecall(FeatureMetric):
    """Precision and recall: the shares of images that are inside the manifold of the other set.

    Low precision means that images look wrong, and low recall means that some kinds of images are
    missing. The Fréchet distance doesn't distinguish these two failures. Precision and recall
    depend on the number of images, which should be the same for real and generated images. For
    fewer than 2,000 images, neighborhoods are too large, and a warning is shown. The metric keeps
    all features in memory and takes O(num_images² · dim) time. See `manifold_scores` for the
    definition and the references. The package `prdc` computes the same scores from the same
    features.

    Args:
        feature_extractor, value_range, batch_size: As in `FrechetInceptionDistance`.
        nearest_k: Integer k. The radius of a neighborhood is the distance to the k-th nearest
            neighbor. The paper uses 3, and the example of `prdc` uses 5.
        name: A prefix for the two names in the result. If `None`, there is no prefix.

    Raises:
        ValueError: In the same cases as `FrechetInceptionDistance`. `result` also raises it if the
            number of real or generated images is at most `nearest_k`.

    Example:
    >>> metric = PrecisionRecall(lambda x: x[:, 0, 0], nearest_k=1)
    >>> metric.update_state(np.uint8([0, 50, 100]).reshape(3, 1, 1, 1), real=True)
    >>> metric.update_state(np.uint8([0, 50, 250]).reshape(3, 1, 1, 1), real=False)
    >>> metric.result()
    {'precision': 0.666..., 'recall': 1.0}
    """

    _direction = "up"
    default_name = "precision_recall"
    kind: tuple[str, ...] = ("precision", "recall")
    settings = ("nearest_k",)
    formula = "precision and recall, nearest_k={nearest_k}, Euclidean, float64"

    def __init__(
        self,
        feature_extractor: Callable,
        value_range: Sequence[float] | None = None,
        nearest_k: int = 3,
        name: str | None = None,
        batch_size: int = 64,
    ):
        super().__init__(feature_extractor, value_range, name, batch_size)
        self.nearest_k = check_integer("nearest_k", nearest_k, 1)
        self.least = self.nearest_k + 1

    def compare(self, real: Any, generated: Any) -> dict[str, float]:
        """Returns a dictionary of two floats; higher is better."""
        first, second = (x.arrays["features"] for x in (real, generated))
        found = manifold_scores(first, second, self.nearest_k, self._progress())
        prefix = "" if self.name == self.default_name else f"{self.name}_"
        return {prefix + name: getattr(found, name) for name in self.kind}

    def notes(self, real: Any, generated: Any) -> list[str]:
        if min(real.num_images, generated.num_images) >= ENOUGH_IMAGES:
            return []
        return [
            f"{' and '.join(self.kind)} of so few images mean little: neighborhoods then reach so "
            "far that noise, or all images of an untrained generator, may lie in one. Measure at "
            f"least {ENOUGH_IMAGES:,} images of each side, and compare with the scores of noise. "
            f"Received: {real.num_images} real and {generated.num_images} generated images"
        ]


@keras.saving.register_keras_serializable(package="keras_sagan")
class DensityCoverage(PrecisionRecall):
    """Density and coverage of generated images, which are more robust than precision and recall.

    Density and coverage measure the same properties as precision and recall, but a single outlier
    has little effect. Density is the mean number of real neighborhoods that a generated image is
    in, divided by `nearest_k`; it can exceed 1. Coverage is the share of real neighborhoods that
    contain a generated image. The arguments and errors are those of `PrecisionRecall`, except that
    `nearest_k` defaults to 5, as in `prdc`.

    Example:
    >>> metric = DensityCoverage(lambda x: x[:, 0, 0], nearest_k=1)
    >>> metric.update_state(np.uint8([0, 50, 100]).reshape(3, 1, 1, 1), real=True)
    >>> metric.update_state(np.uint8([0, 50, 250]).reshape(3, 1, 1, 1), real=False)
    >>> metric.result()
    {'density': 0.666..., 'coverage': 0.666...}
    """

    default_name = "density_coverage"
    kind = ("density", "coverage")
    formula = PrecisionRecall.formula.replace("precision and recall", "density and coverage")

    def __init__(
        self,
        feature_extractor: Callable,
        value_range: Sequence[float] | None = None,
        nearest_k: int = 5,
        name: str | None = None,
        batch_size: int = 64,
    ):
        super().__init__(feature_extractor, value_range, nearest_k, name, batch_size)
