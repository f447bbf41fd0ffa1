"""The step's slots: an augmentation, a penalty, and losses of real and fake logits."""

import keras
import numpy as np
import pytest
import scalar_gan
import tensorflow as tf
import tiny_networks as tiny
from keras import layers, ops

from keras_sagan import SAGAN, SNConv2D, losses
from keras_sagan.layers import SelfAttention2D
from keras_sagan.training import input_gradient
from keras_sagan.training.tensorflow import draw_noise

IMAGES, LABELS = tiny.images(8), tiny.labels(8)


def flip(images, uniform):
    return ops.flip(images, axis=2)


@keras.saving.register_keras_serializable(package="test_step")
def squared_gradient(judge, real, fake):
    """R1 with a weight of 2: the mean of the squared gradient of D by real images."""
    images, labels = real
    gradient = input_gradient(lambda x: judge(x, labels), images)
    return ops.mean(ops.sum(ops.square(gradient), axis=(1, 2, 3)))


def train(model, images=IMAGES, labels=LABELS, **arguments):
    model.compile(**{**tiny.sgd(), **arguments})
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
    return model.fit(images, labels, **fit).history


def assert_close(one, other, tolerance=1e-6):
    for a, b in zip(tiny.weights(one), tiny.weights(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


# Augmentation


def test_a_flip_is_what_the_discriminator_sees():
    """As if the discriminator began with it."""
    augmented, plain = (tiny.build_small_sagan(d_steps=2) for _ in range(2))
    inputs = [keras.Input(x.shape[1:], dtype=x.dtype) for x in plain.discriminator.inputs]
    flipped = keras.Model(inputs, plain.discriminator([ops.flip(inputs[0], 2), inputs[1]]))
    plain = SAGAN(plain.generator, flipped, tiny.LATENT_DIM, tiny.CLASSES, d_steps=2, seed=7)
    for one, other in zip(augmented.variables, plain.variables):
        other.assign(one)
    before = tiny.weights(augmented)
    train(augmented, augmentation=flip, run_eagerly=True)
    train(plain, run_eagerly=True)
    assert_close(augmented, plain)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(before, tiny.weights(augmented)))


def test_draws_are_a_pure_function_of_seed_and_step():
    def draws(count=4, **arguments):
        found = []

        def record(images, uniform):
            found.append(np.concatenate([uniform(1).numpy(), uniform(2).numpy()], axis=1))
            return images

        model = tiny.build_small_sagan(d_steps=2, **arguments)
        train(model, IMAGES[:count], LABELS[:count], augmentation=record, run_eagerly=True)
        return np.stack(found)

    found = draws(8)
    assert found.shape == (10, 4, 3)  # Each step: D's real and fake images twice, G's fake ones.
    assert 0.0 <= found.min() and found.max() < 1.0
    assert len(np.unique(found)) == found.size
    np.testing.assert_array_equal(found[:5], draws())
    assert not np.any(found[:5] == draws(seed=8))


# Penalty


def test_a_squared_input_gradient_by_hand():
    """D is linear, so that the penalty is the squared length of its weights."""
    generator = keras.Sequential([keras.Input((1,)), layers.Dense(2, "tanh")])
    generator.add(layers.Reshape((1, 2, 1)))
    linear = layers.Dense(1, use_bias=False)
    discriminator = keras.Sequential([keras.Input((1, 2, 1)), layers.Flatten(), linear])
    model = SAGAN(generator, discriminator, 1, seed=1)
    linear.kernel.assign([[0.25], [-0.5]])
    model.compile(
        keras.optimizers.SGD(0.0),
        keras.optimizers.SGD(0.1),
        loss=(lambda fake: ops.mean(fake), lambda real, fake: 0.0 * ops.mean(real)),
        penalty=squared_gradient,
    )
    logs = model.train_on_batch(np.ones((4, 1, 2, 1), "float32"), return_dict=True)
    assert logs["d_loss"] == pytest.approx(0.25**2 + 0.5**2)
    np.testing.assert_allclose(linear.kernel, [[0.25 * 0.8], [-0.5 * 0.8]], rtol=1e-6)


def test_a_penalty_gets_what_the_discriminator_sees():
    seen = []

    def penalty(judge, real, fake):
        seen.extend(x.numpy() for x in (*real, *fake))
        return 0.0 * ops.mean(judge(*fake))

    model = tiny.build_small_sagan()
    train(model, IMAGES[:4], LABELS[:4], penalty=penalty, augmentation=flip, run_eagerly=True)
    real, labels, fake, fake_labels = seen
    np.testing.assert_array_equal(real, IMAGES[:4, :, ::-1])
    np.testing.assert_array_equal(labels, LABELS[:4])
    assert fake.shape == real.shape
    expected = draw_noise((7, 0, 0), 4, tiny.LATENT_DIM, tiny.CLASSES)[1]
    np.testing.assert_array_equal(fake_labels, expected)


@pytest.mark.slow
@pytest.mark.parametrize("chunk, in_graph", [(None, False), (5, True)])
def test_the_input_gradient_is_right_twice(chunk, in_graph):
    """Through spectral norm, a wide convolution and attention, against central differences."""
    keras.utils.set_random_seed(0)
    same = {"padding": "same", "power_iterations": 20}
    discriminator = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            SNConv2D(56, 3, activation="tanh", **same),
            SNConv2D(56, 3, activation="tanh", resample="down", **same),
            SelfAttention2D(pool_size=1, query_chunk_size=chunk, power_iterations=20),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    discriminator.layers[2].gamma.assign(0.5)
    kernel = discriminator.layers[0].kernel
    images = tf.constant(tiny.images(2))

    def penalty():
        slopes = input_gradient(lambda x: discriminator(x, training=True), images)
        return tf.reduce_sum(slopes**2)

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(kernel.value)
            value = penalty()
        return tape.gradient(value, kernel.value)

    with keras.StatelessScope():  # `vector_u` stays.
        found = (tf.function(gradient) if in_graph else gradient)().numpy()
    direction = np.random.default_rng(0).normal(size=kernel.shape).astype("float32")
    before, values = kernel.numpy(), []
    for step in (1e-3, -1e-3):
        kernel.assign(before + step * direction)
        with keras.StatelessScope():
            values.append(float(penalty()))
    difference = (values[0] - values[1]) / 2e-3
    assert abs(difference) > 1e-3
    assert np.sum(found * direction) == pytest.approx(difference, rel=0.02)


def test_the_state_moves_once_in_spite_of_a_penalty():
    def penalty(judge, real, fake):
        return squared_gradient(judge, real, fake) + ops.mean(judge(*real))

    with_penalty, without = tiny.build_small_sagan(), tiny.build_small_sagan()
    without.set_weights(with_penalty.get_weights())
    rows, dense = ([m.discriminator.layers[i] for m in (with_penalty, without)] for i in (-3, -1))
    for layer in rows:
        layer.vector_u.assign(np.full(4, 0.5))  # Far from where it converges.
    train(with_penalty, IMAGES[:4], LABELS[:4], penalty=penalty, run_eagerly=True)
    train(without, IMAGES[:4], LABELS[:4], run_eagerly=True)
    np.testing.assert_array_equal(*(layer.vector_u.numpy() for layer in rows))
    assert not np.array_equal(*(layer.kernel.numpy() for layer in dense))


def test_slots_are_saved(tmp_path):
    model = tiny.build_small_sagan()
    model.compile(penalty=squared_gradient)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.penalty is squared_gradient and loaded.augmentation is None


# Losses of real and fake logits


def relativistic(real_logits, fake_logits):
    return ops.mean(ops.softplus(real_logits - fake_logits))


def relativistic_discriminator(real_logits, fake_logits):
    return ops.mean(ops.softplus(fake_logits - real_logits))


def test_a_relativistic_loss_sees_real_logits():
    seen = []

    def generator_loss(real_logits, fake_logits):
        seen.append((real_logits.numpy(), fake_logits.numpy()))
        return relativistic(real_logits, fake_logits)

    judged = []
    model = tiny.build_sagan(on_discriminator=lambda *call: judged.append(call))
    loss = (generator_loss, relativistic_discriminator)
    model.compile(**tiny.sgd(0.0), loss=loss, augmentation=flip, run_eagerly=True)
    assert not model.judges_apart
    judged.clear()
    logs = model.train_on_batch(IMAGES[:4], LABELS[:4], return_dict=True)
    assert [len(images) for images, _ in judged] == [8, 8]  # D's update, and G's.
    for images, _ in judged:
        np.testing.assert_array_equal(images[:4], IMAGES[:4, :, ::-1])
    real, fake = seen[0]
    assert logs["g_loss"] == pytest.approx(np.mean(np.log1p(np.exp(real - fake))), rel=1e-5)
    assert logs["real_logits"] == pytest.approx(real.mean(), rel=1e-5)
    assert model.test_on_batch(IMAGES[:4], LABELS[:4], return_dict=True)["g_loss"] > 0


@pytest.mark.parametrize(
    "loss, expected",
    [
        (losses.hinge_generator_loss, False),
        (lambda fake_logits, margin=1.0: fake_logits, False),
        (lambda *logits: logits[0], False),
        (relativistic, True),
        (np.negative, False),
    ],
)
def test_which_losses_get_the_real_logits(loss, expected):
    assert losses.get((loss, relativistic_discriminator)).uses_real_logits is expected


def test_statistics_of_a_discriminator_count_each_of_its_updates():
    """After one step with `d_steps=2` they are plain means of four batches: real, fake, twice."""
    generator = keras.Sequential([keras.Input((1,)), layers.Activation("tanh")])
    generator.add(layers.Reshape((1, 1, 1)))
    norm = layers.BatchNormalization(momentum=0.99)
    discriminator = keras.Sequential(
        [keras.Input((1, 1, 1)), layers.Flatten(), norm, layers.Dense(1)]
    )
    model = SAGAN(generator, discriminator, 1, d_steps=2, seed=3)
    model.compile(**tiny.sgd(), run_eagerly=True)
    images = np.linspace(-1.0, 0.5, 8, dtype="float32").reshape(8, 1, 1, 1)
    fakes = [np.tanh(draw_noise((3, 0, index), 8, 1)[0]) for index in range(2)]
    model.train_on_batch(images)
    expected = np.mean([images.mean(), fakes[0].mean(), images.mean(), fakes[1].mean()])
    np.testing.assert_allclose(norm.moving_mean, [expected], rtol=1e-5)


@pytest.mark.slow
def test_an_augmentation_draws_the_same_with_xla():
    numbers = []
    for arguments in ({"jit_compile": True}, {"run_eagerly": True}):
        arguments["augmentation"] = lambda images, uniform: images * uniform(1)[:, :, None, None]
        model = scalar_gan.compiled(0.25, 0.5, **arguments)
        scalar_gan.fit(model)
        numbers.append(scalar_gan.numbers(model))
    np.testing.assert_allclose(*numbers, rtol=1e-5)


def test_a_penalty_of_a_layer_that_assigns_its_kernel():
    """The gradient is that of the assigned value, as in a plain loop; R1 alone is trained."""
    generator = tiny.build_generator(None)
    images = keras.Input(tiny.SHAPE)
    dense = layers.SpectralNormalization(layers.Dense(1, use_bias=False))
    discriminator = keras.Model(images, dense(layers.Flatten()(images)))
    model = SAGAN(generator, discriminator, tiny.LATENT_DIM, seed=1)
    zero = lambda *logits: 0.0 * ops.mean(logits[-1])  # noqa: E731
    model.compile(
        keras.optimizers.SGD(0.0),
        keras.optimizers.SGD(0.1),
        loss=(lambda fake: 0.0 * ops.mean(fake), zero),
        penalty=squared_gradient,
        run_eagerly=True,
    )
    model.train_on_batch(IMAGES)
    # Of unit length after the assignment; the gradient of its squared length is twice itself.
    assert np.linalg.norm(dense.layer.kernel) == pytest.approx(1.0 - 0.1 * 2.0, rel=1e-3)
