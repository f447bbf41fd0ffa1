"""The Fréchet Inception Distance of infinitely many images, as a Keras metric."""

import keras

from keras_sagan.checks import check_integer
from keras_sagan.metrics.feature_metric import SampleMetric
from keras_sagan.ops.frechet import compute_moments, covariance, merge_moments
from keras_sagan.ops.frechet_infinity import frechet_distance_infinity


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
