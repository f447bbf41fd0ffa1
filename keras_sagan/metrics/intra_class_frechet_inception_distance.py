"""The Fréchet Inception Distance within classes, as a Keras metric."""

import keras
import numpy as np

from keras_sagan.metrics.features import SampleMetric, check_batch_labels
from keras_sagan.metrics.frechet_inception_distance import frechet_distance_of_samples


@keras.saving.register_keras_serializable(package="keras_sagan")
class IntraClassFrechetInceptionDistance(SampleMetric):
    """Mean over classes of the Fréchet distance between real and generated images of a class.

    It sees what the distance of the whole set hides: a class that is drawn for another, or always
    in the same way. `update_state` needs the `labels` of the images, real and generated. Classes
    have fewer images than a set, so it is larger than the distance of the whole, and values of
    different numbers of images can't be compared. All features are kept.

    Args:
        feature_extractor: As for `FrechetInceptionDistance`.
        value_range: `None`, or the pair `(low, high)` of float images. Defaults to `None`.
        name: String. Defaults to `"intra_fid"`.
        batch_size: Integer, how many images the extractor gets at once. Defaults to `64`.

    State:
        The features and labels of both sides. They aren't saved with a model.

    Raises:
        ValueError: As `FrechetInceptionDistance`; `update_state` for labels that aren't integers
            of shape (batch,); `result` if a class has fewer than 2 images on one side.

    Example:

    >>> import numpy as np
    >>> metric = IntraClassFrechetInceptionDistance(lambda x: x[:, 0, 0], value_range=(-1, 1))
    >>> images = np.array([-1.0, -1.0, 1.0, 1.0]).reshape(4, 1, 1, 1)
    >>> metric.update_state(images, real=True, labels=np.array([3, 3, 8, 8]))
    >>> metric.update_state(images, real=False, labels=np.array([8, 8, 3, 3]))  # exchanged
    >>> metric.result(), metric.per_class()
    (4.0, {3: 4.0, 8: 4.0})

    Reference:
        Miyato & Koyama 2018, [cGANs with Projection
        Discriminator](https://arxiv.org/abs/1802.05637), section 4; Zhang et al. 2019,
        [SAGAN](https://arxiv.org/abs/1805.08318), section 4.
    """

    _direction = "down"
    real_needs = ("features", "labels")
    definition = "mean over classes of the Frechet distance within a class, ddof=1, float64"

    def __init__(self, feature_extractor, value_range=None, name="intra_fid", batch_size=64):
        super().__init__(feature_extractor, value_range, name, batch_size)

    def _merge(self, state, features, labels):
        return super()._merge(state, features, check_batch_labels(labels, len(features)))

    def result(self):
        """Returns the mean over the classes as a Python float; lower is better."""
        return float(np.mean(list(self.per_class().values())))

    def per_class(self):
        """Returns the distance of each class: `{class id: float}`."""
        self._check_counts()
        features = {side: self._features(side) for side in self._state}
        labels = {side: self._labels(side) for side in self._state}
        distances, done, progress = {}, 0, self._progress()
        for class_id in np.union1d(labels["real"], labels["generated"]).tolist():
            parts = {side: features[side][labels[side] == class_id] for side in features}
            if min(map(len, parts.values())) < 2:
                raise ValueError(
                    "`update_state` must have seen at least 2 real and 2 generated images of each "
                    f"class. Received: {len(parts['real'])} real and {len(parts['generated'])} "
                    f"generated images of class {class_id}"
                )
            distances[class_id] = frechet_distance_of_samples(parts["real"], parts["generated"])
            done += len(parts["generated"])
            progress(done, len(labels["generated"]))
        return distances
