"""Keras's own InceptionV3 as a feature extractor."""

from pathlib import Path

import keras

from keras_sagan.checks import check_choice, check_path
from keras_sagan.metrics.extraction import Extractor
from keras_sagan.metrics.extractors.resizing import RESIZE_METHODS, resize_images, to_rgb
from keras_sagan.metrics.report import weights_sha256


@keras.saving.register_keras_serializable(package="keras_sagan")
class KerasInceptionV3(Extractor):
    """Feature extractor: the 2048 average-pooled features of `keras.applications.InceptionV3`.

    *This isn't TF-GAN's protocol*: the network was trained separately and has 1000 classes, so its
    scores aren't comparable with published scores. Use this extractor where TF-Hub can't be
    reached; every report states the extractor's name. Nothing is downloaded or built before the
    first call.

    Args:
        weights: `"imagenet"`, the path of a weights file, or `None` for random weights (in tests).
        resize: `"antialiased"`, or `"tfgan"` as in TF-GAN.

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, height, width, 1 or 3). Any image size is
            allowed.

    Returns:
        Float32 tensor of shape (batch, 2048). `named_outputs(images)` returns a dictionary with
        `"features"` and `"logits"`.

    Raises:
        ValueError: If an argument is invalid; when called, if images have the wrong shape or dtype.
        RuntimeError: On the first call, if the weights can't be loaded.

    Reference: [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567).
    """

    arguments = ("weights", "resize")

    def __init__(self, weights: str | Path | None = "imagenet", resize: str = "antialiased"):
        self.weights = check_path("weights", weights, optional=True)
        self.resize = check_choice("resize", resize, RESIZE_METHODS)

    @property
    def version(self) -> str:
        """The network's name, the resize method and the SHA-256 of the weights."""
        digest = weights_sha256(self._load())
        return f"keras.applications.InceptionV3 resize={self.resize} avg_pool sha256:{digest}"

    def named_outputs(self, images: keras.KerasTensor) -> dict:
        """Returns a dictionary: `"features"` (batch, 2048) and `"logits"` (batch, 1000)."""
        images = resize_images(to_rgb(images), 299, self.resize)
        return self._load()(images, training=False)

    def _build(self):
        try:
            network = keras.applications.InceptionV3(
                weights=self.weights, classifier_activation=None
            )
        except Exception as error:
            raise RuntimeError(
                f"`weights` can't be loaded ({type(error).__name__}: {error}). If this machine "
                "is offline, download inception_v3_weights_tf_dim_ordering_tf_kernels.h5 of "
                f"Keras elsewhere and pass its path. Received: weights={self.weights!r}"
            ) from error
        outputs = {"features": network.get_layer("avg_pool").output, "logits": network.output}
        return keras.Model(network.input, outputs, name="inception_v3")
