"""Feature extraction, and the base class of the metrics that compare features."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_sagan.checks import FilledRange, check_boolean, check_float, check_integer, check_string
from keras_sagan.metrics.moments import Moments, compute_moments, merge_moments
from keras_sagan.metrics.progress import Progress
from keras_sagan.metrics.report import extractor_info, package_versions
from keras_sagan.metrics.statistics_file import MOST_CLASSES

SIDES = ("real", "generated")


class FeatureExtraction:
    """Checks images, scales them to [-1, 1] and passes them through an extractor in batches.

    Args:
        feature_extractor: A Keras model or callable that maps float32 images in [-1, 1] of shape
            (batch, height, width, channels) to one tensor of shape (batch, ...). To compute
            features and logits in one pass, the extractor or its method `named_outputs(images)`
            must return a dictionary with `"features"` and `"logits"`.
        value_range: Pair `(low, high)`, the range of float images. If `None`, only uint8 images are
            accepted.
        batch_size: The batch size of the extractor.

    Raises:
        ValueError: If an argument is invalid; when called, if images have the wrong rank, dtype or
            range, or features aren't finite.
    """

    verbose = True

    def __init__(
        self,
        feature_extractor: Callable,
        value_range: Sequence[float] | None = None,
        batch_size: int = 64,
    ):
        if not callable(feature_extractor):
            raise ValueError(
                "`feature_extractor` must be a Keras model or a callable on images. "
                f"Received: feature_extractor={feature_extractor!r}"
            )
        self.feature_extractor = feature_extractor
        self.value_range = value_range if value_range is None else _range(value_range)
        self.batch_size = check_integer("batch_size", batch_size)
        advice = "rescale uint8 images to [0, 255], or set the `value_range` of float images"
        self._filled = FilledRange("`images`", f"{advice}; otherwise, every score is wrong")

    def __call__(
        self,
        images: np.ndarray,
        names: Sequence[str] = ("features",),
        first: int = 0,
        subject: str = "images",
    ) -> dict[str, np.ndarray]:
        """Returns a dictionary of arrays of shape (batch, dim), or `{}` if there are no images.

        `names` are `"features"`, `"logits"` or both. Error messages use `first`, the index of the
        first image, and `subject`, a description of the images.
        """
        if first == 0:
            self._filled.reset()
        images, size = self.to_model_space(images), self.batch_size
        progress, found = Progress("Images", len(images), self.verbose), {}
        for start in range(0, len(images), size):
            if start:  # The caller shows the progress if there is only one batch.
                progress(start)
            part = images[start : start + size]
            for name, features in self._outputs(part, names).items():
                features = to_numpy(features, "feature_extractor")
                if features.ndim < 1 or len(features) != len(part) or not features.size:
                    raise ValueError(
                        f"`feature_extractor` must return features of shape ({len(part)}, ...) for "
                        f"{len(part)} images. Received: features.shape={features.shape}"
                    )
                features = features.reshape(len(part), -1)
                features = features.astype(np.promote_types(features.dtype, np.float32), copy=False)
                parts = found.setdefault(name, [])
                widths = [x.shape[1] for x in parts]
                check_features_of_images(features, first + start, subject, widths)
                parts.append(features)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def measure(
        self,
        batches: Iterable[tuple],
        features: "FeatureSet",
        names: Sequence[str],
        title: str = "Images",
        total: int | None = None,
    ) -> dict:
        """Adds batches (images, labels) to `features`; returns a description of the images."""
        progress, digest, shape = Progress(title, total, self.verbose), hashlib.sha256(), None
        for images, labels in batches:
            first, shape = features.num_images, shape or images.shape[1:]
            if images.shape[1:] != shape:
                raise ValueError(
                    f"`images` must have the same shape. Received: images of shape {shape}, and of "
                    f"shape {images.shape[1:]} at index {first}"
                )
            features.add(self(images, names, first, title[0].lower() + title[1:]), labels)
            digest.update(buffer_of(images))
            progress(features.num_images)
        info = {"num_images": features.num_images, "sha256": digest.hexdigest()}
        return {**info, "image_shape": [int(size) for size in shape or ()]}

    def to_model_space(self, images: np.ndarray) -> np.ndarray:
        """Converts uint8 images, or floats in `value_range`, to float32 in [-1, 1]."""
        images = to_numpy(images, "images")
        if images.ndim != 4:
            raise ValueError(
                "`images` must have shape (batch, height, width, channels). "
                f"Received: images.shape={images.shape}"
            )
        if images.dtype == np.uint8:
            self._filled(images, 0, 255)
            return images.astype(np.float32) / 127.5 - 1.0
        dtype = images.dtype.name
        if self.value_range is None or not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                "`images` must be uint8 in [0, 255], or floats whose `value_range` is given, such "
                f"as (-1, 1). Received: {dtype} images and value_range={self.value_range}"
            )
        low, high = self.value_range
        images = images.astype(np.float32)
        if images.size:
            slack = 1e-5 * (high - low)  # Allow float32 rounding errors at the bounds.
            least, most = images.min(), images.max()
            if not (least >= low - slack and most <= high + slack):
                raise ValueError(
                    f"`images` must be finite and within value_range=({low:g}, {high:g}). "
                    f"Received: images in [{least:g}, {most:g}]"
                )
            self._filled(images, low, high)
        return np.clip((images - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0)

    def _outputs(self, images, names):
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
                f"named_outputs(images) that does, to return both {' and '.join(names)}. "
                f"Received: feature_extractor={extractor!r} with the outputs {sorted(outputs)}"
            )
        return {name: outputs[name] for name in names}


class FeatureSet:
    """Collects the outputs of an extractor for images that arrive in batches.

    `keep` lists the kinds of data to keep. `"moments"` are the moments of the first output, which
    take O(dim²) memory. `"features"`, `"logits"` and `"labels"` are kept for every image. `width`
    is the width of the first output. Image i belongs to part i % `num_parts`, and each part has
    separate moments.
    """

    def __init__(self, keep: Iterable[str], width: int | None = None, num_parts: int = 1):
        self.keep, self.width, self.num_images = set(keep), width, 0
        self.parts: list[Any] = [None] * num_parts
        self._batches: dict[str, list] = {name: [] for name in self.keep - {"moments"}}

    def add(self, outputs: dict[str, np.ndarray], labels: np.ndarray | None = None) -> None:
        """Adds the outputs of a batch, arrays of shape (batch, dim), and its labels."""
        if not outputs:
            return
        # Check everything before adding anything, so that an error leaves the state unchanged.
        features = next(iter(outputs.values()))
        check_features_of_images(features, self.num_images, widths=[self.width])
        if "labels" in self.keep:
            outputs = {**outputs, "labels": check_batch_labels(labels, len(features))}
        if "moments" in self.keep:
            for i, done in enumerate(self.parts):
                part = features[(i - self.num_images) % len(self.parts) :: len(self.parts)]
                if len(part):
                    self.parts[i] = merge_moments(done, compute_moments(part))
        for name, batches in self._batches.items():
            batches.append(outputs[name])
        self.num_images, self.width = self.num_images + len(features), features.shape[1]

    @property
    def moments(self) -> Moments:
        """The moments of all images."""
        first, *others = [part for part in self.parts if part is not None]
        for part in others:
            first = merge_moments(first, part)
        return first

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are kept, with one row for each image."""
        for name, batches in self._batches.items():
            self._batches[name] = [np.concatenate(batches)] if len(batches) > 1 else batches
        return {name: batches[0] for name, batches in self._batches.items() if batches}


