"""`model.export(format="litert")` of networks as they are, run by LiteRT's own interpreter."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan.layers import SelfAttention2D, SNConv2D
from keras_sagan.models.export import run_litert

pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert.interpreter")
pytestmark = pytest.mark.slow


def convolutions():
    steps = [SNConv2D(4, 3), SNConv2D(3, 3, padding="same", activation="relu")]
    steps += [SNConv2D(3, 3, padding="same", resample=x) for x in ("up", "down")]
    return keras.Sequential([keras.Input((None, None, 2)), *steps])


def attention(**arguments):
    model = keras.Sequential([keras.Input(tiny.SHAPE), SelfAttention2D(2, **arguments)])
    model.layers[0].gamma.assign(2.0)
    return model


MODELS = {
    "convolutions of maps of any size": convolutions,
    "attention in blocks": lambda: attention(query_chunk_size=10, use_spectral_norm=False),
    "generator": tiny.build_generator,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_interpreter_gives_what_keras_gives(name, tmp_path):
    model = MODELS[name]()
    rng = np.random.default_rng(0)
    values = {1: tiny.labels(3), 2: rng.normal(size=(3, 3)), 4: tiny.images(3)}
    inputs = [values[len(x.shape)].astype(x.dtype) for x in model.inputs]
    expected = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    arguments = {}
    if None in model.inputs[0].shape[1:]:
        arguments["input_signature"] = [keras.InputSpec("float32", (None, *tiny.SHAPE))]
    model.export(tmp_path / "model.tflite", format="litert", verbose=False, **arguments)
    found = run_litert(tmp_path / "model.tflite", inputs)
    assert found.shape == expected.shape
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
