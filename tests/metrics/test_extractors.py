"""Extractors by name: resizing, Keras's Inception, two outputs of one pass."""

import keras
import numpy as np
import pytest

from keras_sagan import metrics
from keras_sagan.metrics.extractors.resizing import resize_images
from keras_sagan.metrics.report import describe_extractor

tf = pytest.importorskip("tensorflow")


def images_of(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def to_numpy(outputs):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return metrics.KerasInceptionV3(weights=None)


def test_antialiased_means_that_every_pixel_counts():
    images = np.zeros((1, 8, 8, 1), "float32")
    images[0, 1, 1] = 1.0  # between the pixels that a factor of 4 looks at
    assert np.sum(to_numpy(resize_images(images, 2, "tfgan"))) == 0.0
    resized = to_numpy(resize_images(images, 2, "antialiased"))
    assert resized.sum() == pytest.approx(1 / 16, abs=0.03)


@pytest.mark.parametrize("size", [(1, 7), (75, 64), (300, 500)])
def test_tfgan_equals_tensorflow_1_on_every_backend(size):
    images = images_of((2, *size, 3))
    result = to_numpy(resize_images(images, 75, "tfgan"))
    expected = tf.compat.v1.image.resize_bilinear(images, (75, 75))
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 7), (64, 64), (300, 500)])
def test_antialiased_equals_tensorflow_on_every_backend(size):
    images = images_of((2, *size, 3))
    result = to_numpy(resize_images(images, 75, "antialiased"))
    expected = tf.image.resize(images, (75, 75), antialias=True)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_antialiased_equals_pillow():
    image_module = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(0).random((40, 40)).astype("float32")
    expected = image_module.fromarray(image).resize((15, 15), image_module.Resampling.BILINEAR)
    result = to_numpy(resize_images(image[None, ..., None], 15, "antialiased"))[0, ..., 0]
    np.testing.assert_allclose(result, np.asarray(expected), atol=1e-5)


def test_other_methods_are_refused():
    for build in (metrics.TFGANInception, metrics.KerasInceptionV3):
        with pytest.raises(ValueError, match="`resize` must be .*Received: resize='nearest'"):
            build(resize="nearest")
    with pytest.raises(ValueError, match='`resize` must be "tfgan" or "antialiased"'):
        resize_images(np.zeros((1, 2, 2, 1)), 2, "nearest")


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a network of Keras's own")
def test_keras_inception_gives_both_outputs_of_the_network(network):
    images = images_of((2, 40, 40, 1))
    outputs = to_numpy(network.named_outputs(images))
    assert outputs["features"].shape == (2, 2048) and outputs["logits"].shape == (2, 1000)
    np.testing.assert_allclose(to_numpy(network(images)), outputs["features"], rtol=1e-6)
    rgb = np.repeat(images, 3, axis=-1)
    expected = network._network(tf.image.resize(rgb, (299, 299), antialias=True).numpy())
    np.testing.assert_allclose(outputs["features"], to_numpy(expected)["features"], atol=1e-5)
    # Logits, not probabilities.
    assert np.abs(np.sum(outputs["logits"], axis=1) - 1.0).min() > 1e-3


def test_keras_inception_is_named_as_a_protocol_of_its_own(monkeypatch):
    inputs = keras.Input((299, 299, 3))
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(inputs)
    small = keras.Model(inputs, keras.layers.Dense(4)(x))
    monkeypatch.setattr(keras.applications, "InceptionV3", lambda **given: small)
    network = metrics.KerasInceptionV3(weights=None)
    text = describe_extractor(network)
    assert text.startswith("keras.applications.InceptionV3 resize=antialiased avg_pool sha256:")
    assert metrics.KerasInceptionV3.from_config(network.get_config()).weights is None
    shapes = {name: x.shape for name, x in network.named_outputs(images_of((2, 8, 8, 1))).items()}
    assert shapes == {"features": (2, 3), "logits": (2, 4)}


def test_keras_inception_is_built_on_first_use_and_says_what_is_missing(monkeypatch):
    extractor = metrics.KerasInceptionV3("nowhere.h5")
    with pytest.raises(RuntimeError, match="`weights` can't be loaded.*'nowhere.h5'"):
        extractor(images_of((1, 8, 8, 3)))

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(keras.applications, "InceptionV3", offline)
    with pytest.raises(RuntimeError, match="no route to host.*download inception_v3"):
        metrics.KerasInceptionV3()(images_of((1, 8, 8, 3)))


def test_weights_of_the_wrong_type_are_refused():
    with pytest.raises(ValueError, match="`weights` must be .*Received: weights=3"):
        metrics.KerasInceptionV3(3)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((8, 8, 3), "float32"), r"`images` must have shape.*\(8, 8, 3\)"),
        (np.zeros((1, 8, 8, 3), "uint8"), "`images` must be floats .*uint8"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        metrics.KerasInceptionV3()(images)


def test_the_grey_classifier_gives_features_and_logits_of_one_pass():
    extractor, images = metrics.GreyClassifierFeatures(), images_of((3, 28, 28, 1))
    outputs = to_numpy(extractor.named_outputs(images))
    expected = to_numpy(metrics.load_grey_classifier(28)(images))
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)
    np.testing.assert_allclose(outputs["features"], to_numpy(extractor(images)), atol=1e-6)


def test_a_keras_model_is_named_with_the_digest_of_its_weights():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="mine")
    first = describe_extractor(model)
    assert first.startswith("mine sha256:")
    model.layers[0].bias.assign([1.0])
    assert describe_extractor(model) != first