class FeatureMetric(keras.metrics.Metric):
    """Base class of the metrics that compare features of real and generated images.

    A subclass implements `compare`, and sets `formula` and `needs`. The dictionary `needs` lists
    the data to keep for `"real"` and for `"generated"` images. If the list for `"real"` or
    `"generated"` is empty, the metric ignores these images. The arguments are those of
    `FrechetInceptionDistance`; `name` defaults to `default_name`.
    """

    verbose = True
    held_out: Any = None  # The `FeatureSet` of held-out real images, set by `Evaluation`.
    default_name: str | None = None
    formula = ""  # A format string for `definition`. Its fields are named in `settings`.
    needs: dict[str, tuple[str, ...]] = dict.fromkeys(SIDES, ("features",))
    least = 2  # The minimum number of real images and of generated images.
    settings: tuple[str, ...] = ()  # The names of a subclass's additional arguments.

    def __init__(
        self,
        feature_extractor: Callable,
        value_range: Sequence[float] | None = None,
        name: str | None = None,
        batch_size: int = 64,
    ):
        super().__init__(name=check_string("name", name, optional=True) or self.default_name)
        extraction = self._extraction = FeatureExtraction(
            feature_extractor, value_range, batch_size
        )
        self.feature_extractor, self.batch_size = feature_extractor, extraction.batch_size
        self.value_range = extraction.value_range
        self.output = "logits" if "logits" in self.needs["generated"] else "features"
        self._sets = {side: FeatureSet(self.needs[side]) for side in SIDES}

    def update_state(
        self, images: np.ndarray, real: bool, labels: np.ndarray | None = None
    ) -> None:
        """Adds real or generated images.

        Args:
            images: Array or tensor of shape (batch, height, width, channels), uint8 in [0, 255] or
                floats in `value_range`. An empty batch changes nothing.
            real: `True` for real images, `False` for generated ones.
            labels: Integer array of shape (batch,), needed only by metrics that compare classes.
        """
        side = SIDES[not check_boolean("real", real)]
        if self.needs[side]:
            found = self._extraction(images, (self.output,), self._sets[side].num_images)
            if found:
                self.update_features(found[self.output], real, labels)

    def update_features(
        self, features: np.ndarray, real: bool, labels: np.ndarray | None = None
    ) -> None:
        """Adds precomputed features instead of images.

        `features` have shape (batch, dim): the extractor's `"features"`, or its `"logits"` for an
        Inception Score. The other arguments are those of `update_state`.
        """
        real = check_boolean("real", real)
        side, others = SIDES if real else SIDES[::-1]
        if self.needs[side]:
            own, other = self._sets[side], self._sets[others]
            own.width = own.width or other.width
            own.add({self.output: np.asarray(features)}, labels)

    def result(self) -> float | dict[str, float]:
        """Returns the score, or a dictionary of scores; warns if there are too few images."""
        values = self.values()
        for note in self.notes(*self._sets.values()):
            warnings.warn(note, stacklevel=2)
        return values[self.name] if list(values) == [self.name] else values

    def values(self, real: Any = None, generated: Any = None) -> dict[str, float]:
        """Returns a dictionary of scores; a single score is named after the metric.

        Args:
            real, generated: A `FeatureSet` or `ReferenceStatistics` with the data that the metric
                needs. Defaults to the images that `update_state` has seen.
        """
        sets = dict(zip(SIDES, (real or self._sets["real"], generated or self._sets["generated"])))
        counts = {side: sets[side].num_images for side in SIDES if self.needs[side]}
        # If a file doesn't record its number of images, assume that there are enough.
        if any(count is not None and count < self.least for count in counts.values()):
            raise ValueError(
                f"{type(self).__name__} needs at least "
                f"{' and '.join(f'{self.least} {side}' for side in counts)} images. Received: "
                f"{', '.join(f'{count} {side}' for side, count in counts.items())}"
            )
        for side, features in sets.items():
            self.check_holds(features, side)
        result = self.compare(*sets.values())
        return result if isinstance(result, dict) else {self.name: result}

    def check_holds(self, features: Any, side: str) -> None:
        """Raises an error if a set of features (from a file) lacks data that the metric needs."""
        missing = sorted(set(self.needs[side]) - {"moments", *features.arrays})
        if missing:
            raise ValueError(
                f"`reference` must hold the {' and '.join(missing)} of its images for {self.name}: "
                "give images (with labels), not a file of `mu` and `sigma`. Received: a reference "
                f"with {sorted(features.arrays) or 'moments only'}"
            )

    def compare(self, real: Any, generated: Any) -> float | dict[str, float]:
        """Returns the score, or a dictionary of scores, for two sets of features; see `values`."""
        raise NotImplementedError(f"{type(self).__name__} must implement compare")

    def notes(self, real: Any, generated: Any) -> list[str]:
        """Returns warnings about scores from too few images, or an empty list."""
        return []

    def reset_state(self, reset_real: bool = False) -> None:
        """Forgets the generated images and, if `reset_real` is `True`, also the real images."""
        for side in SIDES if reset_real else ("generated",):
            self._sets[side] = FeatureSet(self.needs[side])

    @property
    def num_images(self) -> dict[str, int]:
        """The number of images seen, for `"real"` and `"generated"`."""
        return {side: features.num_images for side, features in self._sets.items()}

    @property
    def protocol(self) -> dict:
        """A JSON-serializable dictionary that describes how the score was measured."""
        return {
            "metric": self.definition,
            **extractor_info(self.feature_extractor),
            **{f"num_{side}": count for side, count in self.num_images.items()},
            "versions": package_versions(),
        }

    @property
    def definition(self) -> str:
        """The definition of the score, including every setting that affects it."""
        return self.formula.format(**{name: getattr(self, name) for name in self.settings})

    def get_config(self) -> dict:
        if not hasattr(self.feature_extractor, "get_config"):
            raise ValueError(
                "`feature_extractor` must be a Keras model or a registered object with a "
                "`get_config` for the metric to be saved. "
                f"Received: feature_extractor={self.feature_extractor!r}"
            )
        return {
            "name": self.name,
            "feature_extractor": keras.saving.serialize_keras_object(self.feature_extractor),
            **{x: getattr(self, x) for x in ("value_range", "batch_size", *self.settings)},
        }

    @classmethod
    def from_config(cls, config: dict) -> "FeatureMetric":
        extractor = keras.saving.deserialize_keras_object(config["feature_extractor"])
        return cls(**{**config, "feature_extractor": extractor})

    def _progress(self):
        return Progress(self.name, verbose=self.verbose)


