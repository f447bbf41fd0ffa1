"""Baked networks compute the same and need nothing of the package."""

import sys

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import layers

from keras_sagan import (
    ConditionalBatchNorm,
    ConditionalGroupNorm,
    ConditionalLayerNorm,
    SelfAttention2D,
    SNConv2D,
    SNDense,
    SNEmbedding,
    build_discriminator,
    build_generator,
)
from keras_sagan.layers import (
    DifferentiableAugmentation,
    SelfAttention1D,
    SelfAttention3D,
    SpectralNorm,
)
from keras_sagan.models import apply_spectral_norm, bake_spectral_norm

RNG = np.random.default_rng(0)


def stirred(model):
    """A model whose every weight has some value, as after training."""
    for weight in model.weights:
        value = RNG.normal(0.0, 0.3, weight.shape)
        if "variance" in weight.name or "vector_u" in weight.name:
            value = np.abs(value) + 0.1
        if "vector_u" in weight.name:
            value /= np.linalg.norm(value)
        weight.assign(value)
    return model


def inputs_of(model, count=3):
    made = []
    for x in model.inputs:
        shape = (count, *x.shape[1:])
        is_label = "int" in x.dtype
        made.append(RNG.integers(0, 4, shape) if is_label else RNG.normal(size=shape))
    return [
        x.astype("int32" if "int" in i.dtype else "float32") for x, i in zip(made, model.inputs)
    ]


def assert_baked(model, atol=1e-5):
    baked = bake_spectral_norm(model)
    assert not [x for x in baked._flatten_layers() if type(x).__module__.startswith("keras_sagan")]
    inputs = inputs_of(model)
    inputs = inputs if len(inputs) > 1 else inputs[0]
    expected, found = (keras.ops.convert_to_numpy(x(inputs)) for x in (model, baked))
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=atol * scale)
    assert np.ptp(expected) > 1e-3
    return baked


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [4, None])
@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_both_networks(build, num_classes):
    model = build(32, base_filters=4, num_classes=num_classes, attention_resolutions=(16,))
    assert_baked(stirred(model))


@pytest.mark.parametrize(
    "attention",
    [
        {"pool_size": 1, "value_reduction": 8},
        {"use_spectral_norm": False},
        {"power_iterations": 2, "num_heads": 2, "scores": "cosine"},
    ],
)
def test_kinds_of_attention(attention):
    images = keras.Input((8, 4, 16))
    assert_baked(stirred(keras.Model(images, SelfAttention2D(**attention)(images))))


@pytest.mark.parametrize(
    "layer, num_conditions",
    [
        (SelfAttention2D(), 0),
        (ConditionalBatchNorm(condition_dim=2), 1),
        (SNConv2D(2, 1, resample="down"), 0),
    ],
)
def test_one_layer_on_maps_of_two_sizes(layer, num_conditions):
    inputs = [keras.Input((8, 4, 16)), keras.Input((2,))]
    maps = inputs[0], layers.AveragePooling2D(2)(inputs[0])
    conditions = inputs[1 : 1 + num_conditions]
    pooled = [layers.GlobalMaxPooling2D()(layer(x, *conditions)) for x in maps]
    assert_baked(stirred(keras.Model(inputs, layers.Concatenate()(pooled))))


@pytest.mark.parametrize(
    "cls, shape", [(SelfAttention1D, (6, 16)), (SelfAttention3D, (2, 4, 2, 16))]
)
def test_attention_over_sequences_and_volumes(cls, shape, tmp_path):
    inputs = keras.Input(shape)
    baked = assert_baked(stirred(keras.Model(inputs, cls(num_heads=2, scores="l2")(inputs))))
    baked.save(tmp_path / "baked.keras")
    x = inputs_of(baked)[0]
    again = keras.saving.load_model(tmp_path / "baked.keras")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(m(x)) for m in (baked, again)))


