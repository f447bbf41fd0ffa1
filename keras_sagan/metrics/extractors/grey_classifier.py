"""A classifier for evaluating gray images of 28 × 28 or 32 × 32 pixels, with trained weights."""

import hashlib
import json
import pathlib

import keras
from keras import layers

from keras_sagan.checks import check_choice
from keras_sagan.metrics.extraction import Extractor

_SIZES = (28, 32)
_WEIGHTS = pathlib.Path(__file__).parent / "weights" / "grey_classifier.weights.h5"


def build_grey_classifier(image_size: int = 32) -> keras.Model:
    """Builds the small convolutional network whose features are used to evaluate gray images.

    Three convolutions, each with batch normalization and max pooling, are followed by a dense layer
    with 128 features and a dense layer with 10 logits. The model has 188,714 parameters. A 28 × 28
    image is padded with 2 black pixels on each side, so it has the same features as the padded
    32 × 32 image. Anything that a generator draws in the border of a 32 × 32 image affects the
    score. All layers compute in float32 under every dtype policy.

    Args:
        image_size: The size of the images, 28 or 32. Other sizes raise a `ValueError`.

    Returns:
        An untrained functional model that maps float images in [-1, 1] of shape
        (batch, image_size, image_size, 1) to float32 logits of shape (batch, 10). The penultimate
        layer is named `"features"`.

    Example:
    >>> build_grey_classifier(28).output_shape
    (None, 10)
    """
    image_size = check_choice("image_size", image_size, _SIZES)
    kind = {"dtype": "float32"}
    images = keras.Input((image_size, image_size, 1), name="images", **kind)
    # Scale black to 0 before padding, so that the zero padding is black.
    x = layers.Rescaling(0.5, offset=0.5, name="unit_range", **kind)(images)
    if image_size == 28:
        x = layers.ZeroPadding2D(2, name="frame", **kind)(x)
    for i, filters in enumerate((32, 64, 64), start=1):
        conv = {"padding": "same", "use_bias": False, "name": f"conv_{i}", **kind}
        x = layers.Conv2D(filters, 3, **conv)(x)
        x = layers.BatchNormalization(momentum=0.95, name=f"bn_{i}", **kind)(x)
        x = layers.ReLU(name=f"relu_{i}", **kind)(x)
        x = layers.MaxPooling2D(2, name=f"pool_{i}", **kind)(x)
    x = layers.Flatten(name="flatten", **kind)(x)
    x = layers.Dense(128, activation="relu", name="features", **kind)(x)
    logits = layers.Dense(10, name="logits", **kind)(x)
    return keras.Model(images, logits, name="grey_classifier")


def load_grey_classifier(image_size: int = 32) -> keras.Model:
    """Returns the `build_grey_classifier` model with the weights that ship with the package.

    The weights were trained by `examples/train_grey_classifier.py` using only the 60,000 training
    images of Fashion-MNIST. A JSON file next to the weights records the accuracy on the 10,000 test
    images, the training command, the seed, the software versions and the weights' SHA-256. The
    SHA-256 is checked on loading.

    Args:
        image_size: The height and width of the images, 28 or 32.

    Raises:
        ValueError: If `image_size` isn't 28 or 32, or the weights file is damaged.

    Example:
    >>> load_grey_classifier().count_params()
    188714
    """
    model = build_grey_classifier(image_size)
    _verified_sha256()
    model.load_weights(_WEIGHTS)
    model.trainable = False
    return model


@keras.saving.register_keras_serializable(package="keras_sagan")
class GreyClassifierFeatures(Extractor):
    """Feature extractor for gray images of 28 × 28 or 32 × 32 pixels.

    The features are the 128 penultimate-layer activations of `load_grey_classifier`. The weights
    are read on the first call. Distances between these features *aren't* comparable with
    Inception-based distances, so report `version` with every score.

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, 28, 28, 1) or (batch, 32, 32, 1).

    Returns:
        Non-negative float32 tensor of shape (batch, 128). `named_outputs(images)` returns a
        dictionary with the `"features"` and the `"logits"` of shape (batch, 10).

    Raises:
        ValueError: When called, if the images have a different shape or the weights are damaged.

    Example:
    >>> import numpy as np
    >>> extractor = GreyClassifierFeatures()
    >>> tuple(extractor(-np.ones((2, 28, 28, 1), "float32")).shape)
    (2, 128)
    """

    resize = "none"

    @property
    def version(self) -> str:
        """The extractor's name and the SHA-256 of its weights."""
        return f"keras_sagan grey_classifier sha256:{_verified_sha256()}"

    def named_outputs(self, images: keras.KerasTensor) -> dict:
        """Returns a dictionary: `"features"` (batch, 128) and `"logits"` (batch, 10)."""
        shape = tuple(images.shape)
        if shape[1:] not in [(size, size, 1) for size in _SIZES]:
            raise ValueError(
                "`images` must have shape (batch, 28, 28, 1) or (batch, 32, 32, 1). "
                f"Received: images.shape={shape}"
            )
        border = (32 - shape[1]) // 2  # Pad with black, as in `build_grey_classifier`.
        sides = [(0, 0), (border, border), (border, border), (0, 0)]
        images = keras.ops.pad(images, sides, constant_values=-1.0)
        return self._load()(images, training=False)

    def _build(self):
        model = load_grey_classifier(32)
        outputs = {name: model.get_layer(name).output for name in ("features", "logits")}
        return keras.Model(model.input, outputs)


def _verified_sha256():
    """Returns the SHA-256 of the shipped weights, or raises an error if they are damaged."""
    record = json.loads(_WEIGHTS.with_name("grey_classifier.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(_WEIGHTS.read_bytes()).hexdigest()
    if digest != record["sha256"]:
        raise ValueError(
            "The weights of the grey classifier are damaged: reinstall keras_sagan. Expected "
            f"SHA-256 {record['sha256']}. Received: {_WEIGHTS.name} with SHA-256 {digest}"
        )
    return digest
