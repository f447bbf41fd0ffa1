"""The averaged generator, and moving statistics, forget how they began."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import layers

from keras_sagan import SAGAN
from keras_sagan.callbacks.model_state import assign_state, read_state
from keras_sagan.metrics import FrechetInceptionDistance
from keras_sagan.models import build_discriminator, build_generator
from keras_sagan.training import backend
from keras_sagan.training.step import matching_momentum, update_average


def weights_of(network):
    return [x.numpy() for x in network.variables]


def new_weights(network, seed=1):
    rng = np.random.default_rng(seed)
    return [
        rng.uniform(0.1, 1.0, x.shape).astype(x.dtype) if "float" in x.dtype else x.numpy()
        for x in network.variables
    ]


def assert_equal_weights(one, other):
    for a, b in zip(weights_of(one), weights_of(other)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_average_follows_the_generator_until_it_trains(tmp_path):
    model = tiny.build_sagan(ema_momentum=0.9)
    before = model.generate(3, labels=0, seed=0)
    model.generator.set_weights(new_weights(model.generator))
    pictures = model.generate(3, labels=0, seed=0)
    assert np.any(pictures != before)
    np.testing.assert_array_equal(pictures, model.generate(3, labels=0, seed=0, use_ema=False))
    assert_equal_weights(model.ema_generator, model.generator)

    model.generator.save_weights(tmp_path / "g.weights.h5")
    other = tiny.build_sagan(ema_momentum=0.9)
    other.generator.load_weights(tmp_path / "g.weights.h5")
    latents = np.ones((2, tiny.LATENT_DIM), "float32")
    maps = [m.attention_maps(latents, [0, 1])[1]["attention"] for m in (model, other)]
    np.testing.assert_array_equal(*maps)
    other.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal_weights(loaded.ema_generator, model.generator)


def test_what_is_put_into_the_average_stays_while_the_generator_does():
    """Such as standing statistics, of which the generator knows nothing."""
    model = tiny.build_sagan(ema_momentum=0.9)
    moving_mean = model.ema_generator.get_layer("norm").moving_mean
    moving_mean.assign(moving_mean + 1.0)
    model.generate(1, labels=0)
    np.testing.assert_array_equal(model.ema_generator.get_layer("norm").moving_mean, 1.0)


def test_adapted_normalization():
    """Keras computes constants from its variables, and assigning the variables keeps these."""
    norm, latents = layers.Normalization(), 9.0 + np.eye(tiny.LATENT_DIM, dtype="float32")
    norm.adapt(latents)

    def images(network):
        return keras.ops.convert_to_numpy(network(latents))

    networks = keras.Sequential([keras.Input((3,)), norm, tiny.build_generator(None)])
    networks = networks, tiny.build_discriminator(None)
    model = SAGAN(*networks, tiny.LATENT_DIM, ema_momentum=0.9)
    expected = images(model.generator)
    np.testing.assert_array_equal(images(model._average), expected)
    other = SAGAN.from_model(model)
    np.testing.assert_array_equal(images(other.generator), expected)
    np.testing.assert_array_equal(images(other.ema_generator), expected)
    restored = SAGAN(*map(keras.models.clone_model, networks), tiny.LATENT_DIM)
    assign_state(restored, 0, read_state(model))
    np.testing.assert_array_equal(images(restored.generator), expected)


@pytest.mark.parametrize("restores", [False, True])
def test_constants_of_compiled_functions_are_replaced(restores, tmp_path):
    def build(mean):
        norm = layers.Normalization()
        norm.adapt(mean + np.eye(tiny.LATENT_DIM, dtype="float32"))
        generator = keras.Sequential([keras.Input((3,)), norm, tiny.build_generator(None)])
        model = SAGAN(generator, tiny.build_discriminator(None), tiny.LATENT_DIM, seed=0)
        model.compile(**tiny.sgd())
        model.train_on_batch(tiny.images(2))
        return model

    first, other = build(0.0), build(9.0)
    other.generate(2, seed=0), other.test_on_batch(tiny.images(2))  # Compiles both.
    if restores:
        assign_state(other, 0, read_state(first))
    else:
        first.save_weights(tmp_path / "model.weights.h5")
        other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(*(x.generate(2, seed=0) for x in (first, other)))
    for method in ("test_on_batch", "train_on_batch"):
        results = [getattr(model, method)(tiny.images(2)) for model in (first, other)]
        np.testing.assert_array_equal(*results)


class OwnCall(keras.Model):
    """A functional generator, whose images a subclass doubles."""

    def __init__(self, **kwargs):
        inputs = keras.Input((tiny.LATENT_DIM,))
        outputs = layers.Reshape(tiny.SHAPE)(layers.Dense(int(np.prod(tiny.SHAPE)))(inputs))
        super().__init__(inputs, outputs, **kwargs)

    def call(self, inputs, training=False, mask=None):
        return 2.0 * super().call(inputs, training=training)


def test_a_functional_generator_with_its_own_call():
    generator, latents = OwnCall(), np.ones((1, tiny.LATENT_DIM), "float32")
    model = SAGAN(generator, tiny.build_discriminator(None), tiny.LATENT_DIM, ema_momentum=0.9)
    expected = keras.ops.convert_to_numpy(generator(latents))
    other = SAGAN.from_model(model)
    for network in (model.ema_generator, other.generator, other.ema_generator):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(network(latents)), expected)
    with pytest.raises(ValueError, match="`num_classes` must be that of the model to start from"):
        SAGAN.from_model(model, num_classes=2)


@pytest.mark.slow
def test_a_generator_that_gets_other_variables_is_refused():
    generator = keras.Sequential([keras.Input((2,)), layers.Dense(64), layers.Reshape((8, 8, 1))])
    discriminator = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(1)])
    model = SAGAN(generator, discriminator, latent_dim=2, ema_momentum=0.9)
    generator.layers[0].enable_lora(1)
    with pytest.raises(ValueError, match="`generator` must keep its variables.*4 variables and"):
        model.compile()


def test_restart_average():
    model = tiny.build_small_sagan(ema_momentum=0.9)
    model.compile(**tiny.sgd(), run_eagerly=True)
    model.train_on_batch(tiny.images(4), tiny.labels(4))
    model.generator.set_weights(new_weights(model.generator))
    averaged = weights_of(model.ema_generator)
    model.generate(1, labels=0)
    for old, new in zip(averaged, weights_of(model.ema_generator)):
        np.testing.assert_array_equal(old, new)  # It trained: the average is its own.
    model.restart_average()
    assert_equal_weights(model.ema_generator, model.generator)
    with pytest.raises(ValueError, match="`restart_average` needs.*Received: ema_momentum=None"):
        tiny.build_small_sagan().restart_average()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, momentum",
    [
        ({"ema_momentum": 0.6}, 0.6),
        ({"ema_momentum": 0.999}, 0.999),
        ({"ema_half_life": 6}, 0.5 ** (4 / 6)),  # Of images, in batches of 4.
    ],
)
def test_half_life_is_at_most_a_twentieth_of_the_steps(arguments, momentum):
    model = batch_norm_sagan(0.9, **arguments)
    model.compile(*(keras.optimizers.SGD(0.1) for _ in range(2)))
    kernels = [network.layers[0].kernel for network in (model.generator, model.ema_generator)]
    expected = None
    for step in range(40):
        model.train_on_batch(tiny.images(4))
        kept = min(momentum, 0.5 ** (20.0 / step)) if step else 0.0
        value = kernels[0].numpy().astype("float64")
        expected = value if expected is None else kept * expected + (1.0 - kept) * value
    np.testing.assert_allclose(kernels[1].numpy(), expected, atol=2e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="It has replicas.")
def test_replicas_keep_what_one_device_keeps_of_the_images_of_all():
    import tensorflow as tf
    from replicas import two_replicas

    strategy = two_replicas()
    with strategy.scope():
        model = tiny.build_small_sagan(ema_half_life=100.0)
    model.steps.assign(10_000)
    (name,) = [x.name for x in model.generator.layers if "sn_dense" in x.name]
    mean, bias = (x.get_layer(name).bias for x in (model.ema_generator, model.generator))
    mean.assign(np.zeros(mean.shape))
    bias.assign(np.ones(mean.shape))
    strategy.run(tf.function(lambda: update_average(model, True, 8)))  # 16 images in all.
    np.testing.assert_allclose(mean.numpy(), 1.0 - 0.5**0.16, rtol=1e-5)


@pytest.mark.parametrize("value", [0, -1.0, np.inf, "9"])
def test_a_half_life_that_is_none(value):
    with pytest.raises(ValueError, match="`ema_half_life` must be positive. Received: ema_half_l"):
        tiny.build_small_sagan(ema_half_life=value)


def batch_norm_sagan(momentum, **kwargs):
    """Networks as users have them, with Keras's own batch normalization."""
    generator = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4 * 4 * 8),
            layers.Reshape((4, 4, 8)),
            layers.BatchNormalization(momentum=momentum, name="norm"),
            layers.ReLU(),
            layers.Conv2DTranspose(2, 4, strides=2, padding="same", activation="tanh"),
        ]
    )
    discriminator = keras.Sequential(
        [keras.Input(tiny.SHAPE), layers.Flatten(), layers.Dense(8, "relu"), layers.Dense(1)]
    )
    return SAGAN(generator, discriminator, latent_dim=3, seed=1, **kwargs)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_statistics_of_keras_batch_norm_begin_with_plain_means(run_eagerly):
    model = batch_norm_sagan(momentum=0.999)
    model.compile(*(keras.optimizers.SGD(0.0) for _ in range(2)), run_eagerly=run_eagerly)
    norm = model.generator.get_layer("norm")
    features = keras.Model(model.generator.inputs, norm.input)
    means, variances = [], []
    for step in range(4):
        latents = backend.draw_noise((1, step, 1), 8, 3)[0]
        values = keras.ops.convert_to_numpy(features(latents))
        means.append(values.mean((0, 1, 2)))
        variances.append(values.var((0, 1, 2)))
        model.train_on_batch(tiny.images(8))
        np.testing.assert_allclose(norm.moving_mean, np.mean(means, 0), atol=1e-5)
        # Of the 1 at the start a momentum of 0.999 leaves float32 three digits less.
        np.testing.assert_allclose(norm.moving_variance, np.mean(variances, 0), atol=2e-4)
    assert norm.momentum == 0.999