def test_attention_over_volumes_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((2, 4, 2, 16))
    model = stirred(keras.Model(inputs, SelfAttention3D()(inputs)))
    x = RNG.normal(size=(1, 2, 4, 2, 16)).astype("float32")
    outputs = [keras.ops.convert_to_numpy(m(x)) for m in (model, bake_spectral_norm(model))]
    np.testing.assert_allclose(*outputs, rtol=2e-2, atol=2e-2)


def test_channels_first_attention():
    images = keras.Input((16, 8, 4))
    norm = ConditionalBatchNorm(1, axis=1)(images)
    model = stirred(keras.Model(images, SelfAttention2D(data_format="channels_first")(norm)))
    baked = bake_spectral_norm(model)
    x = RNG.normal(size=(2, 16, 8, 4)).astype("float32")
    if keras.backend.backend() == "tensorflow":  # Its convolutions on the CPU are channels last.
        last = keras.Input((8, 4, 16))
        y = ConditionalBatchNorm(1)(last)
        twin = keras.Model(last, SelfAttention2D()(y))
        for one, other in zip(twin.weights, model.weights):
            one.assign(other)
        expected = np.moveaxis(np.asarray(twin(np.moveaxis(x, 1, 3))), 3, 1)
    else:
        expected = model(x)
    np.testing.assert_allclose(np.asarray(baked(x)), expected, atol=1e-5)


def test_layers_that_are_shared_nested_and_used_by_keyword():
    images, labels = keras.Input((4, 4, 3)), keras.Input((), dtype="int32")
    inner = keras.Sequential([keras.Input((4, 4, 3)), SNConv2D(3, 3, padding="same")])
    shared, norm = SNConv2D(3, 1), ConditionalBatchNorm(4)
    x = shared(inner(shared(images)))
    x = norm(norm(x, labels=labels), labels)
    x = SNDense(2, use_bias=False)(layers.Flatten()(x)) + SNEmbedding(4, 2)(labels)
    assert_baked(stirred(keras.Model([images, labels], x)))


def test_other_norms_and_vectors():
    images, labels = keras.Input((4, 4, 6)), keras.Input((), dtype="int32")
    vectors = keras.Input((2,))
    x = ConditionalGroupNorm(4, groups=3)(images, labels)
    x = ConditionalBatchNorm(condition_dim=2)(x, labels=vectors)
    x = ConditionalGroupNorm(groups=-1, axis=1, condition_dim=2)(x, vectors)
    x = ConditionalLayerNorm(1)(x)
    assert_baked(stirred(keras.Model([images, labels, vectors], x)))


@pytest.mark.parametrize("settings", [{"equality_constrained": False}, {"epsilon": 1e-3}])
def test_settings_of_the_norm(settings):
    model = keras.Sequential([keras.Input((5,)), SNDense(3, **settings, activation="tanh")])
    assert_baked(stirred(model))


def test_in_half_precision_it_is_near():
    keras.config.set_dtype_policy("mixed_float16")
    model = build_generator(32, base_filters=4, num_classes=4, attention_resolutions=(16,))
    baked = bake_spectral_norm(model)
    assert {x.compute_dtype for x in baked.layers if "conv" in x.name} == {"float16"}
    inputs = inputs_of(model)
    np.testing.assert_allclose(baked(inputs), model(inputs), atol=2e-2)


@pytest.mark.parametrize("copied", [bake_spectral_norm, apply_spectral_norm])
def test_adapted_normalization(copied):
    norm = layers.Normalization()
    norm.adapt(np.array([[100.0], [102.0]], "float32"))
    inner = keras.Sequential([keras.Input((2, 1)), layers.TimeDistributed(norm)])
    model = keras.Sequential([keras.Input((2, 1)), inner, SNDense(1, kernel_initializer="ones")])
    found = keras.ops.convert_to_numpy(copied(model)(np.array([[[102.0], [100.0]]], "float32")))
    np.testing.assert_allclose(found, [[[1.0], [-1.0]]], atol=1e-5)


