"""What the metrics over features have in common: one shape, one way in."""

import keras
import numpy as np

from keras_sagan.checks import check_boolean, check_string
from keras_sagan.metrics.feature_extraction import FeatureExtraction, check_finite
from keras_sagan.metrics.progress import Progress
from keras_sagan.metrics.protocol import extractor_info, package_versions

SIDES = ("real", "generated")


class FeatureMetric(keras.metrics.Metric):
    """Base of the metrics that compare features of real and of generated images.

    A metric over data sets and not over a batch: it lives on the host, in a callback or a script,
    and can't run inside a compiled train step. A subclass says what it keeps of the features
    (`_merge`) and what it makes of that (`result`).

    Args:
        feature_extractor: What turns images into features: one of this package's extractors, any
            Keras model, or any callable. It receives float32 in [-1, 1] of shape
            (batch, height, width, channels) and returns one tensor of shape (batch, ...), which
            is flattened to (batch, dim).
        value_range: Pair of floats `(low, high)`, the values that black and white have in *float*
            images, such as `(-1, 1)` or `(0, 255)`; there is no guessing. uint8 images are
            always in [0, 255]. Defaults to `None`: only uint8 images are accepted.
        name: String, the name of the metric.
        batch_size: Integer, how many images the extractor gets at once. Defaults to `64`.

    Raises:
        ValueError: If an argument is invalid. `update_state` raises for images of the wrong rank,
            dtype or range, and for features that aren't finite or change their width; `result`
            if there are too few images of either kind.
    """

    verbose = True  # whether `result` shows a bar where it takes more than ten seconds
    output = "features"  # of the extractor
    real_needs = ("features",)  # what must be kept of every real image; none where moments do
    least = 2  # images of each side

    def __init__(self, feature_extractor, value_range=None, name=None, batch_size=64):
        super().__init__(name=check_string("name", name, optional=True))
        self._extraction = FeatureExtraction(feature_extractor, value_range, batch_size)
        self._state = dict.fromkeys(SIDES)
        self._counts = dict.fromkeys(SIDES, 0)
        self._width = None

    @property
    def feature_extractor(self):
        """What turns images into features."""
        return self._extraction.feature_extractor

    @property
    def value_range(self):
        """The pair (low, high) of float images, or `None`."""
        return self._extraction.value_range

    @property
    def batch_size(self):
        """Integer, how many images the extractor gets at once."""
        return self._extraction.batch_size

    def update_state(self, images, real, labels=None):
        """Adds images to the statistics of one side.

        Args:
            images: Array or tensor of shape (batch, height, width, channels), uint8 in [0, 255]
                or floats in `value_range`. A batch of no images changes nothing.
            real: Boolean, `True` for images of the data set, `False` for generated ones.
            labels: Integer array of shape (batch,), the classes of the images. Only the metrics
                by class need it. Defaults to `None`.
        """
        side = side_of(real)
        # Nothing is added before everything is checked: an error leaves the state as it was.
        found = self._extraction(images, (self.output,), self._counts[side])
        if found:
            self.update_features(found[self.output], real, labels)

    def update_features(self, features, real, labels=None):
        """Adds features that were extracted before; otherwise as `update_state`.

        Args:
            features: Array of shape (batch, dim), the extractor's `"features"`, or its
                `"logits"` for an Inception Score.
            real: Boolean.
            labels: Integer array of shape (batch,), or `None`.
        """
        side = side_of(real)
        features = np.asarray(features)
        check_finite(features, self._counts[side])
        # Where the other side alone has been reset, its images still bind the width.
        if self._width is not None and features.shape[1] != self._width:
            raise ValueError(
                "`feature_extractor` must give features of one width for all images; the images "
                f"before gave {self._width}. Received: features of width {features.shape[1]} for "
                f"{side} images"
            )
        self._state[side] = self._merge(self._state[side], features, labels)
        self._counts[side] += len(features)
        self._width = features.shape[1]

    def set_statistics(self, statistics, real):
        """Takes one side from `ReferenceStatistics` in place of images.

        Args:
            statistics: `ReferenceStatistics`, in the features of this metric's extractor.
            real: Boolean.
        """
        side = side_of(real)
        self._state[side], self._counts[side] = None, 0
        self._width = None
        if self.output not in statistics.arrays:
            raise ValueError(
                f"`reference` must hold the {self.output} of its images for "
                f"{type(self).__name__}: give images, not a file of `mu` and `sigma`. "
                f"Received: a reference of {statistics.info['dataset']} with "
                f"{sorted(statistics.arrays) or 'moments alone'}"
            )
        labels = statistics.arrays.get("labels")
        self.update_features(statistics.arrays[self.output], real, labels)

    def _set_moments(self, statistics, real):
        side = side_of(real)
        self._state[side] = statistics.moments
        # A file may not say of how many images it is; of enough, then.
        self._counts[side] = statistics.num_images or self.least
        self._width = len(statistics.moments.mean)

    def _merge(self, state, features, labels):
        """The state of a side (`None` at first) with new features in it."""
        raise NotImplementedError(f"{type(self).__name__} must implement _merge()")

    def values(self):
        """Returns `{name: float}`: the result, under the metric's name if it is one number."""
        result = self.result()
        return result if isinstance(result, dict) else {self.name: result}

    def notes(self):
        """Returns what a reader must know of the result where there are too few images.

        Returns:
            List of strings, empty where there are enough.
        """
        return []

    def reset_state(self, reset_real=False):
        """Forgets the generated images and, if `reset_real`, the real ones too."""
        for side in SIDES if reset_real else ("generated",):
            self._state[side], self._counts[side] = None, 0
        if not any(self._counts.values()):
            self._width = None

    def snapshot(self):
        """Returns the statistics as they are now, for `restore`. Nothing is copied."""
        return dict(self._state), dict(self._counts), self._width

    def restore(self, state):
        """Brings back the statistics of a `snapshot`."""
        kept, counts, self._width = state
        self._state, self._counts = dict(kept), dict(counts)

    @property
    def num_images(self):
        """Dictionary of the number of images seen: `"real"` and `"generated"`."""
        return dict(self._counts)

    @property
    def protocol(self):
        """Dictionary of what a reader must know beside the figure, ready for JSON."""
        return {
            "metric": self.definition,
            **extractor_info(self.feature_extractor),
            "num_real": self._counts["real"],
            "num_generated": self._counts["generated"],
            "versions": package_versions(),
        }

    @property
    def definition(self):
        """String that defines the figure, with every setting that changes it."""
        raise NotImplementedError(f"{type(self).__name__} must implement definition")

    def get_config(self):
        if not hasattr(self.feature_extractor, "get_config"):
            raise ValueError(
                "`feature_extractor` must be a Keras model or a registered object with a "
                "`get_config` for the metric to be saved. "
                f"Received: feature_extractor={self.feature_extractor!r}"
            )
        return {
            **super().get_config(),
            "feature_extractor": keras.saving.serialize_keras_object(self.feature_extractor),
            "value_range": self.value_range,
            "batch_size": self.batch_size,
        }

    @classmethod
    def from_config(cls, config):
        config = {name: value for name, value in config.items() if name != "dtype"}
        config["feature_extractor"] = keras.saving.deserialize_keras_object(
            config["feature_extractor"]
        )
        return cls(**config)

    def _progress(self):
        return Progress(self.name, verbose=self.verbose)

    def _check_counts(self):
        counts = self._counts
        if min(counts.values()) < self.least:
            raise ValueError(
                f"`update_state` must have seen at least {self.least} real and {self.least} "
                f"generated images for {type(self).__name__}. Received: {counts['real']} real, "
                f"{counts['generated']} generated"
            )


class SampleMetric(FeatureMetric):
    """A `FeatureMetric` that keeps all features: O(num_images · dim) memory.

    The batches are kept as they come: metrics that are given the same arrays share them.
    """

    def _merge(self, state, features, labels):
        return [*(state or []), (features, labels)]

    def _features(self, side):
        """All features of a side, in the order in which they came."""
        return np.concatenate([features for features, _ in self._state[side]])

    def _labels(self, side):
        return np.concatenate([labels for _, labels in self._state[side]])


def shuffled(samples, seed):
    """The samples in an order that the seed determines; as they are for `None`."""
    return samples if seed is None else np.random.default_rng(seed).permutation(samples)


def check_batch_labels(labels, count):
    """Integer labels of shape (count,), or an error."""
    labels = None if labels is None else np.asarray(keras.ops.convert_to_numpy(labels))
    if labels is None or labels.shape != (count,) or labels.dtype.kind not in "iu":
        shape = None if labels is None else f"{labels.dtype.name} of shape {labels.shape}"
        raise ValueError(
            f"`labels` must be integers of shape ({count},), one for each image. "
            f"Received: labels={shape}"
        )
    return labels


def side_of(real):
    return "real" if check_boolean("real", real) else "generated"