def test_statistics_of_a_discriminator_begin_with_plain_means_of_real_and_fake_images():
    """It judges them apart, so that its statistics move twice in an update."""
    generator = keras.Sequential([keras.Input((3,)), layers.Dense(128, "tanh")])
    generator.add(layers.Reshape(tiny.SHAPE))
    norm = layers.BatchNormalization(momentum=0.999)
    discriminator = keras.Sequential([keras.Input(tiny.SHAPE), norm, layers.Flatten()])
    discriminator.add(layers.Dense(1))
    model = SAGAN(generator, discriminator, latent_dim=3, seed=1)
    model.compile(*(keras.optimizers.SGD(0.0) for _ in range(2)), run_eagerly=True)
    images, means = tiny.images(16), []
    for step in range(2):
        real = images[8 * step : 8 * step + 8]
        fake = keras.ops.convert_to_numpy(generator(backend.draw_noise((1, step, 0), 8, 3)[0]))
        means += [real.mean((0, 1, 2)), fake.mean((0, 1, 2))]
        model.train_on_batch(real)
        np.testing.assert_allclose(norm.moving_mean, np.mean(means, 0), atol=1e-5)


def blobs(count, seed=0):
    """Gray 32 pixel images of one bright square each, on a dark ground."""
    rng = np.random.default_rng(seed)
    images = np.full((count, 32, 32, 1), 20, "uint8")
    for image, (y, x), size in zip(
        images, rng.integers(2, 14, (count, 2)), rng.integers(6, 16, count)
    ):
        image[y : y + size, x : x + size] = 220
    return images


