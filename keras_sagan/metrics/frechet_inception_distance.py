"""The Fréchet Inception Distance as a Keras metric."""

import keras
import numpy as np

from keras_sagan.ops.frechet import compute_moments, covariance, frechet_distance, merge_moments


@keras.saving.register_keras_serializable(package="keras_sagan")
class FrechetInceptionDistance(keras.metrics.Metric):
    """Fréchet distance between the features of real and of generated images.

    Images of both kinds stream through `update_state`; only the float64 mean and covariance of
    their features are kept, on the host. A metric over a data set and not over a batch, it lives
    in a callback or a script: it can't run inside a compiled train step. Its value depends on
    the extractor, on the number of images and on which real ones were taken, so print `protocol`
    beside it. With the same images it equals TF-GAN's to 1e-5 relative.

    Args:
        feature_extractor: What turns images into features: a `TFGANInception`, a
            `GreyClassifierFeatures`, any Keras model, or any callable. It receives float32 in
            [-1, 1] of shape (batch, height, width, channels) and returns one tensor of shape
            (batch, ...), which is flattened to (batch, dim).
        value_range: Pair of floats `(low, high)`, the values that black and white have in *float*
            images, such as `(-1, 1)` or `(0, 255)`; there is no guessing. uint8 images are
            always in [0, 255]. Defaults to `None`: only uint8 images are accepted.
        name: String, the name of the metric. Defaults to `"fid"`.
        batch_size: Integer, how many images the extractor gets at once. Defaults to `64`.

    State:
        The moments of the real and of the generated features. They aren't saved with a model.

    Raises:
        ValueError: If an argument is invalid. `update_state` raises for images of the wrong rank,
            dtype or range, and for features that aren't finite or change their width; `result`
            if there are fewer than 2 images of either kind.

    Example:

    >>> import numpy as np
    >>> fid = FrechetInceptionDistance(lambda x: x[:, 0, 0], value_range=(-1, 1))
    >>> fid.update_state(np.array([-1.0, 1.0]).reshape(2, 1, 1, 1), real=True)
    >>> fid.update_state(np.array([-0.5, 0.5]).reshape(2, 1, 1, 1), real=False)
    >>> round(fid.result(), 6)  # (sqrt(2) - sqrt(1 / 2)) ** 2
    0.5

    Reference:
        Heusel et al. 2017,
        [GANs Trained by a Two Time-Scale Update Rule](https://arxiv.org/abs/1706.08500), eq. 6.
    """

    _direction = "down"  # read by `ModelCheckpoint(mode="auto")` and its like

    def __init__(self, feature_extractor, value_range=None, name="fid", batch_size=64):
        super().__init__(name=name)
        if not callable(feature_extractor):
            raise ValueError(
                "`feature_extractor` must be a Keras model or a callable on images. "
                f"Received: feature_extractor={feature_extractor!r}"
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                f"`batch_size` must be a positive integer. Received: batch_size={batch_size!r}"
            )
        self.feature_extractor = feature_extractor
        self.value_range = _checked_range(value_range)
        self.batch_size = batch_size
        self._moments = {"real": None, "generated": None}

    def update_state(self, images, real):
        """Adds images to the statistics of one side.

        Args:
            images: Array or tensor of shape (batch, height, width, channels), uint8 in [0, 255]
                or floats in `value_range`. A batch of no images changes nothing.
            real: Boolean, `True` for images of the data set, `False` for generated ones.
        """
        if not isinstance(real, (bool, np.bool_)):
            raise ValueError(f"`real` must be True or False. Received: real={real!r}")
        side = "real" if real else "generated"
        images = _to_numpy(images, "images")
        if images.ndim != 4:
            raise ValueError(
                "`images` must have shape (batch, height, width, channels). "
                f"Received: images.shape={images.shape}"
            )
        # Nothing is added before everything is checked: an error leaves the state as it was.
        images = self._to_model_space(images)
        moments = self._moments[side]
        for start in range(0, len(images), self.batch_size):
            features = self._extract(images[start : start + self.batch_size])
            known = self._moments["real"] or self._moments["generated"] or moments
            if known is not None and features.shape[1] != len(known.mean):
                raise ValueError(
                    "`feature_extractor` must give features of one width for all images; the "
                    f"images before gave {len(known.mean)}. Received: features of width "
                    f"{features.shape[1]} for {side} images of shape {images.shape[1:]}"
                )
            moments = merge_moments(moments, compute_moments(features))
        self._moments[side] = moments

    def result(self):
        """Returns the distance as a Python float, at least 0; lower is better."""
        counts = self.num_images
        if min(counts.values()) < 2:
            raise ValueError(
                "`update_state` must have seen at least 2 real and 2 generated images, the least "
                f"for a covariance. Received: {counts['real']} real, "
                f"{counts['generated']} generated"
            )
        real, generated = self._moments["real"], self._moments["generated"]
        return frechet_distance(real.mean, covariance(real), generated.mean, covariance(generated))

    def reset_state(self, reset_real=False):
        """Forgets the generated images and, if `reset_real`, the real ones too."""
        self._moments["generated"] = None
        if reset_real:
            self._moments["real"] = None

    @property
    def num_images(self):
        """Dictionary of the number of images seen: `"real"` and `"generated"`."""
        return {side: moments.count if moments else 0 for side, moments in self._moments.items()}

    @property
    def protocol(self):
        """Dictionary of what a reader must know beside the figure, ready for JSON."""
        extractor = self.feature_extractor
        described = getattr(extractor, "version", None) or getattr(extractor, "name", None)
        return {
            "metric": "Frechet distance of features, covariances with ddof=1, float64",
            "feature_extractor": str(described or type(extractor).__name__),
            "num_real": self.num_images["real"],
            "num_generated": self.num_images["generated"],
        }

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

    def _to_model_space(self, images):
        """float32 images in [-1, 1] from uint8 or from floats in `value_range`."""
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
        if images.size and not (images.min() >= low - slack and images.max() <= high + slack):
            raise ValueError(
                f"`images` must be finite and within value_range=({low:g}, {high:g}). Received: "
                f"images in [{images.min():g}, {images.max():g}]"
            )
        return np.clip((images - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0)

    def _extract(self, images):
        """Finite float64 features of shape (batch, dim)."""
        if isinstance(self.feature_extractor, keras.Model):
            features = self.feature_extractor(images, training=False)
        else:
            features = self.feature_extractor(images)
        features = _to_numpy(features, "feature_extractor")
        if features.ndim < 1 or len(features) != len(images) or not features.size:
            raise ValueError(
                f"`feature_extractor` must return features of shape ({len(images)}, ...) for "
                f"{len(images)} images. Received: features.shape={features.shape}"
            )
        features = features.reshape(len(images), -1).astype(np.float64)
        bad = int(np.count_nonzero(~np.isfinite(features).all(axis=1)))
        if bad:
            raise ValueError(
                "`feature_extractor` must return finite features. Received: features with NaN or "
                f"infinity for {bad} of {len(images)} images"
            )
        return features


def _to_numpy(value, name):
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
