"""`SAGAN.interpolate`: the ends, the middle, what moves, and that the model stays as it was."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import layers

from keras_sagan import SAGAN, ConditionalBatchNorm, SNEmbedding
from keras_sagan.models.sampling import mixed_class
from keras_sagan.ops.latent import slerp

LATENTS = np.random.default_rng(3).standard_normal((4, tiny.LATENT_DIM)).astype("float32")


@pytest.fixture(scope="module")
def model():
    model = tiny.build_sagan(ema_momentum=0.5)
    for network in (model.generator, model.ema_generator):  # All classes are alike at first.
        norm = network.get_layer("norm")
        for seed, table in enumerate((norm.gamma, norm.beta)):
            table.assign(np.random.default_rng(seed).normal(1.0, 0.7, table.shape))
    return model


@pytest.mark.slow
def test_latents_go_along_the_arc_and_classes_stay(model):
    images = model.interpolate(2, 3, [4, 1], latents=LATENTS[:2], to_latents=LATENTS[2:])
    assert images.shape == (2, 3, *tiny.SHAPE) and images.dtype == np.uint8
    for row, label in enumerate((4, 1)):
        path = slerp(LATENTS[row], LATENTS[row + 2], [0.0, 0.5, 1.0])
        expected = model.generate(3, label, latents=path)
        np.testing.assert_allclose(images[row].astype(int), expected.astype(int), atol=1)


@pytest.mark.parametrize("use_ema", [True, False])
def test_classes_go_while_latents_stay(model, use_ema):
    before = tiny.weights(model)
    images = model.interpolate(2, 3, [0, 3], [2, 0], latents=LATENTS[:2], use_ema=use_ema).astype(
        int
    )
    for column, labels in ((0, [0, 3]), (2, [2, 0])):
        ends = model.generate(2, labels, latents=LATENTS[:2], use_ema=use_ema)
        np.testing.assert_allclose(images[:, column], ends.astype(int), atol=1)
    assert np.abs(images[:, 1] - images[:, 0]).max() > 3
    for received, wanted in zip(tiny.weights(model), before):
        np.testing.assert_array_equal(received, wanted)


def test_the_middle_has_the_mean_of_the_tables(model):
    norm = model.generator.get_layer("norm")
    table = norm.gamma.numpy()
    with mixed_class(model.generator, 1, 4, 0.5):
        np.testing.assert_allclose(norm.gamma.numpy()[1], (table[1] + table[4]) / 2, rtol=1e-6)
        np.testing.assert_array_equal(norm.gamma.numpy()[[0, 2, 3, 4]], table[[0, 2, 3, 4]])
    with pytest.raises(RuntimeError, match="inside"):
        with mixed_class(model.generator, 1, 4, 0.5):
            raise RuntimeError("inside")
    np.testing.assert_array_equal(norm.gamma.numpy(), table)


def test_a_seed_determines_it_and_classes_are_spread(model):
    one, other = (model.interpolate(5, 2, seed=9) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    rng = np.random.default_rng(9)
    start = rng.standard_normal((5, tiny.LATENT_DIM), dtype="float32")
    expected = model.generate(5, [0, 1, 2, 3, 4], latents=start)
    np.testing.assert_allclose(one[:, 0].astype(int), expected.astype(int), atol=1)


def test_a_plain_embedding_is_mixed_too():
    latents, labels = keras.Input((2,)), keras.Input((), dtype="int32")
    rows = layers.Embedding(3, 4 * 4, name="rows")(labels)
    x = layers.Add()([layers.Dense(4 * 4)(latents), rows])
    generator = keras.Model([latents, labels], layers.Reshape((4, 4, 1))(x))
    images = keras.Input((4, 4, 1))
    logits = layers.Add()(
        [layers.Dense(1)(layers.Flatten()(images)), layers.Embedding(3, 1)(labels)]
    )
    model = SAGAN(generator, keras.Model([images, labels], logits), 2, 3)
    generator.get_layer("rows").embeddings.assign(np.repeat([[-0.8], [0.0], [0.8]], 16, axis=1))
    walk = model.interpolate(1, 3, 0, 2, latents=np.zeros((1, 2)))
    np.testing.assert_allclose(walk[0, :, 0, 0, 0], [26, 128, 229], atol=1)


def test_unconditional():
    model = tiny.build_sagan(num_classes=None)
    assert model.interpolate(1, 2).shape == (1, 2, *tiny.SHAPE)
    for name in ("labels", "to_labels"):
        with pytest.raises(ValueError, match=f"`{name}` must not be given"):
            model.interpolate(1, 2, **{name: 0})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rows": 0}, "`rows` must be an integer of at least 1. Received: rows=0"),
        ({"steps": 1}, "`steps` must be an integer of at least 2. Received: steps=1"),
        ({"rows": 2, "labels": [0]}, "`labels` must be one class id or 2.*1 labels"),
        ({"rows": 2, "to_labels": [0, 1, 2]}, "`to_labels` must be one class id or 2.*3 labels"),
        ({"labels": 9}, "labels"),
        ({"latents": np.zeros((1, 3))}, r"`latents` must have shape \(4, 3\)"),
        ({"to_latents": np.zeros((4, 2))}, r"`to_latents` must have shape \(4, 3\)"),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.interpolate(**arguments)


def test_a_generator_whose_classes_cannot_be_mixed():
    labels = keras.Input((), dtype="int32")
    network = keras.Model(labels, SNEmbedding(3, 2)(labels))
    with pytest.raises(ValueError, match="`to_labels` needs a generator that keeps its classes in"):
        with mixed_class(network, 0, 1, 0.5):
            pass


def beside_a_norm(x, labels):
    """The classes reach the generator by a second path, which isn't mixed."""
    x = layers.Concatenate()([x, keras.ops.one_hot(labels, 3)])
    return ConditionalBatchNorm(3)(layers.Dense(16)(x), labels)


def of_places(x, labels, size=16):
    x = layers.Add()([x, layers.Embedding(size, 16)(keras.ops.cast(x[:, 0] * 0, "int32"))])
    return ConditionalBatchNorm(3)(x, labels)


def of_few_places(x, labels):
    return of_places(x, labels, 2)


@pytest.mark.parametrize("classes", [beside_a_norm, of_places, of_few_places])
def test_a_generator_that_keeps_classes_elsewhere_too(classes):
    latents, labels = keras.Input((2,)), keras.Input((), dtype="int32")
    x = classes(layers.Dense(16)(latents), labels)
    generator = keras.Model([latents, labels], layers.Reshape((4, 4, 1))(x))
    images = keras.Input((4, 4, 1))
    logits = layers.Dense(1)(layers.Flatten()(images))
    logits = layers.Add()([logits, layers.Embedding(3, 1)(labels)])
    model = SAGAN(generator, keras.Model([images, labels], logits), 2, 3)
    for table in (x for x in generator.weights if x.name == "embeddings"):
        table.assign(10 * table)
    with pytest.raises(ValueError, match="`to_labels` needs a generator that keeps its classes in"):
        model.interpolate(2, 2, [0, 0], [0, 2], latents=np.ones((2, 2)))
