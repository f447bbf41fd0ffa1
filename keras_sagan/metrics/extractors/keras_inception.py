"""Keras's own InceptionV3 as a feature extractor."""

import os

import keras

from keras_sagan.metrics.extractors.resizing import check_resize, resize_images, to_rgb
from keras_sagan.metrics.report import weights_sha256

_IMAGE_SIZE = 299


@keras.saving.register_keras_serializable(package="keras_sagan")
class KerasInceptionV3:
    """Feature extractor: the average pool of `keras.applications.InceptionV3`, 2048 numbers.

    *Another protocol than TF-GAN's*: the network was trained anew and has 1000 classes, so its
    distances and scores can't be compared with published ones. It is for where TF-Hub can't be
    reached, and its name stands in every report. Nothing is downloaded or built before the first
    call.

    Args:
        weights: `"imagenet"`, the path of a weights file, or `None` for random weights, which is
            for tests. Defaults to `"imagenet"`.
        resize: String, `"antialiased"` or, on the TensorFlow backend alone, `"tfgan"`. Defaults to
            `"antialiased"`.

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, height, width, 1 or 3), any size.

    Returns:
        Float32 tensor of shape (batch, 2048). `named_outputs(images)` gives a dictionary of
        `"features"` and `"logits"`.

    Raises:
        ValueError: If an argument is invalid, or on a call for images of another shape or dtype.
        RuntimeError: On the first call, if the weights can't be had.

    Example:

    ```python
    fid = FrechetInceptionDistance(KerasInceptionV3())
    ```

    Reference:
        Szegedy et al. 2016, [Rethinking the Inception
        Architecture](https://arxiv.org/abs/1512.00567).
    """

    def __init__(self, weights="imagenet", resize="antialiased"):
        if weights is not None and not isinstance(weights, (str, os.PathLike)):
            raise ValueError(
                f'`weights` must be "imagenet", a path or None. Received: weights={weights!r}'
            )
        check_resize(resize)
        backend = keras.backend.backend()
        if resize == "tfgan" and backend != "tensorflow":
            raise ValueError(
                '`resize` must be "antialiased" on other backends than TensorFlow, which alone has '
                f"TensorFlow 1's pixel grid. Received: resize='tfgan' on the {backend} backend"
            )
        self.weights = None if weights is None else str(weights)
        self.resize = resize
        self._network = None

    @property
    def version(self):
        """String naming the network, the resize method and the SHA-256 of its weights."""
        digest = weights_sha256(self._load())
        return f"keras.applications.InceptionV3 resize={self.resize} avg_pool sha256:{digest}"

    def get_config(self):
        """Returns the arguments as a dictionary, for Keras to save."""
        return {"weights": self.weights, "resize": self.resize}

    @classmethod
    def from_config(cls, config):
        """Makes an extractor of what `get_config` returned."""
        return cls(**config)

    def __call__(self, images):
        return self.named_outputs(images)["features"]

    def named_outputs(self, images):
        """Returns `{"features": (batch, 2048), "logits": (batch, 1000)}`."""
        images = resize_images(to_rgb(images), _IMAGE_SIZE, self.resize)
        return self._load()(images, training=False)

    def _load(self):
        if self._network is None:
            try:
                network = keras.applications.InceptionV3(
                    weights=self.weights and os.path.expanduser(self.weights),
                    classifier_activation=None,
                )
            except Exception as error:
                raise RuntimeError(
                    f"`weights` can't be loaded ({type(error).__name__}: {error}). Without a "
                    "network: download Keras's inception_v3_weights_tf_dim_ordering_tf_kernels.h5 "
                    f"elsewhere and pass its path. Received: weights={self.weights!r}"
                ) from error
            outputs = {"features": network.get_layer("avg_pool").output, "logits": network.output}
            self._network = keras.Model(network.input, outputs, name="inception_v3")
            self._network.trainable = False  # PyTorch keeps nothing for gradients then.
        return self._network
