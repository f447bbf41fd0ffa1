"""From images to finite features, and the base class of the metrics over features."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_sagan.checks import FilledRange, check_boolean, check_integer, check_string
from keras_sagan.metrics.progress import Progress
from keras_sagan.metrics.replicas import share_among_replicas
from keras_sagan.metrics.report import extractor_info, package_versions

SIDES = ("real", "generated")


class FeatureExtraction:
    """Checks images, scales them to [-1, 1] and passes them through an extractor in batches.

    Args:
        feature_extractor: A Keras model or callable from float32 images in [-1, 1] of shape
            (batch, height, width, channels) to one tensor of shape (batch, ...). If it returns a
            dictionary with `"features"` and `"logits"`, or has a method `named_outputs(images)`
            that does, it serves metrics of both in one pass.
        value_range: Pair `(low, high)`, the range of float images. Defaults to `None`: only uint8.
        batch_size: How many images the extractor gets at once. Defaults to `64`.
        strategy: `tf.distribute.Strategy` whose replicas share each batch. Defaults to `None`.

    Raises:
        ValueError: If an argument is invalid; on a call, for images of the wrong rank, dtype or
            range and for features that aren't finite.
    """

    def __init__(
        self,
        feature_extractor: Callable,
        value_range: Sequence[float] | None = None,
        batch_size: int = 64,
        strategy: Any = None,
    ):
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
        self._filled = FilledRange("`images`", "set `value_range` to it, or every score is wrong")
        self._call = self._call_extractor
        if strategy is not None:
            self._call = share_among_replicas(self._call, strategy)

    def __call__(
        self, images: np.ndarray, names: Sequence[str] = ("features",), first: int = 0
    ) -> dict[str, np.ndarray]:
        """Returns `{name: array of shape (batch, dim)}`; `{}` for no images.

        Args:
            images: uint8 in [0, 255] or floats in `value_range`, of shape
                (batch, height, width, channels).
            names: `"features"`, `"logits"` or both. Defaults to `("features",)`.
            first: The number of the first image, for messages. Defaults to `0`.
        """
        if first == 0:
            self._filled.reset()
        images = self.to_model_space(images)
        progress, found = Progress("Images", len(images), self.verbose), {}
        for start in range(0, len(images), self.batch_size):
            if start:  # A single batch is part of a pass that has a bar of its own.
                progress(start)
            part = images[start : start + self.batch_size]
            outputs = self._call(part, names)
            for name in names:
                features = self._checked(outputs[name], len(part), first + start)
                found.setdefault(name, []).append(features)
        for name, parts in found.items():
            widths = sorted({x.shape[1] for x in parts})
            if len(widths) > 1:
                raise ValueError(
                    "`feature_extractor` must give features of one width for all images. "
                    f"Received: {name} of width {widths}"
                )
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def to_model_space(self, images: np.ndarray) -> np.ndarray:
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
        if images.size:
            slack = 1e-5 * (high - low)  # Half precision rounds values, but not beyond the bounds.
            least, most = images.min(), images.max()
            if not (least >= low - slack and most <= high + slack):
                raise ValueError(
                    f"`images` must be finite and within value_range=({low:g}, {high:g}). "
                    f"Received: images in [{least:g}, {most:g}]"
                )
            self._filled(images, low, high)
        return np.clip((images - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0)

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

    def _checked(self, features, count, first):
        """Returns finite features of shape (count, dim), of images from number `first` on."""
        features = to_numpy(features, "feature_extractor")
        if features.ndim < 1 or len(features) != count or not features.size:
            raise ValueError(
                f"`feature_extractor` must return features of shape ({count}, ...) for {count} "
                f"images. Received: features.shape={features.shape}"
            )
        features = features.reshape(count, -1)
        features = features.astype(np.promote_types(features.dtype, np.float32), copy=False)
        check_finite(features, first, self.subject)
        return features


def check_finite(features: np.ndarray, first: int = 0, subject: str = "images"):
    """Raises unless features are finite; `first` images came before them in the same pass."""
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise ValueError(
            "`feature_extractor` must return finite features. Received: features with NaN or "
            f"infinity for {bad.size} of {len(features)} {subject}, the first one for image "
            f"number {first + bad[0]} of them, counted from 0"
        )


def to_numpy(value, name: str) -> np.ndarray:
    """Returns a numpy array, or raises for a symbolic value and for what isn't one tensor."""
    if isinstance(value, (dict, list, tuple)):
        raise ValueError(
            f"`{name}` must be one array or tensor (for an extractor: what it returns). "
            f"Received: {type(value).__name__}"
        )
    try:
        return np.asarray(keras.ops.convert_to_numpy(value))
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"`{name}` must be (for an extractor: return) a concrete array or tensor; metrics "
            f"work in a callback or a script, not inside a compiled step. Received: {value!r}"
        ) from error


