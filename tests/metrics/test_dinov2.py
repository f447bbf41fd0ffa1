"""DINOv2 of keras-hub: a stand-in of the same signature, and random weights where it is there."""

import sys
import types

import keras
import numpy as np
import pytest

from keras_sagan.metrics import DINOv2Features


class Backbone(keras.Model):
    """Its class token is the image itself; its other token is zero."""

    def __init__(self, image_shape=None, **options):
        super().__init__()
        assert image_shape == (224, 224, 3) and options["dtype"] == "float32"

    @classmethod
    def from_preset(cls, preset, **options):
        assert preset == "dinov2_large"
        return cls(**options)

    def call(self, inputs, training=None):
        assert training is False
        token = keras.ops.reshape(inputs["images"], (-1, 1, 224 * 224 * 3))
        return keras.ops.concatenate([token, keras.ops.zeros_like(token)], axis=1)


def stand_in(monkeypatch):
    module = types.ModuleType("keras_hub")
    module.models = types.SimpleNamespace(DINOV2Backbone=Backbone)
    monkeypatch.setitem(sys.modules, "keras_hub", module)


def test_images_are_prepared_as_in_dgm_eval(monkeypatch):
    image_module = pytest.importorskip("PIL.Image")
    stand_in(monkeypatch)
    # Bicubic resizing overshoots at edges; here it stays in the range of pixels.
    pixels = np.random.default_rng(0).integers(64, 192, (40, 40, 3)).astype("uint8")
    extractor = DINOv2Features()
    result = keras.ops.convert_to_numpy(extractor(pixels[None] / np.float32(127.5) - 1))
    resized = image_module.fromarray(pixels).resize((224, 224), image_module.Resampling.BICUBIC)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (np.asarray(resized) / 255.0 - mean) / std
    # Pillow rounds to whole pixels.
    np.testing.assert_allclose(result.reshape(224, 224, 3), expected, atol=1.1 / 255 / 0.224)
    edges = np.where(pixels < 128, np.float32(-1), np.float32(1))
    result = keras.ops.convert_to_numpy(extractor(edges[None])).reshape(224, 224, 3)
    np.testing.assert_allclose(result.max((0, 1)), (1.0 - mean) / std, rtol=1e-5)  # Clipped.
    assert extractor.version.startswith("DINOv2 dinov2_large resize=antialiased bicubic class tok")


@pytest.mark.slow
def test_random_weights():
    pytest.importorskip("keras_hub")
    extractor = DINOv2Features(preset=None)
    features = keras.ops.convert_to_numpy(extractor(np.zeros((2, 30, 20, 1), "float32")))
    assert features.shape == (2, 32)
    # The last layer normalizes the token, and its scale is 1 at first.
    np.testing.assert_allclose(features.mean(1), 0.0, atol=1e-5)
    np.testing.assert_allclose(features.std(1), 1.0, atol=1e-2)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match="\npip install keras-hub"):
        DINOv2Features()(np.zeros((1, 8, 8, 3), "float32"))
