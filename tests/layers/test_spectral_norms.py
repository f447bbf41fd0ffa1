"""`spectral_norms` of a model against `numpy.linalg.norm`."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_sagan import SNConv2D, SNDense, SNEmbedding
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


@pytest.mark.any_backend
def test_equal_names_in_two_nested_models():
    inputs = outputs = keras.Input((2,))
    models = []
    for name, scale in (("first", 1.0), ("second", 2.0)):
        ones = {"kernel_initializer": keras.initializers.Constant(scale)}
        x = layers.Dense(2, name="plain", **ones)(SNDense(2, name="dense", **ones)(inputs))
        models.append(keras.Model(inputs, x, name=name))
        outputs = models[-1](outputs)
    model = keras.Model(inputs, outputs)
    found = spectral_norms(model, normalized_only=False)
    expected = {"dense": 2.0, "plain": 2.0, "second/dense": 4.0, "second/plain": 4.0}
    assert found == pytest.approx(expected)
    shared = keras.Model(inputs, models[0](models[0](inputs)))
    assert set(spectral_norms(shared, normalized_only=False)) == {"dense", "plain"}


def test_a_kernel_that_is_not_finite_has_no_norm():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="dense")])
    model.layers[0].kernel.assign([[np.inf, 0.0], [0.0, 1.0]])
    assert np.isnan(spectral_norms(model, normalized_only=False)["dense"])
    assert spectral_norms(model) == {}


# Layers that divide by another number


def train(model, training):
    """A loop of one's own, by hand: the kernels leave where they started."""
    rng = np.random.default_rng(0)
    steps = [rng.normal(size=layer.kernel.shape) for layer in model.layers]
    for _ in range(30):
        for layer, step in zip(model.layers, steps):
            layer.kernel.assign(keras.ops.convert_to_numpy(layer.kernel) + 0.1 * step)
        model(np.ones((2, 60), "float32"), training=training)


def dense_model():
    return keras.Sequential([keras.Input((60,)), SNDense(40, name="one"), SNDense(30, name="two")])


@pytest.mark.any_backend
def test_it_warns_of_a_loop_that_never_trains():
    model = dense_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        spectral_norms(model)  # As built.
        train(model, training=True)
        spectral_norms(model)
    model = dense_model()
    train(model, training=False)
    with pytest.warns(UserWarning, match="more than 10 % off(.|\n)*`training=True`") as caught:
        norms = spectral_norms(model)
    (warning,) = (x for x in caught if "more than 10 % off" in str(x.message))
    assert warning.filename == __file__
    for layer in model.layers:
        exact = np.linalg.norm(keras.ops.convert_to_numpy(layer.kernel), 2)
        assert norms[layer.name] < 0.9 * exact
        said = f"`{layer.name}` by {norms[layer.name]:.4g} where it is {exact:.4g}"
        assert said in str(warning.message)


@pytest.mark.any_backend
@pytest.mark.parametrize("scale, warns", [(0.92, False), (0.88, True)])
@pytest.mark.parametrize("size", [(6, 4), (9 * 256, 256), (256, 9 * 256)])
def test_it_warns_from_ten_percent_on(size, scale, warns):
    layer = SNDense(size[1], name="dense")
    model = keras.Sequential([keras.Input((size[0],)), layer])
    kernel = np.zeros(size, "float32")
    kernel[0, 0], kernel[1, 1] = 2.0, 2.0 * scale  # u is exactly the second singular vector.
    layer.kernel.assign(kernel)
    layer.vector_u.assign(np.eye(size[1])[1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        assert spectral_norms(model)["dense"] == pytest.approx(2.0 * scale)
    messages = [str(x.message) for x in caught if "more than 10 % off" in str(x.message)]
    assert len(messages) == warns
    assert all(f"`dense` by {2.0 * scale:.4g} where it is 2" in message for message in messages)


@pytest.mark.any_backend
def test_kernels_of_zeros_or_not_finite_are_no_reason_to_warn():
    for value in (0.0, np.inf, np.nan):
        model = dense_model()
        model.layers[0].kernel.assign(np.full((60, 40), value))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            spectral_norms(model)
