"""Data and networks that would train without a word and come to nothing: training says so."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_networks as tiny
from keras import layers, ops

from keras_sagan import SAGAN

IMAGES = tiny.images(16)
HALVES = {"[0, 1]": (IMAGES + 1) / 2, "[-0.5, 0.5]": IMAGES / 2}
for (low, high), half in zip([(0.0, 1.0), (-0.5, 0.5)], HALVES.values()):
    half[:, 0, 0] = low, high  # Exactly half of the range is no more than half.
NARROW = "`images` fill no more than half of the range"


def generator(last="tanh", norm=None):
    steps = [keras.Input((3,)), layers.Dense(4 * 4 * 8), layers.Reshape((4, 4, 8))]
    steps += [norm] if norm else []
    steps += [layers.ReLU(), layers.UpSampling2D(), layers.Conv2D(2, 3, padding="same")]
    return keras.Sequential(steps + ([layers.Activation(last)] if isinstance(last, str) else last))


def discriminator(*between, last=()):
    first = [keras.Input(tiny.SHAPE), layers.Conv2D(4, 3), *between, layers.Flatten()]
    return keras.Sequential([*first, layers.Dense(1), *last])


class Subclassed(keras.Model):
    """A network whose graph of layers doesn't tell what it ends in."""

    def __init__(self, steps, last):
        super().__init__()
        self.steps, self.last = steps, last

    def call(self, x, training=False):
        for step in self.steps:
            x = step(x)
        return self.last(x)


def subclassed_generator(last):
    return Subclassed([layers.Dense(128), layers.Reshape(tiny.SHAPE)], last)


def subclassed_discriminator(last):
    return Subclassed([layers.Flatten(), layers.Dense(1)], last)


def model_of(generator, discriminator, **arguments):
    model = SAGAN(generator, discriminator, latent_dim=3, seed=1)
    model.compile(**tiny.sgd(), run_eagerly=True, **arguments)
    return model


def warnings_of(function, *args, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*args, **kwargs)
    return [str(x.message) for x in caught if issubclass(x.category, UserWarning)]


def fit(*networks, images=IMAGES):
    return warnings_of(model_of(*networks).fit, images, batch_size=8, verbose=0)


# The range of data


@pytest.fixture(scope="module")
def trained():
    model = model_of(generator(), discriminator())
    model.fit(IMAGES, batch_size=8, verbose=0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, name", zip(("array", "few", "data set", "uint8"), 2 * list(HALVES), strict=True)
)
def test_half_a_range(trained, kind, name):
    images = HALVES[name]
    if kind == "few":
        images = images[:4]
    if kind == "data set":
        images = tf.data.Dataset.from_tensor_slices(images).batch(8)
    if kind == "uint8":
        images = np.round((images - images.min()) * 127).astype("uint8")
    (message,) = warnings_of(trained.fit, images, epochs=2, verbose=0)
    assert NARROW in message and "rescale floats to [-1, 1] and uint8 to [0, 255]" in message


@pytest.mark.parametrize("method", ["evaluate", "train_on_batch", "test_on_batch", "validation"])
def test_half_a_range_elsewhere(method):
    model = model_of(generator(), discriminator())
    half = HALVES["[0, 1]"]
    if method == "validation":
        found = warnings_of(model.fit, IMAGES, validation_data=(half,), epochs=2, verbose=0)
    elif method == "evaluate":
        found = warnings_of(model.evaluate, half, verbose=0)
    else:
        found = [x for _ in range(2) for x in warnings_of(getattr(model, method), half)]
    (message,) = found
    assert NARROW in message


def test_half_a_range_in_attention_maps():
    model = tiny.build_sagan()
    half = HALVES["[0, 1]"][:2]
    (message,) = warnings_of(model.attention_maps, half, [0, 1])
    assert "`inputs` fill no more than half of the range" in message
    assert warnings_of(model.attention_maps, 2 * half - 1, [0, 1]) == []


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_half_a_range_after_images_of_one_value(trained, value):
    images = HALVES["[0, 1]"].copy()
    images[:8] = value
    (message,) = warnings_of(trained.fit, images, batch_size=8, shuffle=False, verbose=0)
    assert NARROW in message


