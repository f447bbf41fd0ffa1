"""Normalized copies of models: their layers, weights, outputs and errors."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sagan.layers import (
    SelfAttention2D,
    SNConv1D,
    SNConv2D,
    SNConv2DTranspose,
    SNConv3D,
    SNDense,
    SNEmbedding,
    SpectralNorm,
)
from keras_sagan.models import apply_spectral_norm, bake_spectral_norm

RNG = np.random.default_rng(0)


def layers_in(model):
    return [x for x in model.layers if not isinstance(x, layers.InputLayer)]


def kinds(model):
    return [type(x) for x in layers_in(model)]


def names(model):
    return [x.name for x in layers_in(model)]


def outputs(model, *inputs):
    return ops.convert_to_numpy(model(inputs[0] if len(inputs) == 1 else list(inputs)))


def normalized_by_svd(model):
    """A plain copy, whose kernels are divided by their largest singular value."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for weight in copy.trainable_weights:
        value = ops.convert_to_numpy(weight)
        if weight.name.split("_")[-1] in ("kernel", "embeddings"):
            axis = -2 if "transpose" in weight.path else -1
            matrix = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
            weight.assign(value / np.linalg.svd(matrix, compute_uv=False)[0])
    return copy


class Doubled(layers.Dense):
    """A subclass, which a normalized layer can't replace."""

    def call(self, inputs):
        return 2.0 * super().call(inputs)


def every_kind():
    ids = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 6, name="table")(ids)
    x = layers.Conv1D(4, 3, padding="same")(x)
    x = layers.GRU(4, return_sequences=True)(x)
    x = layers.Reshape((2, 2, 4))(Doubled(4)(x))
    x = layers.LeakyReLU(0.2)(layers.Conv2D(3, 3, padding="same", use_bias=False)(x))
    x = layers.BatchNormalization()(layers.Conv2DTranspose(5, 2, strides=2)(x))
    x = layers.Conv3D(2, 2)(layers.Reshape((2, 2, 4, 5))(x))
    return keras.Model(ids, layers.Dense(2)(layers.Flatten()(x)), name="every_kind")


def test_every_kind_of_layer():
    model = every_kind()
    for weight in model.trainable_weights:
        weight.assign(RNG.normal(size=weight.shape))
    before = model.get_weights()
    copy = apply_spectral_norm(model)
    expected = [SNEmbedding, SNConv1D, SpectralNorm, SpectralNorm, layers.Reshape, SNConv2D]
    expected += [layers.LeakyReLU, SNConv2DTranspose, layers.BatchNormalization, layers.Reshape]
    assert kinds(copy) == [*expected, SNConv3D, layers.Flatten, SNDense]
    assert names(copy) == names(model)
    for received, wanted in zip(copy.trainable_weights, model.trainable_weights, strict=True):
        np.testing.assert_array_equal(received, wanted)
    ids = RNG.integers(0, 5, (3, 4))
    expected = outputs(normalized_by_svd(model), ids)
    np.testing.assert_allclose(outputs(copy, ids), expected, rtol=2e-3, atol=1e-4)
    baked = bake_spectral_norm(copy)
    assert kinds(baked) == kinds(model)
    assert names(baked) == names(model)
    np.testing.assert_allclose(outputs(baked, ids), outputs(copy, ids), atol=1e-5)
    for received, wanted in zip(model.get_weights(), before):
        np.testing.assert_array_equal(received, wanted)


def test_nested_and_shared_layers():
    """The outputs are 1 * 1 * 3 * 1: the weights 2 and 4 become 1, the excluded 3 stays."""
    shared, first, second = (
        layers.Dense(1, kernel_initializer=keras.initializers.Constant(value), use_bias=False)
        for value in (2.0, 3.0, 4.0)
    )
    inner = keras.Sequential([keras.Input((1,)), shared, first], name="inner")
    inner.compile(loss=lambda a, b: a)  # It can't be copied by its configuration.
    inputs = keras.Input((1,), name="x")
    model = keras.Model({"x": inputs}, {"y": second(inner(shared(inputs)))})
    copy = apply_spectral_norm(model, exclude=[first.name])
    assert len(copy.trainable_weights) == 3
    assert copy.get_layer("inner").get_layer(shared.name) is copy.get_layer(shared.name)
    assert not copy.compiled
    y = copy({"x": np.ones((1, 1), "float32")})["y"]
    np.testing.assert_allclose(ops.convert_to_numpy(y), [[3.0]], rtol=1e-6)


def small():
    images = keras.Input((4, 4, 8))
    x = SelfAttention2D(name="attention")(layers.Conv2D(8, 1, name="first")(images))
    x = SNConv2D(4, 1, name="second")(layers.Conv2D(8, 1, name="other")(x))
    x = layers.SpectralNormalization(layers.Conv2D(4, 1), name="of_keras")(x)
    return keras.Model(images, layers.Dense(1, name="last")(layers.ReLU(name="relu")(x)))


