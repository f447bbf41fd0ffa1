"""`spectral_norms` of a model against `numpy.linalg.norm`."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_sagan import SNConv2D, SNEmbedding
from keras_sagan.layers import spectral_norms


def nested():
    inner = keras.Sequential([keras.Input((8, 8, 3)), SNConv2D(4, 3, name="conv")], name="inner")
    images = keras.Input((8, 8, 3))
    x = layers.Flatten()(inner(images))
    ids = keras.Input((), dtype="int32")
    rows = SNEmbedding(5, 2, name="rows")(ids)
    plain = layers.Embedding(3, 6, name="plain")(ids)
    outputs = layers.Dense(2, name="wide")(x)
    return keras.Model([images, ids], [outputs, rows, plain])


def test_every_kernel_of_a_nested_model():
    model = nested()
    for _ in range(80):
        model([np.zeros((1, 8, 8, 3)), np.zeros(1, "int32")], training=True)
    expected = {
        weight.path.rpartition("/")[0]: np.linalg.norm(
            keras.ops.convert_to_numpy(weight).reshape(-1, weight.shape[-1]), 2
        )
        for weight in model.weights
        if weight.name in ("kernel", "embeddings")
    }
    found = spectral_norms(model, normalized_only=False)
    assert len(found) == 4 and found == pytest.approx(expected, rel=1e-3)
    plain = {name: found[name] for name in ("wide", "plain")}
    assert plain == pytest.approx({name: expected[name] for name in plain}, rel=1e-6)
    normalized = spectral_norms(model)
    assert set(found) - set(normalized) == {"wide", "plain"}


def test_a_kernel_that_is_not_finite_has_no_norm():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="dense")])
    model.layers[0].kernel.assign([[np.inf, 0.0], [0.0, 1.0]])
    assert np.isnan(spectral_norms(model, normalized_only=False)["dense"])
    assert spectral_norms(model) == {}
