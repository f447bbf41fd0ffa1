"""From images of a user to finite features: what every metric of this package begins with."""

import keras
import numpy as np

from keras_sagan.checks import FilledRange, check_integer
from keras_sagan.metrics.progress import Progress


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
