"""From features to scores: moments, sets of features, and the base class of the metrics."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sagan.checks import Progress, check_boolean, check_labels, check_string
from keras_sagan.metrics.extraction import FeatureExtraction, check_features_of_images
from keras_sagan.metrics.report import extractor_info, package_versions
from keras_sagan.metrics.statistics_file import MOST_CLASSES

SIDES = ("real", "generated")


class Moments(NamedTuple):
    """Sufficient statistics of a set of feature vectors, which can be merged without loss."""

    count: int  # type: ignore[assignment]  # The field hides `tuple.count`.
    """The number of samples."""
    mean: np.ndarray
    """Float64 array of shape (dim,)."""
    scatter: np.ndarray
    """Float64 array of shape (dim, dim), the sum of (x - mean)(x - mean)ᵀ."""


def compute_moments(features: np.ndarray) -> Moments:
    """Computes the float64 moments of a batch of feature vectors in two passes.

    The mean is subtracted before squaring: E[x²] - E[x]² loses all accuracy if the mean is large
    compared with the deviation. `features` must be a finite array of shape (num_samples, dim) that
    isn't empty; otherwise, `ValueError` is raised.

    Example:
    >>> compute_moments([[0.0], [2.0], [4.0]])
    Moments(count=3, mean=array([2.]), scatter=array([[8.]]))
    """
    (features,) = check_features(features=features)
    mean = features.mean(axis=0)
    centered = features - mean
    return Moments(len(features), mean, centered.T @ centered)


def merge_moments(first: Moments | None, second: Moments) -> Moments:
    """Merges the moments of two disjoint sets into the moments of their union.

    count = n₁ + n₂, delta = mean₂ - mean₁, mean = mean₁ + delta · n₂ / count, scatter = scatter₁ +
    scatter₂ + delta deltaᵀ · n₁ n₂ / count. Scatter matrices are never subtracted, so the order and
    sizes of the sets have little effect on rounding errors. For an empty set, `first` is `None`. If
    the sets differ in width, `ValueError` is raised.

    Reference: Chan et al., 1983, "Algorithms for computing the sample variance", equation 1.5.
    """
    if first is None:
        return second
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            "`first` and `second` must have features of the same width. Received: "
            f"first.mean.shape={first.mean.shape}, second.mean.shape={second.mean.shape}"
        )
    count = first.count + second.count
    delta = second.mean - first.mean
    mean = first.mean + delta * (second.count / count)
    scatter = first.scatter + second.scatter
    scatter += np.outer(delta * (first.count * second.count / count), delta)
    return Moments(count, mean, scatter)


def covariance(moments: Moments) -> np.ndarray:
    """Returns the unbiased (ddof = 1) covariance matrix of at least 2 samples."""
    if moments.count < 2:
        raise ValueError(
            "`moments` must be of at least 2 samples for a covariance. "
            f"Received: moments.count={moments.count}"
        )
    return moments.scatter / (moments.count - 1)


def check_features(dtype: type = np.float64, **arrays: np.ndarray) -> list[np.ndarray]:
    """Converts finite arrays of shape (num_samples, dim) to one dtype, or raises an error."""
    result, width = [], None
    for name, value in arrays.items():
        value = np.asarray(value, dtype=dtype)
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
        """The arrays of features collected so far, with one row for each image."""
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


def shuffled(samples: np.ndarray, seed: int | None) -> np.ndarray:
    """Returns the samples, shuffled unless the seed is `None`."""
    return samples if seed is None else np.random.default_rng(seed).permutation(samples)


def check_batch_labels(labels: np.ndarray | None, count: int) -> np.ndarray:
    """Returns the integer class ids of `count` images, or raises an error."""
    labels = None if labels is None else check_labels(labels, MOST_CLASSES)
    if labels is None or len(labels) != count:
        received = "labels=None" if labels is None else f"{len(labels)} labels"
        raise ValueError(
            f"`labels` must be {count} class ids, one for each image. Received: {received}"
        )
    return np.asarray(keras.ops.convert_to_numpy(labels))