def test_one_dim_picture_is_no_half_range():
    dim = np.random.default_rng(0).uniform(-0.9, -0.2, (1, *tiny.SHAPE)).astype("float32")
    assert warnings_of(tiny.build_sagan().attention_maps, dim, [0]) == []


def test_a_later_batch_out_of_range(trained):
    images = np.concatenate([np.zeros((8, *tiny.SHAPE)), 255 * np.ones((8, *tiny.SHAPE))])
    data = tf.data.Dataset.from_tensor_slices(images.astype("float32")).batch(8)
    for method in (trained.fit, trained.evaluate):
        match = r"Float `images` must lie in \[-1, 1\].*Received: images between 255 and 255"
        with pytest.raises(ValueError, match=match):
            method(data, verbose=0)


def test_good_data_and_networks(trained):
    black = np.full((16, *tiny.SHAPE), -1.0, "float32")
    bright = np.random.default_rng(0).integers(0, 256, (16, *tiny.SHAPE), dtype="uint8")
    for images in (IMAGES, black, bright):
        assert warnings_of(trained.fit, images, verbose=0) == []


# The ends of networks

ONE_SIDED = ["sigmoid", "relu", "hard_sigmoid", "softmax"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        *(lambda name=name: generator(name) for name in ONE_SIDED),
        lambda: generator([layers.ReLU()]),
        lambda: generator([layers.Activation("sigmoid"), layers.Reshape(tiny.SHAPE)]),
        lambda: generator([layers.Activation(lambda x: ops.sigmoid(x))]),
        lambda: subclassed_generator(ops.sigmoid),
        lambda: subclassed_generator(ops.relu),
    ],
)
def test_generator_with_one_sided_images(make):
    (message,) = fit(make(), discriminator())
    assert "`generator` ends in " in message and "never fill [-1, 1]" in message


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: generator("linear"), "no activation"),
        (lambda: generator([]), "no activation"),
        (lambda: subclassed_generator(lambda x: 2.0 * x), "no activation"),
        (lambda: generator("leaky_relu"), "leakyrelu"),
        (lambda: generator("elu"), "elu"),
    ],
)
def test_generator_with_images_that_are_not_bounded(make, name):
    (message,) = fit(make(), discriminator())
    assert f"`generator` ends in {name}: its images may leave [-1, 1]" in message


@pytest.mark.parametrize(
    "make",
    [
        lambda: discriminator(last=[layers.Activation("sigmoid")]),
        lambda: discriminator(last=[layers.Activation("tanh"), layers.Reshape((1,))]),
        lambda: subclassed_discriminator(ops.sigmoid),
        lambda: subclassed_discriminator(ops.tanh),
    ],
)
def test_discriminator_without_logits(make):
    (message,) = fit(generator(), make())
    assert "`discriminator` ends in " in message and "the losses need logits" in message


def blended():
    """Two pictures under a mask, as where a background is drawn apart."""
    latents = keras.Input((3,))
    one, other = (layers.Dense(128, activation="tanh")(latents) for _ in range(2))
    mask = layers.Dense(128, activation="sigmoid")(latents)
    images = layers.Add()([mask * one, (1.0 - mask) * other])
    return keras.Model(latents, layers.Reshape(tiny.SHAPE)(images))


@pytest.mark.parametrize(
    "networks",
    [
        (subclassed_generator(ops.tanh), subclassed_discriminator(lambda x: x)),
        (generator([layers.Activation("sigmoid"), layers.Rescaling(2.0, -1.0)]), discriminator()),
        (blended(), discriminator(last=[layers.LeakyReLU()])),
        (generator("softsign"), discriminator(layers.LayerNormalization(), layers.Dropout(0.5))),
    ],
    ids=["subclassed", "rescaled", "blended", "other layers"],
)
def test_good_ends(networks):
    assert fit(*networks) == []


# Batch statistics


