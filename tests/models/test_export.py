"""Each file by its own runtime."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import keras_sagan
from keras_sagan.models.export import FORMATS, export_generator


@pytest.fixture(scope="module", params=[3, None], ids=["classes", "unconditional"])
def model(request):
    maps = {"image_size": 8, "attention_resolutions": (4,)}
    model = keras_sagan.SAGAN.from_preset(
        "sagan_fashion_mnist_32", base_filters=4, num_classes=request.param, **maps
    )
    model.steps.assign(1)  # Before the first step, the average is a copy of the generator.
    rng = np.random.default_rng(0)
    for network in (model.generator, model.ema_generator):
        for weight in network.weights:
            if weight.name in ("gamma", "beta", "moving_mean"):
                weight.assign(rng.normal(1.0, 0.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    return export_generator(model, tmp_path_factory.mktemp("exported") / "new")


@pytest.mark.slow
def test_a_saved_model(model, files):
    path, difference = files["saved_model"]
    assert (path / "saved_model.pb").exists() and difference < 1e-5
    latents = np.random.default_rng(1).normal(size=(2, model.latent_dim)).astype("float32")
    inputs = latents if model.num_classes is None else [latents, np.int32([0, 2])]
    loaded = tf.saved_model.load(str(path))
    np.testing.assert_allclose(loaded.serve(inputs), model.ema_generator(inputs), atol=1e-5)


@pytest.mark.slow
def test_onnx(files):
    path, difference = files["onnx"]
    assert path.stat().st_size > 10_000 and difference < 1e-5


@pytest.mark.slow
def test_litert(model, files):
    path, difference = files["litert"]
    assert path.stat().st_size > 10_000 and difference < 1e-5
    slots = Interpreter(str(path)).get_input_details()
    assert len(slots) == len(model.generator.inputs)
    assert all(slot["shape_signature"][0] == -1 for slot in slots)  # Any batch.


@pytest.mark.slow
def test_a_difference_is_seen(model, tmp_path, monkeypatch):
    """The comparison is with the model, not of the file with itself."""
    from keras_sagan.models import export

    baked = export.bake_spectral_norm

    def wrong(network):
        copy = baked(network)
        copy.get_layer("last_conv").bias.assign([0.3])
        return copy

    monkeypatch.setattr(export, "bake_spectral_norm", wrong)
    assert export_generator(model, tmp_path, ["saved_model"])["saved_model"][1] > 1e-2


def test_bad_arguments(model, tmp_path):
    with pytest.raises(ValueError, match="`formats` must be among .*Received: formats=.'pickle'"):
        export_generator(model, tmp_path, ["pickle"])
    with pytest.raises(ValueError, match="`num_images` must be a positive integer.*num_images=0"):
        export_generator(model, tmp_path, num_images=0)


@pytest.mark.parametrize(
    "module, name", [("tf2onnx", "onnx"), ("ai_edge_litert.interpreter", "litert")]
)
def test_what_is_missing_is_said_first(model, tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'\npip install "\.\[export\]"$'):
        export_generator(model, tmp_path / "new", FORMATS if name == "onnx" else [name])
    assert not (tmp_path / "new").exists()