def check_features_of_images(features, first=0, subject="images", widths=()):
    """Raises an error if features aren't finite, or differ in width from earlier features."""
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise ValueError(
            "`feature_extractor` must return finite features. Received: features with NaN or "
            f"infinity for {bad.size} of {len(features)} {subject}, the first one at index "
            f"{first + bad[0]} of all images"
        )
    for width in widths:
        if width not in (None, features.shape[1]):
            raise ValueError(
                "`feature_extractor` must return features of the same width for all images; "
                f"earlier images or the reference have width {width}. Received: features of width "
                f"{features.shape[1]}"
            )


def to_numpy(value, name: str) -> np.ndarray:
    """Converts a tensor to a numpy array; raises an error for any other value."""
    try:
        if isinstance(value, (dict, list, tuple)):
            raise TypeError("several values")
        return np.asarray(keras.ops.convert_to_numpy(value))
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"`{name}` must be (for an extractor: return) one concrete array or tensor; metrics "
            "work in a callback or a script, not inside a compiled step. "
            f"Received: {type(value).__name__}"
        ) from error


def _range(value_range):
    try:
        low, high = (check_float("value_range", value) for value in value_range)
        if low < high:
            return (low, high)
    except (TypeError, ValueError):
        pass
    raise ValueError(
        "`value_range` must be None or a pair (low, high) with low < high, such as (-1, 1). "
        f"Received: value_range={value_range!r}"
    )


def shuffled(samples: np.ndarray, seed: int | None) -> np.ndarray:
    """Returns the samples, shuffled unless the seed is `None`."""
    return samples if seed is None else np.random.default_rng(seed).permutation(samples)


def buffer_of(array: np.ndarray) -> memoryview:
    """Returns the bytes of an array, also for bfloat16, which hashlib doesn't accept."""
    return np.ascontiguousarray(array).view(np.uint8).data


def check_batch_labels(labels: np.ndarray | None, count: int) -> np.ndarray:
    """Returns integer labels of shape (count,), or raises an error."""
    found = np.asarray(None if labels is None else keras.ops.convert_to_numpy(labels))
    if found.shape != (count,) or found.dtype.kind not in "iu":
        received = None if labels is None else f"{found.dtype.name} of shape {found.shape}"
        raise ValueError(
            f"`labels` must be integers of shape ({count},), one for each image. "
            f"Received: labels={received}"
        )
    if count and not 0 <= found.min() <= found.max() < MOST_CLASSES:
        raise ValueError(
            f"`labels` must be class ids in [0, {MOST_CLASSES}); pass images without labels if "
            f"their classes are unknown. Received: labels from {found.min()} to {found.max()}"
        )
    return found
