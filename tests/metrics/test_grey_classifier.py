"""The shipped classifier: its accuracy, its sizes, its record."""

import hashlib
import json
import pathlib

import keras
import numpy as np
import pytest

from keras_sagan.data import load_fashion_mnist, pad_to_32
from keras_sagan.metrics import (
    GreyClassifierFeatures,
    build_grey_classifier,
    load_grey_classifier,
)
from keras_sagan.metrics.extractors import grey_classifier

WEIGHTS = pathlib.Path(grey_classifier.__file__).parent / "weights"


@pytest.fixture(scope="module")
def images():
    """uint8 images and labels of the shipped test split."""
    return load_fashion_mnist()


def to_model_space(images):
    return images.astype("float32") / 127.5 - 1.0


@pytest.mark.slow
def test_accuracy_on_the_shipped_images(images):
    logits = load_grey_classifier(28).predict(to_model_space(images[0]), 500, verbose=0)
    accuracy = np.mean(np.argmax(logits, axis=1) == images[1])
    record = json.loads((WEIGHTS / "grey_classifier.json").read_text())
    assert accuracy >= 0.91
    assert accuracy == pytest.approx(record["test_accuracy"], abs=2e-3)


def test_record_and_size_of_the_weights():
    weights = WEIGHTS / "grey_classifier.weights.h5"
    record = json.loads((WEIGHTS / "grey_classifier.json").read_text())
    assert weights.stat().st_size < 1_000_000
    assert record["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["parameters"] == build_grey_classifier().count_params()
    for key in ("seed", "command", "epochs", "versions", "test_images"):
        assert key in record
    assert record["sha256"] in GreyClassifierFeatures().version


def test_both_sizes_of_a_picture_have_the_same_features(images):
    small = images[0][:16]
    extractor = GreyClassifierFeatures()
    first = keras.ops.convert_to_numpy(extractor(to_model_space(small)))
    second = keras.ops.convert_to_numpy(extractor(to_model_space(pad_to_32(small))))
    assert first.shape == (16, 128) and first.dtype == np.float32
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def test_dirt_in_the_frame_counts(images):
    clean = to_model_space(pad_to_32(images[0][:16]))
    dirty = clean.copy()
    dirty[:, :2] = 1.0
    extractor = GreyClassifierFeatures()
    difference = keras.ops.convert_to_numpy(extractor(clean) - extractor(dirty))
    assert np.abs(difference).max() > 0.1


def test_features_do_not_depend_on_the_dtype_policy(images):
    batch = to_model_space(images[0][:8])
    expected = keras.ops.convert_to_numpy(GreyClassifierFeatures()(batch))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        result = GreyClassifierFeatures()(batch)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(result), expected)


def test_weights_are_read_on_the_first_call_only(monkeypatch):
    monkeypatch.setattr(grey_classifier, "_WEIGHTS", pathlib.Path("nowhere.weights.h5"))
    extractor = GreyClassifierFeatures()
    with pytest.raises(FileNotFoundError):
        extractor(np.zeros((1, 28, 28, 1), "float32"))


def test_damaged_weights_are_refused(monkeypatch, tmp_path):
    for path in WEIGHTS.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "grey_classifier.weights.h5"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    monkeypatch.setattr(grey_classifier, "_WEIGHTS", damaged)
    with pytest.raises(ValueError, match="weights of the grey classifier are damaged.*Received"):
        load_grey_classifier()


@pytest.mark.parametrize("image_size", [30, "28", None])
def test_other_sizes_are_refused(image_size):
    with pytest.raises(ValueError, match="`image_size` must be 28 or 32. Received: image_size="):
        build_grey_classifier(image_size)


@pytest.mark.parametrize("shape", [(2, 30, 30, 1), (2, 28, 28, 3), (2, 28, 32, 1), (28, 28, 1)])
def test_images_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`images` must have shape .*Received: images.shape="):
        GreyClassifierFeatures()(np.zeros(shape, "float32"))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch traces nothing here.")
def test_a_first_call_within_a_traced_function_loads_the_weights(images):
    if keras.backend.backend() == "tensorflow":
        from tensorflow import function as trace
    else:
        from jax import jit as trace
    few = to_model_space(pad_to_32(images[0][:3]))
    expected = keras.ops.convert_to_numpy(GreyClassifierFeatures()(few))
    extractor = GreyClassifierFeatures()
    for call in (trace(lambda x: extractor(x)), extractor):
        found = keras.ops.convert_to_numpy(call(keras.ops.convert_to_tensor(few)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
