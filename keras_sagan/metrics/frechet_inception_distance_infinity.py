"""The Fréchet Inception Distance of infinitely many images: its mathematics and the metric."""

import keras
import numpy as np

from keras_sagan.checks import check_integer
from keras_sagan.metrics.features import SampleMetric, check_features
from keras_sagan.metrics.frechet_inception_distance import (
    compute_moments,
    covariance,
    frechet_distance,
    merge_moments,
)


def frechet_distance_infinity(real_mean, real_cov, generated, num_points=15, seed=0, progress=None):
    """Extrapolates the Fréchet distance to infinitely many generated samples.

    The distance of N samples is too large by about c / N, with a c that depends on the model: so
    models can change places when N changes. It is computed for `num_points` random subsets, of a
    tenth of the samples up to all, and the line distance = intercept + slope / N is fitted by
    least squares. What the real side's own number adds stays in it.

    Args:
        real_mean: Array of shape (dim,).
        real_cov: Array of shape (dim, dim).
        generated: Array of shape (num_samples, dim), at least 20 samples. For the line to fit, the
            smallest subset should have more samples than dimensions.
        num_points: Integer, at least 2. Defaults to `15`.
        seed: Integer, the seed of the subsets. Defaults to `0`.
        progress: Optional function, called with the numbers of samples done and to do.

    Returns:
        `(intercept, slope, counts, distances)`: two Python floats, and the arrays that the line
        was fitted to. The intercept is below 0 at times, as any unbiased estimate near 0.

    Raises:
        ValueError: For fewer than 20 samples, or values that aren't finite.

    Reference:
        Chong & Forsyth 2020, [Effectively Unbiased FID and Inception
        Score](https://arxiv.org/abs/1911.07023), section 3.
    """
    (generated,) = check_features(generated=generated)
    if len(generated) < 20:
        raise ValueError(
            "`generated` must have at least 20 samples, 2 in a tenth of them. "
            f"Received: {len(generated)} samples"
        )
    rng = np.random.default_rng(seed)
    counts = np.linspace(len(generated) // 10, len(generated), num_points).astype(int)
    distances, done = [], 0
    for count in counts:
        subset = generated[rng.choice(len(generated), count, replace=False)]
        moments = compute_moments(subset)
        distances.append(frechet_distance(real_mean, real_cov, moments.mean, covariance(moments)))
        done += int(count)
        if progress:
            progress(done, int(counts.sum()))
    slope, intercept = np.polyfit(1.0 / counts, distances, 1)
    return float(intercept), float(slope), counts, np.array(distances)


@keras.saving.register_keras_serializable(package="keras_sagan")
class FrechetInceptionDistanceInfinity(SampleMetric):
    """Fréchet distance extrapolated to infinitely many generated images.

    The distance of N images is biased upward by about c / N, where c depends on the model. Here
    it is computed on random subsets of different size, and the line through those values is
    followed to 1 / N = 0. Of real images the moments are kept, of generated ones all features.

    Args:
        feature_extractor: As for `FrechetInceptionDistance`.
        value_range: `None`, or the pair `(low, high)` of float images. Defaults to `None`.
        num_points: Integer, the number of subsets. Defaults to `15`, as in the paper.
        seed: Integer, the seed of the subsets. Defaults to `0`.
        name: String. Defaults to `"fid_infinity"`.
        batch_size: Integer, how many images the extractor gets at once. Defaults to `64`.

    State:
        The moments of the real and the features of the generated images. They aren't saved with
        a model.

    Raises:
        ValueError: As `FrechetInceptionDistance`; `result` for fewer than 20 images of either
            kind.

    Example:

    ```python
    metric = FrechetInceptionDistanceInfinity(GreyClassifierFeatures())
    metric.update_state(test_images, real=True)
    metric.update_state(model.generate(10_000), real=False)
    metric.result()
    ```

    Reference:
        Chong & Forsyth 2020, [Effectively Unbiased FID and Inception
        Score](https://arxiv.org/abs/1911.07023).
    """

    _direction = "down"
    least = 20
    real_needs = ()

    def __init__(
        self,
        feature_extractor,
        value_range=None,
        num_points=15,
        seed=0,
        name="fid_infinity",
        batch_size=64,
    ):
        super().__init__(feature_extractor, value_range, name, batch_size)
        self.num_points = check_integer("num_points", num_points, 2)
        self.seed = check_integer("seed", seed, 0)

    @property
    def definition(self):
        return (
            f"Frechet distance, line in 1/N through {self.num_points} subsets of seed {self.seed} "
            "from a tenth of the generated images to all, at 1/N = 0"
        )

    def set_statistics(self, statistics, real):
        if real:
            self._set_moments(statistics, real)
        else:
            super().set_statistics(statistics, real)

    def update_features(self, features, real, labels=None):
        super().update_features(features, real, (real, labels))

    def _merge(self, state, features, labels):
        real, labels = labels
        if real:
            return merge_moments(state, compute_moments(features))
        return super()._merge(state, features, labels)

    def result(self):
        """Returns the distance as a Python float, possibly below 0; lower is better."""
        self._check_counts()
        real = self._state["real"]
        generated = self._features("generated")
        return frechet_distance_infinity(
            real.mean, covariance(real), generated, self.num_points, self.seed, self._progress()
        )[0]

    def get_config(self):
        return {**super().get_config(), "num_points": self.num_points, "seed": self.seed}
