"""Models that start from others, with the classes changed, and blocks that stay as they are."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import ops

from keras_sagan import SAGAN, ConditionalGroupNorm, ConditionalLayerNorm
from keras_sagan.models import preset_settings

NETWORKS = ("generator", "discriminator")
LATENTS = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")


def small(num_classes, **arguments):
    arguments = {"image_size": 8, "attention_resolutions": (4,), "latent_dim": 6, **arguments}
    return SAGAN.from_preset(
        "sagan_fashion_mnist_32", base_filters=4, num_classes=num_classes, seed=1, **arguments
    )


def changed(model):
    """Weights as if it were trained: each class has its own."""
    rng = np.random.default_rng(1)
    for network in (model.generator, model.discriminator):
        for variable in network.trainable_variables:
            variable.assign(variable + rng.normal(0.0, 0.1, variable.shape))
    return model


@pytest.fixture(scope="module")
def conditional():
    return changed(small(4))


@pytest.fixture(scope="module")
def unconditional():
    return changed(small(None))


def values(network):
    return {x.path: ops.convert_to_numpy(x) for x in network.variables}


@pytest.mark.parametrize("before, after", [(4, 7), (4, None), (None, 3)])
def test_weights_that_fit_are_taken_and_others_listed(request, before, after):
    source = request.getfixturevalue("conditional" if before else "unconditional")
    with pytest.warns(UserWarning, match=f"weights don't fit num_classes={after} and are new"):
        model = SAGAN.from_model(source, after)
    expected, new = small(after), []
    assert model.num_classes == after and model.d_steps == source.d_steps
    for name in NETWORKS:
        old, found = values(getattr(source, name)), values(getattr(model, name))
        shapes = {path: x.shape for path, x in values(getattr(expected, name)).items()}
        assert {path: x.shape for path, x in found.items()} == shapes
        for path, value in found.items():
            if path in old and old[path].shape == value.shape and "label" not in path:
                np.testing.assert_array_equal(value, old[path])
                continue
            new.append(f"{name}/{path}")
            if path in old and "vector_u" not in path:
                mean = old[path].astype("float64").mean(axis=0)
                for row in value:
                    np.testing.assert_allclose(row, mean, atol=1e-6)
    assert sorted(model.new_weights) == sorted(new) and new
    model.compile()
    labels = None if after is None else [0, after - 1]
    assert model.generate(2, labels).shape == (2, 8, 8, 1)


def test_the_classes_of_a_model_without_begin_as_its_images(unconditional):
    with pytest.warns(UserWarning, match="are new"):
        model = SAGAN.from_model(unconditional, num_classes=3)
    expected = unconditional.generate(2, latents=LATENTS)
    for label in range(3):
        np.testing.assert_array_equal(model.generate(2, label, latents=LATENTS), expected)


def test_a_model_without_classes_loses_the_projection_only(conditional):
    with pytest.warns(UserWarning, match="are new"):
        model = SAGAN.from_model(conditional, num_classes=None)
    images = np.random.default_rng(2).uniform(-1, 1, (2, 8, 8, 1)).astype("float32")
    inputs = conditional.discriminator.inputs
    expected = keras.Model(inputs, conditional.discriminator.get_layer("logits").output)
    expected = expected([images, np.zeros(2, "int32")])
    found = model.discriminator(images)
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (found, expected)), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_from_a_file_with_the_same_classes_and_other_settings(conditional, tmp_path, recwarn):
    conditional.save(tmp_path / "model.keras")
    model = SAGAN.from_model(tmp_path / "model.keras", ema_half_life=100.0, top_k=0.5, seed=3)
    assert model.new_weights == [] and not [x for x in recwarn if "are new" in str(x.message)]
    assert (model.ema_momentum, model.ema_half_life, model.top_k, model.seed) == (None, 100, 0.5, 3)
    assert int(model.steps.numpy()) == 0
    pictures = [x.generate(2, 1, latents=LATENTS) for x in (conditional, model)]
    np.testing.assert_array_equal(*pictures)
    model.generator.get_layer("start").bias.assign(ops.ones(4 * 4 * 16))
    np.testing.assert_array_equal(conditional.generate(2, 1, latents=LATENTS), pictures[0])


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"image_size": 32}, "`from_model` copies the networks.*Received: image_size=32"),
        ({"discriminator": None}, "`from_model` copies the networks.*Received: discriminator=None"),
        ({"latent_dim": 8}, "`generator` must take latents of shape .batch, 8"),
        ({"steps": 8}, "Unrecognized keyword arguments.*steps"),
        ({"num_classes": 0}, '`num_classes` must be a positive integer, None or "same"'),
        ({"model": 3}, "`model` must be a SAGAN, or the path.*Received: model=3"),
        ({"freeze_discriminator": 9}, "`freeze_discriminator` must be a number of blocks"),
    ],
)
def test_what_cannot_be_changed(conditional, arguments, match):
    with pytest.raises(ValueError, match=match):
        SAGAN.from_model(**{"model": conditional, **arguments})


def test_networks_of_ones_own():
    with pytest.warns(UserWarning, match="are new"):
        model = SAGAN.from_model(tiny.build_sagan(), num_classes=2)
    assert model.discriminator.get_layer("rows").input_dim == 2
    with pytest.warns(UserWarning, match="are new"):
        assert SAGAN.from_model(tiny.build_sagan(), None).generate(1).shape == (1, *tiny.SHAPE)
    with pytest.raises(ValueError, match="`num_classes` must be that of the model.*labels"):
        SAGAN.from_model(tiny.build_small_sagan(), None)


@pytest.mark.slow
def test_other_conditional_norms():
    """Labels select rows of a table there too; a norm of vectors has no table of classes."""
    latents, labels = keras.Input((4,)), keras.Input((), dtype="int32")
    x = keras.layers.Reshape(tiny.SHAPE)(keras.layers.Dense(int(np.prod(tiny.SHAPE)))(latents))
    x = ConditionalLayerNorm(condition_dim=4)(x, latents)
    x = ConditionalGroupNorm(5, groups=1, name="norm")(x, labels)
    x = keras.layers.Activation("tanh")(x)
    generator = keras.Model([latents, labels], x)
    generator.get_layer("norm").beta.assign(np.arange(5.0).repeat(tiny.SHAPE[-1]).reshape(5, -1))
    discriminator = tiny.build_discriminator(5)
    with pytest.raises(
        ValueError, match="`num_classes` must be at most 5, .* in `norm` of the gen"
    ):
        SAGAN(generator, tiny.build_discriminator(6), 4, 6)
    model = SAGAN(generator, discriminator, 4, 5)
    with pytest.warns(UserWarning, match="are new"):
        other = SAGAN.from_model(model, num_classes=2)
    np.testing.assert_array_equal(ops.convert_to_numpy(other.generator.get_layer("norm").beta), 2.0)
    mixed = model.interpolate(1, 2, labels=0, to_labels=1, latents=np.ones((1, 4)))[0, 1]
    expected = model.generate(1, 1, latents=np.ones((1, 4)))[0]
    np.testing.assert_allclose(mixed.astype(int), expected.astype(int), atol=1)


@keras.saving.register_keras_serializable(package="tests")
class Block(keras.layers.Layer):
    """A layer whose configuration has no name, so that a copy gets a new name."""

    def __init__(self, units, name=None):
        super().__init__(name=name)
        self.units = units
        self.first, self.second = keras.layers.Dense(8), keras.layers.Dense(units)

    def call(self, x):
        return self.second(self.first(x))

    def get_config(self):
        return {"units": self.units}


class NamedBlock(Block):
    def get_config(self):
        return {"units": self.units, "name": self.name}


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [Block(128), keras.layers.Dense(128), keras.layers.Reshape(tiny.SHAPE)]

    def call(self, x, training=False):
        for part in self.parts:
            x = part(x)
        return x


def nested():
    """Sequential blocks that are built when they are called have other paths in a copy."""
    latents = keras.Input((4,))
    first, last = (keras.Sequential([keras.layers.Dense(x), Block(x)]) for x in (8, 128))
    images = keras.layers.Reshape(tiny.SHAPE)(Block(128)(last(first(latents))))
    return keras.Model(latents, images)


@pytest.mark.parametrize("build", [nested, Subclassed])
def test_weights_whose_paths_differ_in_a_copy(build):
    source = changed(SAGAN(build(), tiny.build_discriminator(None), 4))
    model, latents = SAGAN.from_model(source), np.ones((2, 4))
    assert model.new_weights == []
    pictures = [x.generate(2, latents=latents) for x in (source, model)]
    np.testing.assert_array_equal(*pictures)


def test_layers_in_layers_keep_their_weights_when_classes_are_added():
    images = keras.Input(tiny.SHAPE)
    x = NamedBlock(8)(keras.layers.Flatten()(images))
    discriminator = keras.Model(images, keras.layers.Dense(1)(x))
    source = changed(SAGAN(tiny.build_generator(None), discriminator, tiny.LATENT_DIM))
    with pytest.warns(UserWarning, match="are new"):
        model = SAGAN.from_model(source, num_classes=3)
    new = [path for path in model.new_weights if path.startswith("discriminator")]
    assert new == ["discriminator/label_embedding/embeddings"]


# Frozen blocks


@pytest.mark.slow
def test_frozen_blocks_stay_and_the_rest_trains(tmp_path):
    model = small(4, freeze_discriminator=1, d_steps=1)
    model.compile(*(keras.optimizers.SGD(0.1) for _ in range(2)), run_eagerly=True)
    before = values(model.discriminator)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)).astype("float32")
    model.train_on_batch(images, np.arange(4))
    still = {k for k, x in values(model.discriminator).items() if np.array_equal(x, before[k])}
    assert {k for k in before if k.startswith("block_1_")} <= still
    moved = {"label_embedding/embeddings", "logits/kernel", "block_2_conv_1/kernel"}
    assert not still & (moved | {"block_2_conv_1/vector_u"})
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.freeze_discriminator == 1
    layers = [x for x in again.discriminator.layers if x.weights]
    frozen = [x.name for x in layers if not x.trainable]
    assert frozen == [x.name for x in layers if x.name.startswith("block_1_")] and frozen
    thawed = SAGAN.from_model(again, freeze_discriminator=0)
    assert all(x.trainable for x in thawed.discriminator.layers if x.weights)


def test_attention_below_a_frozen_block_is_frozen_too():
    model = small(None, image_size=16, attention_resolutions=(8,), freeze_discriminator=2)
    frozen = {x.name for x in model.discriminator.layers if x.weights and not x.trainable}
    assert "attention_8" in frozen
    assert not any(name.startswith(("block_3", "logits")) for name in frozen)


def test_a_discriminator_without_blocks():
    with pytest.raises(ValueError, match=r"`freeze_discriminator` must .*=1 for the blocks \[\]"):
        tiny.build_sagan(freeze_discriminator=1)


def test_one_average_takes_the_place_of_the_other():
    model = small(None, ema_half_life=50.0)
    assert (model.ema_momentum, model.ema_half_life) == (None, 50.0)
    assert "ema_momentum" in preset_settings("sagan_fashion_mnist_32")
    with pytest.raises(ValueError, match="`ema_momentum` and `ema_half_life` must not be given"):
        small(None, ema_half_life=50.0, ema_momentum=0.5)