@pytest.mark.parametrize(
    "include, exclude, expected",
    [
        (None, None, {"first", "other", "last"}),
        (["last", layers.Conv2D], None, {"first", "other", "last"}),  # Not "second" again.
        (None, {layers.Conv2D}, {"last"}),
        ([layers.Conv2D], ("first", "relu"), {"other"}),
        ([], None, set()),
    ],
)
def test_selection(include, exclude, expected):
    model = small()
    copy = apply_spectral_norm(model, include, exclude)
    pairs = zip(layers_in(model), layers_in(copy), strict=True)
    assert {x.name for x, y in pairs if type(x) is not type(y)} == expected


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"include": ["no such"]}, "`include` must contain names or classes.*'no such' matches"),
        ({"exclude": ["no such"]}, "`exclude` must contain names or classes.*'no such' matches"),
        ({"exclude": [layers.GRU]}, "`exclude` must contain names or classes"),
        ({"include": [3]}, "`include` must contain names or classes"),
        ({"include": "first"}, "`include` must be a list"),
    ],
)
def test_wrong_selections(arguments, match):
    with pytest.raises(ValueError, match=match):
        apply_spectral_norm(small(), **arguments)


@pytest.mark.parametrize(
    "entry, cause",
    [
        ("relu", "must have kernels"),
        (layers.ReLU, "must have kernels"),
        ("second", "must not be spectrally normalized already"),
        ("attention", "must not be spectrally normalized already"),
        ("of_keras", "must not be spectrally normalized already"),
    ],
)
def test_layers_that_cannot_be_normalized(entry, cause):
    with pytest.raises(ValueError, match="`include` must contain layers that have.*Rec") as error:
        apply_spectral_norm(small(), include=[entry])
    assert cause in str(error.value.__cause__)


def nested():
    block = keras.Sequential([keras.Input((4, 3)), layers.Dense(3), layers.ReLU()], name="block")
    sequence = keras.Input((4, 3))
    x = layers.TimeDistributed(layers.Dense(2, name="inside"), name="outside")(block(sequence))
    return keras.Model(sequence, layers.Dense(1, name="last")(x))


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"exclude": ["block", "last"]}, {"SpectralNorm"}),
        ({"exclude": [keras.Sequential, "inside"]}, {"SNDense"}),
        ({"exclude": [layers.Dense]}, set()),
        ({"include": ["block"]}, {"SNDense"}),
        ({"include": ["inside"]}, {"SpectralNorm"}),
    ],
)
def test_selections_reach_nested_models_and_layers_in_others(arguments, expected):
    copy = apply_spectral_norm(nested(), **arguments)
    kinds = {type(x).__name__ for x in copy._flatten_layers()}
    assert kinds & {"SpectralNorm", "SNDense"} == expected


def test_quantized_and_adapted_models_are_refused():
    for method, argument in (("quantize", "int8"), ("enable_lora", 1)):
        dense = layers.Dense(2)
        model = keras.Sequential([keras.Input((3,)), dense])
        getattr(dense, method)(argument)
        with pytest.raises(ValueError, match="quantized|adapted by LoRA.*Received"):
            apply_spectral_norm(model)


def test_attention_without_spectral_norm():
    images = keras.Input((4, 2, 8))
    model = keras.Model(images, SelfAttention2D(use_spectral_norm=False)(images))
    model.layers[1].gamma.assign(1.0)
    copy = apply_spectral_norm(model)
    x = RNG.normal(size=(2, 4, 2, 8)).astype("float32")
    expected = outputs(normalized_by_svd(model), x)
    np.testing.assert_allclose(outputs(copy, x), expected, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(outputs(bake_spectral_norm(copy), x), expected, atol=5e-3)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def test_multi_head_attention_is_baked():
    """Its projections are layers in the layer."""
    x = keras.Input((3, 4))
    copy = apply_spectral_norm(keras.Model(x, layers.MultiHeadAttention(2, 2)(x, value=x)))
    baked = bake_spectral_norm(copy)
    assert kinds(copy) == [SpectralNorm] and kinds(baked) == [layers.MultiHeadAttention]
    x = RNG.normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_allclose(outputs(baked, x), outputs(copy, x), atol=1e-5)


class OwnCall(keras.Model):
    """A functional model, to whose outputs a subclass adds a step."""

    def __init__(self, **kwargs):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(2)(inputs), **kwargs)

    def call(self, inputs, training=False, mask=None):
        return ops.tanh(super().call(inputs, training=training))


@pytest.mark.parametrize("function", [apply_spectral_norm, bake_spectral_norm])
@pytest.mark.parametrize(
    "model", [Subclassed(), OwnCall(), keras.Sequential([layers.Dense(2)]), None]
)
def test_models_that_are_no_graphs(model, function):
    with pytest.raises(ValueError, match="`model` must be a functional or sequential Keras model"):
        function(model)


def test_a_nested_model_with_its_own_call_is_a_layer():
    x = keras.Input((3,))
    model = keras.Model(x, OwnCall()(x))
    copy, x = apply_spectral_norm(model), RNG.normal(size=(2, 3)).astype("float32")
    assert kinds(copy) == [SpectralNorm]
    np.testing.assert_allclose(outputs(bake_spectral_norm(model), x), outputs(model, x))
    np.testing.assert_allclose(outputs(bake_spectral_norm(copy), x), outputs(copy, x), atol=1e-6)


@pytest.mark.slow
def test_a_copy_can_be_saved_and_trained(tmp_path):
    copy = apply_spectral_norm(every_kind())
    ids = RNG.integers(0, 5, (3, 4))
    copy.compile("sgd", "mse", run_eagerly=True)
    copy.fit(ids, np.ones((3, 2)), verbose=0)
    copy.save(tmp_path / "model.keras")
    custom = {"Doubled": Doubled}
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=custom)
    np.testing.assert_allclose(outputs(loaded, ids), outputs(copy, ids), rtol=1e-5)
