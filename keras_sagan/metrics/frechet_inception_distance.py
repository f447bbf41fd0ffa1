"""The Fréchet Inception Distance as a Keras metric."""

import keras

from keras_sagan.metrics.feature_metric import FeatureMetric
from keras_sagan.ops.frechet import compute_moments, covariance, frechet_distance, merge_moments


@keras.saving.register_keras_serializable(package="keras_sagan")
class FrechetInceptionDistance(FeatureMetric):
    """Fréchet distance between the features of real and of generated images.

    Images of both kinds stream through `update_state`; only the float64 mean and covariance of
    their features are kept, on the host. A metric over a data set and not over a batch, it lives
    in a callback or a script: it can't run inside a compiled train step. Its value depends on
    the extractor, on the number of images and on which real ones were taken, so print `protocol`
    beside it. With the same images it equals TF-GAN's to 1e-5 relative, but for TF-GAN's
    threshold, which takes no root of values below 1e-10.

    Args:
        feature_extractor: What turns images into features: a `TFGANInception`, a
            `GreyClassifierFeatures`, any Keras model, or any callable. It receives float32 in
            [-1, 1] of shape (batch, height, width, channels) and returns one tensor of shape
            (batch, ...), which is flattened to (batch, dim).
        value_range: Pair of floats `(low, high)`, the values that black and white have in *float*
            images, such as `(-1, 1)` or `(0, 255)`; there is no guessing. uint8 images are
            always in [0, 255]. Defaults to `None`: only uint8 images are accepted.
        name: String, the name of the metric. Defaults to `"fid"`.
        batch_size: Integer, how many images the extractor gets at once. Defaults to `64`.

    State:
        The moments of the real and of the generated features. They aren't saved with a model.

    Raises:
        ValueError: If an argument is invalid. `update_state` raises for images of the wrong rank,
            dtype or range, and for features that aren't finite or change their width; `result`
            if there are fewer than 2 images of either kind.

    Example:

    >>> import numpy as np
    >>> fid = FrechetInceptionDistance(lambda x: x[:, 0, 0], value_range=(-1, 1))
    >>> fid.update_state(np.array([-1.0, 1.0]).reshape(2, 1, 1, 1), real=True)
    >>> fid.update_state(np.array([-0.5, 0.5]).reshape(2, 1, 1, 1), real=False)
    >>> round(fid.result(), 6)  # (sqrt(2) - sqrt(1 / 2)) ** 2
    0.5

    Reference:
        Heusel et al. 2017,
        [GANs Trained by a Two Time-Scale Update Rule](https://arxiv.org/abs/1706.08500), eq. 6.
    """

    _direction = "down"  # read by `ModelCheckpoint(mode="auto")` and its like
    real_needs = ()
    definition = "Frechet distance of features, covariances with ddof=1, float64"

    def __init__(self, feature_extractor, value_range=None, name="fid", batch_size=64):
        super().__init__(feature_extractor, value_range, name, batch_size)

    def set_statistics(self, statistics, real):
        self._set_moments(statistics, real)

    def _merge(self, state, features, labels):
        return merge_moments(state, compute_moments(features))

    def result(self):
        """Returns the distance as a Python float, at least 0; lower is better."""
        self._check_counts()
        real, generated = self._state["real"], self._state["generated"]
        return frechet_distance(real.mean, covariance(real), generated.mean, covariance(generated))
