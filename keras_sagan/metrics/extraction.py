"""From images to features: the base class of the extractors, and the pass through an extractor."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_sagan.checks import FilledRange, Progress, check_float, check_function, check_integer
from keras_sagan.ops.programs import outside_programs


class Extractor:
    """Base class of the feature extractors.

    Subclasses implement `named_outputs` and `_build`, and set the attributes named in `arguments`.
    """

    arguments: tuple[str, ...] = ()
    named_outputs: Callable[..., dict]
    _build: Callable[[], Any]
    _network: Any = None

    def __call__(self, images: keras.KerasTensor) -> keras.KerasTensor:
        return self.named_outputs(images)["features"]

    def _load(self):
        """Returns the network, which is built on the first call."""
        if self._network is None:
            with outside_programs():  # Weights created during tracing would be lost.
                network = self._build()
            network.trainable = False  # Without gradients, PyTorch stores no activations.
            self._network = network
        return self._network

    def get_config(self) -> dict:
        """Returns the arguments as a dictionary, for Keras to save."""
        return {name: getattr(self, name) for name in self.arguments}

    @classmethod
    def from_config(cls, config: dict) -> "Extractor":
        """Creates an extractor from the result of `get_config`."""
        return cls(**config)


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
        self.feature_extractor = check_function("feature_extractor", feature_extractor)
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
        features: Any,  # A `FeatureSet`.
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
            if images.max(initial=0) <= 1:  # Such as floats in [0, 1] that were cast to uint8.
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


def buffer_of(array: np.ndarray) -> memoryview:
    """Returns the bytes of an array, also for bfloat16, which hashlib doesn't accept."""
    return np.ascontiguousarray(array).view(np.uint8).data
