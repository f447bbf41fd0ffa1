"""Layers that assign a trainable variable in `call` train as in a plain Keras loop."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_networks as tiny
from keras import layers, ops
from replicas import two_replicas

from keras_sagan import SAGAN
from keras_sagan.training.tensorflow import draw_noise

STEPS, BATCH, RATE = 4, 4, 0.05


@keras.saving.register_keras_serializable("tests")
class Standardized(layers.Dense):
    """A kernel of mean 0 and variance 1 for each output, written back."""

    def call(self, inputs, training=False):
        if training:
            mean, variance = ops.moments(self.kernel.value, axes=0, keepdims=True)
            self.kernel.assign((self.kernel - mean) / ops.sqrt(variance + 1e-5))
        return super().call(inputs)


@keras.saving.register_keras_serializable("tests")
class Clipped(layers.Dense):
    """A kernel within bounds, which also uses what it had before."""

    def call(self, inputs, training=False):
        before = super().call(inputs)
        if training:
            self.kernel.assign(ops.clip(self.kernel, -0.2, 0.2))
        return super().call(inputs) + 0.1 * before


def normalized(units):
    return layers.SpectralNormalization(layers.Dense(units), power_iterations=3)


def networks(dense, seed=0):
    keras.utils.set_random_seed(seed)
    generator = keras.Sequential(
        [keras.Input((3,)), dense(8 * 8 * 2), layers.Reshape(tiny.SHAPE), layers.Activation("tanh")]
    )
    discriminator = keras.Sequential(
        [keras.Input(tiny.SHAPE), layers.Flatten(), dense(8), layers.ReLU(), dense(1)]
    )
    return generator, discriminator


def plain_loop(generator, discriminator, images):
    """The same steps by tapes and by Keras's own assignments, with the Wasserstein loss."""

    def descend(network, loss, tape):
        for variable, gradient in zip(
            network.trainable_variables, tape.gradient(loss, network.trainable_variables)
        ):
            variable.assign(variable - RATE * gradient)

    for step in range(STEPS):
        draws = [draw_noise((7, step, index), BATCH, 3)[0] for index in range(2)]
        with keras.StatelessScope():
            fake = generator(draws[0], training=True)
        with tf.GradientTape() as tape:
            logits = discriminator(ops.concatenate([images, fake]), training=True)
            loss = ops.mean(logits[BATCH:]) - ops.mean(logits[:BATCH])
        descend(discriminator, loss, tape)
        with tf.GradientTape() as tape:
            fake = generator(draws[1], training=True)
            with keras.StatelessScope():
                loss = -ops.mean(discriminator(fake, training=True))
        descend(generator, loss, tape)


def test_a_layer_that_is_called_twice():
    """Each value that the kernel took has its part in the gradient."""
    keras.utils.set_random_seed(0)
    inner = layers.SpectralNormalization(layers.Dense(1, use_bias=False), power_iterations=3)
    images = keras.Input(tiny.SHAPE)
    x = layers.Flatten()(images)
    discriminator = keras.Model(images, inner(x) + inner(layers.ReLU()(x)))
    before = discriminator.get_weights()
    model = SAGAN(networks(layers.Dense)[0], discriminator, latent_dim=3, seed=7)
    model.compile(*(keras.optimizers.SGD(x) for x in (0.0, RATE)), loss="wasserstein")
    fake = model.generator(draw_noise((7, 0, 0), BATCH, 3)[0])
    model.train_on_batch(tiny.images(BATCH))
    found = discriminator.get_weights()
    discriminator.set_weights(before)
    with tf.GradientTape() as tape:
        logits = discriminator(ops.concatenate([tiny.images(BATCH), fake]), training=True)
        loss = ops.mean(logits[BATCH:]) - ops.mean(logits[:BATCH])
    kernel = inner.layer.kernel
    expected = kernel.numpy() - RATE * tape.gradient(loss, kernel.value).numpy()
    np.testing.assert_allclose(found[0], expected, atol=2e-6)


@pytest.mark.slow
def test_batch_norm_beside_spectral_normalization():
    """Real and fake images have a pass each, and each teaches the kernel."""
    keras.utils.set_random_seed(0)
    discriminator = keras.Sequential(
        [keras.Input(tiny.SHAPE), layers.Flatten(), normalized(8), layers.BatchNormalization()]
        + [layers.LeakyReLU(), normalized(1)]
    )
    before = discriminator.get_weights()
    model = SAGAN(networks(layers.Dense)[0], discriminator, latent_dim=3, seed=7)
    model.compile(*(keras.optimizers.SGD(x) for x in (0.0, RATE)), loss="wasserstein")
    fake = model.generator(draw_noise((7, 0, 0), BATCH, 3)[0])
    model.train_on_batch(tiny.images(BATCH))
    assert model.judges_apart
    found = [x.numpy() for x in discriminator.trainable_variables]
    discriminator.set_weights(before)
    with tf.GradientTape() as tape:
        real = ops.mean(discriminator(tiny.images(BATCH), training=True))
        loss = ops.mean(discriminator(fake, training=True)) - real
    variables = discriminator.trainable_variables
    gradients = tape.gradient(loss, variables)
    for one, variable, gradient in zip(found, variables, gradients):
        np.testing.assert_allclose(one, variable.numpy() - RATE * gradient.numpy(), atol=3e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dense, mode",
    [
        (normalized, "graph"),
        (normalized, "xla"),
        (Standardized, "eager"),
        (Clipped, "eager"),
    ],
)
def test_as_in_a_plain_loop(dense, mode):
    images = tiny.images(BATCH)
    expected = networks(dense)
    plain_loop(*expected, images)
    model = SAGAN(*networks(dense), latent_dim=3, seed=7)
    model.compile(
        *(keras.optimizers.SGD(RATE) for _ in range(2)),
        loss="wasserstein",
        run_eagerly=mode == "eager",
        jit_compile=mode == "xla",
    )
    model.fit(images, batch_size=BATCH, epochs=STEPS, shuffle=False, verbose=0)
    for network, other in zip((model.generator, model.discriminator), expected):
        for one, two in zip(network.variables, other.variables):
            np.testing.assert_allclose(one.numpy(), two.numpy(), atol=2e-6, err_msg=one.path)


@pytest.mark.slow
def test_stored_kernels_have_norm_1_under_spectral_normalization():
    model = SAGAN(*networks(normalized), latent_dim=3, ema_momentum=0.9, seed=7)
    model.compile(*(keras.optimizers.SGD(1e-3) for _ in range(2)), run_eagerly=True)
    model.fit(tiny.images(16), batch_size=4, epochs=3, verbose=0)
    for network in (model.generator, model.discriminator, model.ema_generator):
        for layer in network.layers:
            if isinstance(layer, layers.SpectralNormalization):
                norm = np.linalg.norm(layer.layer.kernel.numpy(), 2)
                assert norm == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_two_replicas_agree_with_one():
    found = []
    for strategy in (two_replicas(), tf.distribute.get_strategy()):
        with strategy.scope():
            model = SAGAN(*networks(normalized), latent_dim=3, seed=7)
            rates = (keras.optimizers.SGD(RATE) for _ in range(2))
            model.compile(*rates, run_eagerly=len(found) == 1)
        data = tf.data.Dataset.from_tensor_slices(tiny.images(8)).batch(4, drop_remainder=True)
        model.fit(data, verbose=0)
        found.append([x.numpy() for x in model.variables])
    for one, two in zip(*found):
        np.testing.assert_allclose(one, two, atol=2e-6)
