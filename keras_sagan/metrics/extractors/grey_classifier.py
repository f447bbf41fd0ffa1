"""The classifier that measures 28 and 32 pixel grey images, with its shipped weights."""

import hashlib
import json
import pathlib

import keras

from keras_sagan.checks import check_choice

_SIZES = (28, 32)
_FEATURES = 128
_WEIGHTS = pathlib.Path(__file__).parent / "weights" / "grey_classifier.weights.h5"


def build_grey_classifier(image_size=32):
    """Builds the small convolutional network whose features measure grey images.

    Three convolutions, each with batch normalisation and a max-pool, then a dense layer of 128
    features and one of 10 logits: 188,714 parameters. The network works at 32 pixels: a 28 pixel
    input is framed by 2 pixels of black on each side, so the two sizes of one picture have the
    same features, and anything a generator leaves in that frame counts against it. All layers
    compute in float32 under every dtype policy, so that a distance doesn't depend on it.

    Args:
        image_size: Integer, 28 or 32. Height and width of the images. Defaults to `32`.

    Returns:
        An untrained functional `keras.Model` from float images in [-1, 1] of shape
        (batch, image_size, image_size, 1) to float32 logits of shape (batch, 10). The layer
        named `"features"` is the penultimate one.

    Raises:
        ValueError: If `image_size` isn't 28 or 32.

    Example:

    >>> build_grey_classifier(28).output_shape
    (None, 10)
    """
    image_size = check_choice("image_size", image_size, _SIZES)
    images = keras.Input((image_size, image_size, 1), dtype="float32", name="images")
    # Black becomes 0 before the frame is added, so that zero padding is black.
    x = keras.layers.Rescaling(0.5, offset=0.5, dtype="float32", name="unit_range")(images)
    if image_size == 28:
        x = keras.layers.ZeroPadding2D(2, dtype="float32", name="frame")(x)
    for index, filters in enumerate((32, 64, 64), start=1):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", use_bias=False, dtype="float32", name=f"conv_{index}"
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.95, dtype="float32", name=f"bn_{index}")(x)
        x = keras.layers.ReLU(dtype="float32", name=f"relu_{index}")(x)
        x = keras.layers.MaxPooling2D(2, dtype="float32", name=f"pool_{index}")(x)
    x = keras.layers.Flatten(dtype="float32", name="flatten")(x)
    x = keras.layers.Dense(_FEATURES, activation="relu", dtype="float32", name="features")(x)
    logits = keras.layers.Dense(10, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name="grey_classifier")


def load_grey_classifier(image_size=32):
    """Builds the grey classifier and loads the weights that ship with the package.

    They were trained by `examples/train_grey_classifier.py` on the 60,000 training images of
    Fashion-MNIST alone; the record beside the weights gives its accuracy on the 10,000 test
    images, the command, the seed and the versions. The file is checked against its SHA-256.

    Args:
        image_size: Integer, 28 or 32. Height and width of the images. Defaults to `32`.

    Returns:
        A functional `keras.Model`, as from `build_grey_classifier`, with the trained weights.

    Raises:
        ValueError: If `image_size` isn't 28 or 32, or the weights file is damaged.

    Example:

    >>> classifier = load_grey_classifier()
    >>> classifier.count_params()
    188714
    """
    model = build_grey_classifier(image_size)
    _verified_sha256()
    model.load_weights(_WEIGHTS)
    model.trainable = False
    return model


@keras.saving.register_keras_serializable(package="keras_sagan")
class GreyClassifierFeatures:
    """Feature extractor for 28 and 32 pixel grey images, ready for the Fréchet distance.

    It gives the 128 penultimate activations of `load_grey_classifier`, whose weights are read on
    the first call. A distance in these features is *not* comparable with one in Inception's:
    state `version` with every figure.

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, 28, 28, 1) or (batch, 32, 32, 1).

    Returns:
        Float32 tensor of shape (batch, 128), not negative. `named_outputs(images)` gives a
        dictionary of those `"features"` and of `"logits"` of shape (batch, 10).

    Raises:
        ValueError: On the first call, if the images have another shape or the weights are damaged.

    Example:

    >>> import numpy as np
    >>> extractor = GreyClassifierFeatures()
    >>> tuple(extractor(-np.ones((2, 28, 28, 1), "float32")).shape)
    (2, 128)
    """

    resize = "none"

    def __init__(self):
        self._models = {}

    @property
    def version(self):
        """String naming the extractor and the SHA-256 of its weights, for protocols."""
        return f"keras_sagan grey_classifier sha256:{_verified_sha256()}"

    def get_config(self):
        """Returns the arguments as a dictionary, for Keras to save."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Makes an extractor of what `get_config` returned."""
        return cls(**config)

    def __call__(self, images):
        return self.named_outputs(images)["features"]

    def named_outputs(self, images):
        """Returns `{"features": (batch, 128), "logits": (batch, 10)}`."""
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] not in _SIZES or shape[1:] != (shape[1], shape[1], 1):
            raise ValueError(
                "`images` must have shape (batch, 28, 28, 1) or (batch, 32, 32, 1). "
                f"Received: images.shape={shape}"
            )
        if shape[1] not in self._models:
            classifier = load_grey_classifier(shape[1])
            outputs = {name: classifier.get_layer(name).output for name in ("features", "logits")}
            self._models[shape[1]] = keras.Model(classifier.input, outputs)
        return self._models[shape[1]](images, training=False)


def _verified_sha256():
    """The SHA-256 of the shipped weights, or an error if it isn't the recorded one."""
    record = json.loads(_WEIGHTS.with_name("grey_classifier.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(_WEIGHTS.read_bytes()).hexdigest()
    if digest != record["sha256"]:
        raise ValueError(
            "The weights of the grey classifier are damaged: reinstall keras_sagan. Expected "
            f"SHA-256 {record['sha256']}. Received: {_WEIGHTS.name} with SHA-256 {digest}"
        )
    return digest