def _checked_range(value_range):
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


def check_features(keep=np.float64, **arrays: np.ndarray) -> list[np.ndarray]:
    """Returns arrays of shape (num_samples, dim) in float64 or `keep`, finite and of one width.

    They are given by the names of their arguments, for messages.
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

    The arguments are those of `FrechetInceptionDistance`. A subclass implements `result` and
    `definition`, and says in `keeps` what it needs of each side: all `"samples"`, or their
    `"moments"`, for which it implements `_merge`. A side that isn't in `keeps` is ignored.
    """

    verbose = True  # whether `result` shows a bar if it takes more than ten seconds
    output = "features"  # of the extractor
    keeps = dict.fromkeys(SIDES, "samples")
    least = 2  # images of each side
    settings: tuple[str, ...] = ()  # the arguments of a subclass, which are attributes too

    def __init__(self, feature_extractor, value_range=None, name=None, batch_size=64):
        super().__init__(name=check_string("name", name, optional=True))
        self._extraction = FeatureExtraction(feature_extractor, value_range, batch_size)
        self._state = dict.fromkeys(SIDES)
        self._counts = dict.fromkeys(SIDES, 0)
        self._width = None

    @property
    def feature_extractor(self) -> Callable:
        """The model or callable that turns images into features."""
        return self._extraction.feature_extractor

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The range (low, high) of float images, or `None`."""
        return self._extraction.value_range

    @property
    def batch_size(self) -> int:
        """How many images the extractor gets at once."""
        return self._extraction.batch_size

    def update_state(
        self, images: np.ndarray, real: bool, labels: np.ndarray | None = None
    ) -> None:
        """Adds images to one side.

        Args:
            images: Array or tensor of shape (batch, height, width, channels), uint8 in [0, 255]
                or floats in `value_range`. A batch of no images changes nothing.
            real: `True` for images of the data set, `False` for generated ones.
            labels: Integer array of shape (batch,), the classes of the images. Only the metrics
                by class need it. Defaults to `None`.
        """
        side = side_of(real)
        # Everything is checked before anything is added: an error leaves the state as it was.
        if side in self.keeps:
            found = self._extraction(images, (self.output,), self._counts[side])
            if found:
                self.update_features(found[self.output], real, labels)

    def update_features(
        self, features: np.ndarray, real: bool, labels: np.ndarray | None = None
    ) -> None:
        """Adds features that were extracted before; otherwise as `update_state`.

        They have shape (batch, dim): the extractor's `"features"`, or its `"logits"` for an
        Inception Score.
        """
        side = side_of(real)
        if side not in self.keeps:
            return
        features = np.asarray(features)
        check_finite(features, self._counts[side])
        # The width is also that of the other side, even after this side alone was reset.
        if self._width is not None and features.shape[1] != self._width:
            raise ValueError(
                "`feature_extractor` must give features of one width for all images; the images "
                f"before gave {self._width}. Received: features of width {features.shape[1]} for "
                f"{side} images"
            )
        self._state[side] = self._merge(side, features, labels)
        self._counts[side] += len(features)
        self._width = features.shape[1]

    def set_statistics(self, statistics: Any, real: bool) -> None:
        """Replaces one side by `ReferenceStatistics` in the features of this metric's extractor."""
        side = side_of(real)
        if side not in self.keeps:
            return
        self._state[side], self._counts[side], self._width = None, 0, None
        if self.keeps[side] == "moments":
            self._state[side] = statistics.moments
            # A file may not say how many images it is of: assume that they are enough.
            self._counts[side] = statistics.num_images or self.least
            self._width = len(statistics.moments.mean)
            return
        if self.output not in statistics.arrays:
            raise ValueError(
                f"`reference` must hold the {self.output} of its images for "
                f"{type(self).__name__}: give images, not a file of `mu` and `sigma`. "
                f"Received: a reference of {statistics.info['dataset']} with "
                f"{sorted(statistics.arrays) or 'moments alone'}"
            )
        arrays = statistics.arrays
        self.update_features(arrays[self.output], real, arrays.get("labels"))

    def _merge(self, side, features, labels):
        """Returns the state of a side with new features in it.

        Batches are kept as they come, so metrics that get the same arrays share them.
        """
        return [*(self._state[side] or []), (features, labels)]

    def _samples(self, side):
        """Returns all features of a side, in the order in which they came."""
        return np.concatenate([features for features, _ in self._state[side]])

    def values(self) -> dict[str, float]:
        """Returns the result by name: the metric's own name if it is one number."""
        result = self.result()
        return result if isinstance(result, dict) else {self.name: result}

    def notes(self) -> list[str]:
        """Returns warnings about a result of too few images; empty if there are enough."""
        return []

    def reset_state(self, reset_real: bool = False) -> None:
        """Forgets the generated images and, if `reset_real`, the real ones too."""
        for side in SIDES if reset_real else ("generated",):
            self._state[side], self._counts[side] = None, 0
        if not any(self._counts.values()):
            self._width = None

    def snapshot(self) -> tuple:
        """Returns the current statistics, for `restore`. Nothing is copied."""
        return dict(self._state), dict(self._counts), self._width

    def restore(self, state: tuple) -> None:
        """Brings back the statistics of a `snapshot`."""
        self._state, self._counts, self._width = state

    @property
    def num_images(self) -> dict[str, int]:
        """The number of images seen: `"real"` and `"generated"`."""
        return dict(self._counts)

    @property
    def protocol(self) -> dict:
        """What a reader must know beside the score, ready for JSON."""
        return {
            "metric": self.definition,
            **extractor_info(self.feature_extractor),
            "num_real": self._counts["real"],
            "num_generated": self._counts["generated"],
            "versions": package_versions(),
        }

    @property
    def definition(self) -> str:
        """Defines the score, with every setting that changes it."""
        raise NotImplementedError(f"{type(self).__name__} must implement definition")

    def get_config(self) -> dict:
        if not hasattr(self.feature_extractor, "get_config"):
            raise ValueError(
                "`feature_extractor` must be a Keras model or a registered object with a "
                "`get_config` for the metric to be saved. "
                f"Received: feature_extractor={self.feature_extractor!r}"
            )
        return {
            **super().get_config(),
            "feature_extractor": keras.saving.serialize_keras_object(self.feature_extractor),
            **{x: getattr(self, x) for x in ("value_range", "batch_size", *self.settings)},
        }

    @classmethod
    def from_config(cls, config: dict) -> "FeatureMetric":
        config = {name: value for name, value in config.items() if name != "dtype"}
        extractor = keras.saving.deserialize_keras_object(config["feature_extractor"])
        return cls(**{**config, "feature_extractor": extractor})

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


def shuffled(samples: np.ndarray, seed: int | None) -> np.ndarray:
    """Returns the samples in an order that the seed determines; as they are for `None`."""
    return samples if seed is None else np.random.default_rng(seed).permutation(samples)


def check_batch_labels(labels: np.ndarray | None, count: int) -> np.ndarray:
    """Returns integer labels of shape (count,), or raises."""
    labels = None if labels is None else np.asarray(keras.ops.convert_to_numpy(labels))
    if labels is None or labels.shape != (count,) or labels.dtype.kind not in "iu":
        shape = None if labels is None else f"{labels.dtype.name} of shape {labels.shape}"
        raise ValueError(
            f"`labels` must be integers of shape ({count},), one for each image. "
            f"Received: labels={shape}"
        )
    return labels


def side_of(real: bool) -> str:
    """Returns `"real"` or `"generated"`."""
    return "real" if check_boolean("real", real) else "generated"
