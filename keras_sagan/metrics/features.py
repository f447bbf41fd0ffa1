"""From images to finite features, and what the metrics over features have in common."""

import keras
import numpy as np

from keras_sagan.checks import FilledRange, check_boolean, check_integer, check_string
from keras_sagan.metrics.progress import Progress
from keras_sagan.metrics.report import extractor_info, package_versions

SIDES = ("real", "generated")


class FeatureExtraction:
    """Checks images, scales them to [-1, 1] and takes them through an extractor in batches.

    Args:
        feature_extractor: Any Keras model or callable from float32 images in [-1, 1] of shape
            (batch, height, width, channels) to one tensor of shape (batch, ...). One that
            returns a dictionary with `"features"` and `"logits"`, or has a method
            `named_outputs(images)` that does, serves metrics of both in one pass.
        value_range: `None`, or the pair `(low, high)` of float images.
        batch_size: Integer, how many images the extractor gets at once.
        strategy: `tf.distribute.Strategy` whose replicas share each batch. Defaults to `None`.

    Raises:
        ValueError: If an argument is invalid; when called, for images of the wrong rank, dtype or
            range and for features that aren't finite.
    """

    def __init__(self, feature_extractor, value_range=None, batch_size=64, strategy=None):
        if not callable(feature_extractor):
            raise ValueError(
                "`feature_extractor` must be a Keras model or a callable on images. "
                f"Received: feature_extractor={feature_extractor!r}"
            )
        if strategy is not None and not hasattr(strategy, "num_replicas_in_sync"):
            raise ValueError(
                f"`strategy` must be a tf.distribute.Strategy. Received: strategy={strategy!r}"
            )
        self.feature_extractor = feature_extractor
        self.value_range = _checked_range(value_range)
        self.batch_size = check_integer("batch_size", batch_size)
        self.verbose = True
        self.subject = "images"  # what they are, for messages
        self._filled = FilledRange("`images`", "`value_range` must say so, or every score is wrong")
        self._call = self._call_extractor
        if strategy is not None and strategy.num_replicas_in_sync > 1:
            from keras_sagan.metrics.replicas import share_among_replicas

            self._call = share_among_replicas(self._call_extractor, strategy)

    def __call__(self, images, names=("features",), first=0):
        """Returns `{name: array of shape (num_images, dim)}` for the outputs that are asked for.

        Args:
            images: uint8 images in [0, 255] or floats in `value_range`, of shape
                (batch, height, width, channels).
            names: Strings, `"features"`, `"logits"` or both.
            first: Integer, the number of the first image, for messages. Defaults to `0`.
        """
        if first == 0:
            self._filled.reset()
        images = self.to_model_space(images)
        progress, parts = Progress("Images", len(images), self.verbose), []
        for start in range(0, len(images), self.batch_size):
            if start:  # One batch is part of a pass that has a bar of its own.
                progress(start)
            part = images[start : start + self.batch_size]
            parts.append(self._extract(part, names, first + start))
        if not parts:
            return {}
        widths = {name: {part[name].shape[1] for part in parts} for name in names}
        for name, found in widths.items():
            if len(found) > 1:
                raise ValueError(
                    "`feature_extractor` must give features of one width for all images. "
                    f"Received: {name} of width {sorted(found)}"
                )
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def to_model_space(self, images):
        """Returns float32 images in [-1, 1] from uint8 or from floats in `value_range`."""
        images = to_numpy(images, "images")
        if images.ndim != 4:
            raise ValueError(
                "`images` must have shape (batch, height, width, channels). "
                f"Received: images.shape={images.shape}"
            )
        if images.dtype == np.uint8:
            return images.astype(np.float32) / 127.5 - 1.0
        if not keras.backend.is_float_dtype(images.dtype.name):
            raise ValueError(
                "`images` must be uint8 in [0, 255] or floats in `value_range`. "
                f"Received: images of dtype {images.dtype.name}"
            )
        if self.value_range is None:
            raise ValueError(
                "`value_range` must be given for float images, such as (-1, 1) or (0, 255). "
                f"Received: value_range=None and images of dtype {images.dtype.name}"
            )
        low, high = self.value_range
        images = images.astype(np.float32)
        slack = 1e-5 * (high - low)  # rounding of half precision is in the values, not beyond
        if images.size:
            least, most = images.min(), images.max()
            if not (least >= low - slack and most <= high + slack):
                raise ValueError(
                    f"`images` must be finite and within value_range=({low:g}, {high:g}). "
                    f"Received: images in [{least:g}, {most:g}]"
                )
            self._filled(images, low, high)
        return np.clip((images - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0)

    def _extract(self, images, names, start):
        """Finite features of shape (batch, dim) by name, for images that begin at `start`."""
        outputs = self._call(images, names)
        return {name: self._checked(outputs[name], images, start) for name in names}

    def _call_extractor(self, images, names):
        extractor = self.feature_extractor
        if hasattr(extractor, "named_outputs"):
            outputs = extractor.named_outputs(images)
        else:
            is_model = isinstance(extractor, keras.Model)
            outputs = extractor(images, **({"training": False} if is_model else {}))
        if not isinstance(outputs, dict):
            outputs = {names[0]: outputs}
        if any(name not in outputs for name in names):
            raise ValueError(
                "`feature_extractor` must return a dictionary, or have a method "
                f"named_outputs(images) that does, to give {' and '.join(names)} at once. "
                f"Received: feature_extractor={extractor!r} with the outputs {sorted(outputs)}"
            )
        return {name: outputs[name] for name in names}

    def _checked(self, features, images, start):
        features = to_numpy(features, "feature_extractor")
        if features.ndim < 1 or len(features) != len(images) or not features.size:
            raise ValueError(
                f"`feature_extractor` must return features of shape ({len(images)}, ...) for "
                f"{len(images)} images. Received: features.shape={features.shape}"
            )
        features = features.reshape(len(images), -1)
        features = features.astype(np.promote_types(features.dtype, np.float32), copy=False)
        check_finite(features, start, self.subject)
        return features


def check_finite(features, first=0, subject="images"):
    """Raises unless features are finite, with the number of the first image of which they aren't.

    Args:
        features: Array of shape (batch, dim).
        first: Integer, how many images came before these in the same pass. Defaults to `0`.
        subject: String, which images they are. Defaults to `"images"`.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise ValueError(
            "`feature_extractor` must return finite features. Received: features with NaN or "
            f"infinity for {bad.size} of {len(features)} {subject}, the first one for image "
            f"number {first + bad[0]} of them, counted from 0"
        )


def to_numpy(value, name):
    """A numpy array, or an error when the value is symbolic or no single tensor."""
    if isinstance(value, (dict, list, tuple)):
        raise ValueError(
            f"`{name}` must be one array or tensor (for an extractor: what it returns). "
            f"Received: {type(value).__name__}"
        )
    try:
        return np.asarray(keras.ops.convert_to_numpy(value))
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"`{name}` must be (for an extractor: return) a concrete array or tensor; this metric "
            "works in a callback or a script, not inside a compiled step. "
            f"Received: {value!r}"
        ) from error


def _checked_range(value_range):
    """`None` or a pair of floats, low < high."""
    if value_range is None:
        return None
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = float("nan")
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(
            "`value_range` must be None or a pair (low, high) with low < high, such as (-1, 1). "
            f"Received: value_range={value_range!r}"
        )
    return (low, high)


def check_features(keep=np.float64, **arrays):
    """Float64 matrices of one width, or an error that names the argument.

    Args:
        keep: Another dtype that arrays may keep. Defaults to none.
        **arrays: Arrays of shape (num_samples, dim), by name.

    Returns:
        List of the arrays, in float64 or `keep`.

    Raises:
        ValueError: For another rank, no sample, different widths, or values that aren't finite.
    """
    result, width = [], None
    for name, value in arrays.items():
        value = np.asarray(value)
        value = value if value.dtype == keep else value.astype(np.float64, copy=False)
        if value.ndim != 2 or value.size == 0 or width not in (None, value.shape[1]):
            raise ValueError(
                f"`{name}` must have shape (num_samples, {width or 'dim'}), with at least one of "
                f"each. Received: {name}.shape={value.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(value).all(axis=1))
        if bad.size:
            raise ValueError(
                f"`{name}` must be finite. Received: NaN or infinity in {bad.size} of {len(value)} "
                f"samples, the first at index {bad[0]}"
            )
        width = value.shape[1]
        result.append(value)
    return result


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