class MinibatchDeviation(layers.Layer):
    """One more feature: the mean standard deviation over the batch."""

    def call(self, x):
        deviation = ops.mean(ops.std(x, axis=0))
        return ops.concatenate([x, ops.ones_like(x[..., :1]) * deviation], axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "between, is_seen_alone",
    [
        ((layers.BatchNormalization,), True),
        ((MinibatchDeviation,), True),
        ((layers.LayerNormalization,), False),
        ((lambda: layers.Dropout(0.5),), False),
    ],
    ids=["batch norm", "minibatch deviation", "layer norm", "dropout"],
)
def test_the_generator_learns_by_the_statistics_that_the_discriminator_saw(between, is_seen_alone):
    """Fake images are judged in D's step as in G's: alone where the batch matters."""
    sizes = []

    class Count(layers.Layer):
        def call(self, x):
            sizes.append(x.shape[0])
            return x

    model = model_of(generator(), discriminator(Count(), *(make() for make in between)))
    model.fit(IMAGES[:6], batch_size=6, verbose=0)  # What is found out is of the first fit.
    sizes.clear()
    model.fit(IMAGES[:6], batch_size=6, verbose=0)
    assert sizes == ([6, 6, 6] if is_seen_alone else [12, 6])
    sizes.clear()
    model.evaluate(IMAGES[:6], batch_size=6, verbose=0)
    assert sizes == ([6, 6] if is_seen_alone else [12])


class Gated(layers.Layer):
    """Batch statistics behind a gate that is closed at first."""

    def build(self, shape):
        self.gate = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return x + self.gate * ops.mean(x, axis=0, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "between",
    [Gated, lambda: layers.BatchNormalization(gamma_initializer="zeros"), MinibatchDeviation],
)
@pytest.mark.parametrize("images", [IMAGES[:4], 0 * IMAGES[:4]], ids=["images", "black"])
def test_batch_statistics_are_found_whatever_the_weights_and_the_data(between, images):
    model = model_of(generator(), discriminator(between()))
    model.fit(images, verbose=0)
    assert model.judges_apart is True


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_losses_by_batch_statistics(run_eagerly):
    keras.utils.set_random_seed(0)
    judge = discriminator(layers.BatchNormalization(momentum=0.5))
    model = SAGAN(generator(), judge, latent_dim=3, seed=1)
    model.compile(
        *(keras.optimizers.SGD(0.0) for _ in range(2)), loss="wasserstein", run_eagerly=run_eagerly
    )
    logs = model.train_on_batch(IMAGES[:8], return_dict=True)
    # With rates of 0 the same networks give what the step saw.
    from keras_sagan.training.tensorflow import draw_noise

    real = np.mean(judge(IMAGES[:8], training=True))
    fakes = [model.generator(draw_noise((1, 0, i), 8, 3)[0], training=True) for i in range(2)]
    fakes = [np.mean(judge(x, training=True)) for x in fakes]
    assert logs["d_loss"] == pytest.approx(fakes[0] - real, abs=1e-5)
    assert logs["g_loss"] == pytest.approx(-fakes[1], abs=1e-5)


# Classes without images


def labelled(labels, **arguments):
    model = tiny.build_small_sagan()
    model.compile(**tiny.sgd(), run_eagerly=True)
    images = tiny.images(len(labels))
    return warnings_of(model.fit, images, np.array(labels), batch_size=8, verbose=0, **arguments)


@pytest.mark.slow
def test_classes_without_images():
    (message,) = labelled([0, 1, 3, 3] * 4, epochs=4)
    assert "has no image in the first 48 of 2 of num_classes=5 classes: 2, 4" in message
    assert labelled([0, 1, 2, 3, 4] * 2) == []


@pytest.mark.slow
def test_classes_of_data_that_are_not_seen_whole():
    model = tiny.build_small_sagan()
    model.compile(**tiny.sgd(), run_eagerly=True)
    pairs = tiny.images(8), np.array([0, 1, 3, 3] * 2)
    data = tf.data.Dataset.from_tensor_slices(pairs).repeat().batch(8)
    assert warnings_of(model.fit, data, steps_per_epoch=1, verbose=0) == []  # Too few to tell.
    (message,) = warnings_of(model.fit, data, steps_per_epoch=8, verbose=0)
    assert "has no image in the first 64 of 2 of num_classes=5 classes: 2, 4." in message


def test_data_without_classes_that_are_not_seen_whole(trained):
    data = tf.data.Dataset.from_tensor_slices(IMAGES).repeat().batch(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        trained.fit(data, steps_per_epoch=2, verbose=0)