@pytest.mark.slow
@pytest.mark.parametrize("networks", ["default", "keras"])
def test_a_short_run_shows_what_it_learned(networks):
    """In inference, averaged or not, pictures are those by the statistics of their own batch."""
    keras.utils.set_random_seed(0)
    if networks == "default":
        arguments = {
            "image_size": 8,
            "base_filters": 4,
            "channels": 1,
            "attention_resolutions": (),
        }
        model = SAGAN(
            build_generator(latent_dim=8, **arguments),
            build_discriminator(**arguments),
            latent_dim=8,
            ema_momentum=0.999,
            seed=0,
        )
        images = blobs(512)[:, ::4, ::4]
    else:
        model = batch_norm_sagan(0.999, ema_momentum=0.999)
        images = np.repeat(blobs(512)[:, ::4, ::4], 2, axis=-1)
    model.compile()
    data = np.resize(images, (100 * 16, *images.shape[1:]))
    model.fit(data, batch_size=16, verbose=0)
    assert int(model.steps.numpy()) == 100

    latents = np.random.default_rng(5).standard_normal((256, model.latent_dim)).astype("float32")
    distances = {}
    for name, network in (("raw", model.generator), ("averaged", model.ema_generator)):
        network.trainable = True  # A frozen batch norm uses its moving statistics.
        with keras.StatelessScope():
            pictures = network(latents, training=True)
        by_batch = np.clip(
            np.round((keras.ops.convert_to_numpy(pictures) + 1) * 127.5), 0, 255
        ).astype("uint8")
        moving = model.generate(256, latents=latents, use_ema=name == "averaged")
        for kind, pictures in (("batch", by_batch), ("moving", moving)):
            metric = FrechetInceptionDistance(lambda x: x[:, ::2, ::2, 0].reshape(len(x), -1))
            metric.update_state(images, real=True)
            metric.update_state(pictures, real=False)
            distances[name, kind] = float(metric.result())
        assert distances[name, "moving"] < 1.1 * distances[name, "batch"]


