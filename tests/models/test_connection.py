"""Networks that don't make a GAN are refused when the model is built."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import layers, ops

from keras_sagan import SAGAN, SNEmbedding


def discriminator(outputs_of):
    images = keras.Input(tiny.SHAPE)
    return keras.Model(images, outputs_of(images))


def dense(units):
    return lambda images: layers.Dense(units)(layers.Flatten()(images))


def sagan_with(outputs_of):
    return SAGAN(tiny.build_generator(None), discriminator(outputs_of), tiny.LATENT_DIM)


class TwoHeads(keras.Model):
    """As written by subclassing: adversarial and auxiliary logits."""

    def __init__(self):
        super().__init__()
        self.flatten, self.one, self.other = layers.Flatten(), layers.Dense(1), layers.Dense(4)

    def call(self, images, training=False):
        x = self.flatten(images)
        return self.one(x), self.other(x)


@pytest.mark.parametrize(
    "outputs_of, received",
    [
        (lambda x: [dense(1)(x), dense(1)(x)], r"a list of outputs.*\[\(None, 1\), \(None, 1\)\]"),
        (lambda x: [dense(1)(x), dense(5)(x)], r"a list of outputs.*\(None, 5\)"),
        (lambda x: {"logits": dense(1)(x), "class": dense(5)(x)}, "a dict of outputs.*'class'"),
        (dense(2), r"outputs of shape \(None, 2\)"),
        (lambda x: layers.Conv2D(2, 3)(x), r"outputs of shape \(None, 6, 6, 2\)"),
        (lambda x: layers.Conv2D(2, 8)(x), r"outputs of shape \(None, 1, 1, 2\)"),
        (lambda x: ops.mean(dense(1)(x), 0, keepdims=True), r"outputs of shape \(1, 1\)"),
        (lambda x: ops.mean(dense(1)(x)), r"outputs of shape \(\)"),
    ],
    ids=[
        "two heads",
        "unequal heads",
        "dict",
        "two logits",
        "two maps",
        "two heads as one place",
        "one row for all",
        "one for all",
    ],
)
def test_outputs_that_are_not_one_logit(outputs_of, received):
    with pytest.raises(ValueError, match=f"(?s)`discriminator` must return one logit.*{received}"):
        sagan_with(outputs_of)


def test_subclassed_discriminator_with_two_heads():
    with pytest.raises(ValueError, match="must return one logit.*a tuple of outputs"):
        SAGAN(tiny.build_generator(None), TwoHeads(), tiny.LATENT_DIM)


@pytest.mark.parametrize(
    "outputs_of",
    [
        dense(1),
        lambda x: ops.squeeze(dense(1)(x), -1),
        lambda x: layers.Conv2D(1, 3)(x),
        lambda x: layers.Permute((3, 1, 2))(layers.Conv2D(1, 3)(x)),
        lambda x: layers.Reshape((36, 1))(layers.Conv2D(1, 3)(x)),
    ],
    ids=["column", "vector", "map", "channels first", "places"],
)
def test_one_logit_for_an_image_or_a_place_trains(outputs_of):
    model = sagan_with(outputs_of)
    model.compile(**tiny.sgd(), run_eagerly=True)
    logs = model.train_on_batch(tiny.images(4), return_dict=True)
    assert np.isfinite(list(logs.values())).all()


def labelled(look_up, kind="generator", batch_size=None):
    """A network whose labels go through `look_up`."""
    labels = keras.Input((), batch_size, dtype="int32")
    rows = look_up(labels)
    if kind == "generator":
        latents = keras.Input((tiny.LATENT_DIM,), batch_size)
        x = layers.Dense(128, activation="tanh")(layers.Concatenate()([latents, rows]))
        return keras.Model([latents, labels], layers.Reshape(tiny.SHAPE)(x))
    images = keras.Input(tiny.SHAPE, batch_size)
    x = layers.Concatenate()([layers.Flatten()(images), rows])
    return keras.Model([images, labels], layers.Dense(1)(x))


TABLES = {
    "Embedding": lambda x: layers.Embedding(10, 4, name="table")(x),
    "SNEmbedding": lambda x: SNEmbedding(10, 4, name="table")(x),
    "of rank 2": lambda x: layers.Flatten()(
        layers.Embedding(10, 4, name="table")(layers.Reshape((1,))(x))
    ),
    "CategoryEncoding": lambda x: layers.CategoryEncoding(10, output_mode="one_hot", name="table")(
        x
    ),
    "one_hot": lambda x: ops.one_hot(x, 10),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", ["generator", "discriminator"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_more_classes_than_a_table_has(table, kind, batch_size):
    look_up = {kind: TABLES[table]}
    networks = {
        name: labelled(look_up.get(name, layers.Embedding(20, 4)), name, batch_size)
        for name in ("generator", "discriminator")
    }
    match = f"`num_classes` must be at most 10.*of the {kind}.*Received: num_classes=20"
    with pytest.raises(ValueError, match=match):
        SAGAN(**networks, latent_dim=tiny.LATENT_DIM, num_classes=20)
    SAGAN(**networks, latent_dim=tiny.LATENT_DIM, num_classes=10)


@pytest.mark.parametrize("num_classes", [6, 10**9])
def test_more_classes_than_conditional_batch_norm_has(num_classes):
    with pytest.raises(ValueError, match="`num_classes` must be at most 5.*`norm`"):
        SAGAN(tiny.build_generator(5), tiny.build_discriminator(5), tiny.LATENT_DIM, num_classes)


def test_a_table_of_places_is_not_one_of_labels():
    def rows(labels):
        places = layers.Embedding(2, 4)(ops.arange(2))  # A position embedding.
        return layers.Embedding(10, 4)(labels) + ops.sum(places, axis=0, keepdims=True)

    networks = labelled(rows), labelled(rows, "discriminator")
    assert SAGAN(*networks, tiny.LATENT_DIM, num_classes=10).num_classes == 10


def test_labels_of_an_adapted_vocabulary():
    """A copy lacks it: the averaged generator, and the networks of `from_model`."""
    lookup = layers.IntegerLookup(name="lookup")
    lookup.adapt(np.arange(10))
    networks = [
        labelled(lambda x: layers.Embedding(11, 4)(lookup(x)), name)
        for name in ("generator", "discriminator")
    ]
    model = SAGAN(*networks, tiny.LATENT_DIM, num_classes=10)
    match = "`vocabulary` of lookup in .* must be a list"
    with pytest.raises(ValueError, match=match):
        SAGAN(*networks, tiny.LATENT_DIM, num_classes=10, ema_momentum=0.9)
    for num_classes in ("same", 9):
        with pytest.raises(ValueError, match=match):
            SAGAN.from_model(model, num_classes)


class Coarse(keras.Model):
    def call(self, inputs, training=False, mask=None):
        return super().call([inputs[0], inputs[1] // 2], training=training)


def test_a_call_of_its_own_may_change_the_labels():
    network = labelled(TABLES["Embedding"])
    generator = Coarse(network.inputs, network.outputs[0])
    discriminator = labelled(layers.Embedding(20, 4), "discriminator")
    with pytest.warns(UserWarning, match="must be at most 10.*If the layer takes no labels"):
        SAGAN(generator, discriminator, tiny.LATENT_DIM, num_classes=20)


@pytest.mark.parametrize("name", ["OneHot", "Embedding", "CategoryEncoding"])
def test_layers_of_users_with_the_name_of_a_table(name):
    """They needn't have the attributes of Keras's layers."""
    kind = type(name, (layers.Layer,), {"call": lambda self, x: ops.one_hot(x, 10)})
    networks = labelled(lambda x: kind()(x)), labelled(lambda x: kind()(x), "discriminator")
    model = SAGAN(*networks, tiny.LATENT_DIM, num_classes=10)
    assert SAGAN.from_model(model, num_classes=9).num_classes == 9


def test_a_table_of_super_classes():
    """A coarser class, computed of the label, has a smaller table."""

    def rows(labels):
        return layers.Embedding(2, 4)(ops.floor_divide(labels, 5))

    networks = labelled(rows), labelled(rows, "discriminator")
    assert SAGAN(*networks, tiny.LATENT_DIM, num_classes=10).num_classes == 10


class NoKwargs(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense, self.reshape = layers.Dense(128), layers.Reshape(tiny.SHAPE)

    def call(self, latents, training=False):
        return self.reshape(self.dense(latents))


def with_lambda():
    latents = keras.Input((tiny.LATENT_DIM,))
    x = layers.Reshape(tiny.SHAPE)(layers.Dense(128)(latents))
    return keras.Model(latents, layers.Lambda(lambda x: ops.tanh(x))(x))


@pytest.mark.parametrize("build", [NoKwargs, with_lambda])
def test_networks_that_cannot_be_copied(build):
    networks = build(), tiny.build_discriminator(None)
    match = r"(?s)`generator` must be a network that can be copied for `{}`.*`\*\*kwargs`.*Received"
    with pytest.raises(ValueError, match=match.format("ema_momentum` or `ema_half_life")):
        SAGAN(*networks, tiny.LATENT_DIM, ema_momentum=0.9)
    model = SAGAN(*networks, tiny.LATENT_DIM)
    for num_classes in ("same", 3) if build is with_lambda else ("same",):
        with pytest.raises(ValueError, match=match.format("from_model")):
            SAGAN.from_model(model, num_classes)
