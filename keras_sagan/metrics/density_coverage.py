"""Density and coverage as a Keras metric."""

import keras

from keras_sagan.metrics.precision_recall import PrecisionRecall


@keras.saving.register_keras_serializable(package="keras_sagan")
class DensityCoverage(PrecisionRecall):
    """How densely generated images lie around real ones, and how many real ones they lie around.

    As precision and recall, but one outlier can't enlarge a manifold much: density counts the
    real neighborhoods around a generated image (and can exceed 1), coverage the real
    neighborhoods that hold a generated image. They equal those of the authors' package `prdc`, with
    neighborhoods that don't include their border; see `PrecisionRecall` for features that repeat.

    Args:
        feature_extractor: As for `FrechetInceptionDistance`.
        value_range: `None`, or the pair `(low, high)` of float images. Defaults to `None`.
        nearest_k: Integer, the neighbor that a neighborhood reaches to. Defaults to `5`.
        name: String, put before the two names in the result. Defaults to `None`.
        batch_size: Integer, how many images the extractor gets at once. Defaults to `64`.

    State:
        The features of both sides. They aren't saved with a model.

    Raises:
        ValueError: As `PrecisionRecall`.

    Example:

    >>> import numpy as np
    >>> metric = DensityCoverage(lambda x: x[:, 0, 0], nearest_k=1)
    >>> metric.update_state(np.uint8([0, 50, 100]).reshape(3, 1, 1, 1), real=True)
    >>> metric.update_state(np.uint8([0, 50, 250]).reshape(3, 1, 1, 1), real=False)
    >>> metric.result()
    {'density': 0.666..., 'coverage': 0.666...}

    Reference:
        Naeem et al. 2020, [Reliable Fidelity and Diversity
        Metrics](https://arxiv.org/abs/2002.09797).
    """

    kind = ("density", "coverage")

    def __init__(self, feature_extractor, value_range=None, nearest_k=5, name=None, batch_size=64):
        super().__init__(feature_extractor, value_range, nearest_k, name, batch_size)