class OwnNorm(layers.Layer):
    """A user's norm, whose statistics have names of Keras's layer and no momentum."""

    def build(self, shape):
        self.moving_mean = self.add_weight(shape=(shape[-1],), trainable=False, name="mean")

    def call(self, x, training=False):
        if training:
            mean = keras.ops.mean(x, axis=tuple(range(len(x.shape) - 1)))
            self.moving_mean.assign(0.5 * self.moving_mean + 0.5 * mean)
        return x - self.moving_mean


class CarefulNorm(layers.BatchNormalization):
    """A subclass that looks at its momentum while it is traced."""

    def call(self, inputs, training=None, mask=None):
        if not 0.0 < float(self.momentum) < 1.0:
            raise ValueError("`momentum` must lie in (0, 1).")
        return super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize("norm", [OwnNorm, CarefulNorm])
def test_norms_of_users(norm):
    generator = keras.Sequential(
        [keras.Input((3,)), layers.Dense(128), norm(), layers.Reshape(tiny.SHAPE)]
        + [layers.Activation("tanh")]
    )
    discriminator = keras.Sequential([keras.Input(tiny.SHAPE), layers.Flatten(), layers.Dense(1)])
    model = SAGAN(generator, discriminator, 3, ema_momentum=0.9)
    model.compile(**tiny.sgd())
    model.fit(tiny.images(8), batch_size=4, verbose=0)
    assert np.isfinite(np.concatenate([x.ravel() for x in weights_of(model)])).all()


@pytest.mark.parametrize("momentum, inner", [(0.99, 0.9), (0.9, 0.9), (0.5, 0.99), (0.0, 0.0)])
def test_matching_momentum(momentum, inner):
    """An average of an average is as old as an average of the values, where it can be."""

    def average(values, kept):
        for index in range(1, len(values)):
            values[index] = kept * values[index - 1] + (1.0 - kept) * values[index]
        return values

    kept = keras.ops.convert_to_numpy(
        matching_momentum(keras.ops.convert_to_tensor(momentum), inner)
    )
    times = np.arange(5000.0)  # The value at a time is the time: what is missing is the age.
    age = 4999.0 - average(average(times.copy(), inner), float(kept))[-1]
    ages = [4999.0 - average(times.copy(), x)[-1] for x in (momentum, inner)]
    assert age == pytest.approx(max(ages), rel=1e-3)
