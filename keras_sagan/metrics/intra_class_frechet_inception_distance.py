"""Computes the Fréchet Inception Distance within classes, as a Keras metric."""

from typing import Any

import keras
import numpy as np

from keras_sagan.metrics.features import SIDES, FeatureMetric
from keras_sagan.metrics.frechet_inception_distance import frechet_distance_of_samples


@keras.saving.register_keras_serializable(package="keras_sagan")
class IntraClassFrechetInceptionDistance(FeatureMetric):
    """Fréchet distance between real and generated images of each class, averaged over classes.

    It reveals classes that look like other classes, and classes whose images all look the same. The
    FID of all images hides these failures. `update_state` needs the `labels` of real and generated
    images. A class contains fewer images than the whole dataset, so values are higher than the FID.
    Values for different numbers of images aren't comparable. The metric keeps all features and
    labels in memory. The arguments are those of `FrechetInceptionDistance`.

    Raises:
        ValueError: In the same cases as `FrechetInceptionDistance`. `update_state` also raises it
            if labels aren't integers of shape (batch,). `result` also raises it if a class has
            fewer than 2 real or 2 generated images.

    Example:
    >>> metric = IntraClassFrechetInceptionDistance(lambda x: x[:, 0, 0], value_range=(-1, 1))
    >>> images = np.array([-1.0, -1.0, 1.0, 1.0]).reshape(4, 1, 1, 1)
    >>> metric.update_state(images, real=True, labels=np.array([3, 3, 8, 8]))
    >>> metric.update_state(images, real=False, labels=np.array([8, 8, 3, 3]))  # exchanged
    >>> metric.result(), metric.per_class()
    (4.0, {3: 4.0, 8: 4.0})

    Reference: [Miyato & Koyama, 2018](https://arxiv.org/abs/1802.05637), section 4;
    [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), section 4.
    """

    _direction = "down"
    default_name = "intra_fid"
    needs = dict.fromkeys(SIDES, ("features", "labels"))
    formula = "mean over classes of the Frechet distance within a class, ddof=1, float64"

    def compare(self, real: Any, generated: Any) -> float:
        """Returns the mean over the classes; lower is better."""
        return float(np.mean(list(self.per_class(real, generated).values())))

    def per_class(self, real: Any = None, generated: Any = None) -> dict[int, float]:
        """Returns `{class id: distance}` for all classes; the arguments are those of `values`."""
        sets = [(real or self._sets["real"]).arrays, (generated or self._sets["generated"]).arrays]
        distances, done, progress = {}, 0, self._progress()
        for class_id in np.unique(np.concatenate([x["labels"] for x in sets])).tolist():
            first, second = (x["features"][x["labels"] == class_id] for x in sets)
            if min(len(first), len(second)) < 2:
                raise ValueError(
                    "`update_state` must have seen at least 2 real and 2 generated images of each "
                    f"class. Received: {len(first)} real and {len(second)} generated images of "
                    f"class {class_id}"
                )
            distances[class_id] = frechet_distance_of_samples(first, second)
            done += len(second)
            progress(done, len(sets[1]["labels"]))
        return distances