@pytest.mark.parametrize("kind", [layers.IntegerLookup, layers.TextVectorization])
@pytest.mark.parametrize("copied", [bake_spectral_norm, apply_spectral_norm])
def test_vocabularies(copied, kind):
    dtype = "int32" if kind is layers.IntegerLookup else "string"
    layer = kind(name="the_layer")
    layer.adapt(np.array([[7], [9]]).astype("str" if dtype == "string" else dtype))
    inputs = keras.Input((1,), dtype=dtype)
    with pytest.raises(ValueError, match="`vocabulary` of the_layer in .* must be a list"):
        copied(keras.Model(inputs, layer(inputs)))
    vocabulary = layer.get_vocabulary()[2 if dtype == "string" else 1 :]
    copied(keras.Model(inputs, kind(vocabulary=vocabulary)(inputs)))


def test_the_model_is_left_as_it_was():
    model = tiny.build_generator()
    before = tiny.weights(model)
    bake_spectral_norm(model)
    for received, wanted in zip(tiny.weights(model), before):
        np.testing.assert_array_equal(received, wanted)
    assert isinstance(model.get_layer("start"), SNDense)


def test_a_saved_copy_loads_without_the_package(tmp_path, monkeypatch):
    model = tiny.build_generator()
    model.save(tmp_path / "model.keras")
    bake_spectral_norm(model).save(tmp_path / "baked.keras")
    for name in [x for x in sys.modules if x.split(".")[0] == "keras_sagan"]:
        monkeypatch.setitem(sys.modules, name, None)
    registered = keras.saving.get_custom_objects()
    for name in list(registered):
        monkeypatch.delitem(registered, name)
    with pytest.raises(TypeError, match="Could not locate class"):
        keras.saving.load_model(tmp_path / "model.keras")
    baked, inputs = keras.saving.load_model(tmp_path / "baked.keras"), inputs_of(model)
    np.testing.assert_allclose(baked(inputs), model(inputs), atol=1e-5)


class Wrapped(layers.Layer):
    def build(self, input_shape):
        self.inner = SNDense(2)
        self.inner.build(input_shape)

    def call(self, x):
        return self.inner(x)


class Subclass(SNDense):
    pass


def test_augmentation_is_the_identity():
    images = keras.Input((8, 8, 3))
    x = DifferentiableAugmentation("translation")(images)
    assert_baked(stirred(keras.Model(images, SNConv2D(2, 3)(x))))


def test_what_cannot_be_baked():
    with pytest.raises(ValueError, match="`model` must be a functional or sequential Keras model"):
        bake_spectral_norm(keras.Sequential([SNDense(2)]))
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match="`model` must have.*of type SNDense in the_layer"):
        bake_spectral_norm(keras.Model(inputs, Wrapped(name="the_layer")(inputs)))
    with pytest.raises(ValueError, match="`model` must have.*the_layer of type Subclass"):
        bake_spectral_norm(keras.Model(inputs, Subclass(2, name="the_layer")(inputs)))
    images = keras.Input((None, None, 16))
    with pytest.raises(ValueError, match="feature maps of known size before attention"):
        bake_spectral_norm(keras.Model(images, SelfAttention2D()(images)))
    images = keras.Input((4, 4, 16))
    sparse = SelfAttention2D(pattern="ylg", num_heads=4, key_reduction=4)
    with pytest.raises(ValueError, match='attention layers with pattern="dense".*ylg'):
        bake_spectral_norm(keras.Model(images, sparse(images)))
    outputs, _ = SelfAttention2D()(images, return_attention_scores=True)
    with pytest.raises(ValueError, match="must not call SelfAttention2D with return_attention"):
        bake_spectral_norm(keras.Model(images, outputs))


def test_a_baked_wrapper_keeps_its_name():
    x = inputs = keras.Input((3,))
    for index in range(2):
        x = SpectralNorm(layers.Dense(3, name="dense"), name=f"normalized_{index}")(x)
    baked = bake_spectral_norm(keras.Model(inputs, x))
    assert [x.name for x in baked.layers[1:]] == ["normalized_0", "normalized_1"]
    assert all(type(x) is layers.Dense for x in baked.layers[1:])
