"""A GAN of one number for each network, and its training by SGD written out by hand."""

import keras
import numpy as np
from keras import layers

from keras_sagan import SAGAN

BIAS, SLOPE = 0.3, 0.7
IMAGES = np.tile(np.float32([-1.0, 0.6]), 4).reshape(8, 1, 1, 1)  # Four batches of two.
MEAN = -0.2


def build(**kwargs):
    """The generator gives tanh(bias) for any latents; the discriminator multiplies by a slope."""
    bias, slope = map(keras.initializers.Constant, (BIAS, SLOPE))
    generator = keras.Sequential(
        [
            keras.Input((1,)),
            layers.Rescaling(0.0),
            layers.Dense(1, "tanh", kernel_initializer="zeros", bias_initializer=bias),
            layers.Reshape((1, 1, 1)),
        ]
    )
    discriminator = keras.Sequential(
        [
            keras.Input((1, 1, 1)),
            layers.Flatten(),
            layers.Dense(1, use_bias=False, kernel_initializer=slope, dtype="float32"),
        ]
    )
    return SAGAN(generator, discriminator, latent_dim=1, seed=1, **kwargs)


def compiled(g_rate, d_rate, d_steps=1, **kwargs):
    model = build(d_steps=d_steps)
    sgd = keras.optimizers.SGD
    model.compile(sgd(g_rate), sgd(d_rate), loss="wasserstein", **kwargs)
    return model


def fit(model, epochs=1, **kwargs):
    """Four steps an epoch."""
    kwargs = {"batch_size": 2, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(IMAGES, epochs=epochs, **kwargs).history


def numbers(model):
    bias, slope = model.generator.trainable_variables[1], model.discriminator.trainable_variables[0]
    return [float(keras.ops.convert_to_numpy(x).item()) for x in (bias, slope)]


def restart(model):
    model.generator.trainable_variables[1].assign([BIAS])
    model.discriminator.trainable_variables[0].assign([[SLOPE]])
    model.steps.assign(0)


def by_hand(rates, d_steps=1):
    """What the two numbers become.

    Args:
        rates: List with the generator's and the discriminator's rate of each step.
        d_steps: Integer.
    """
    bias, slope = BIAS, SLOPE
    for g_rate, d_rate in rates:
        for _ in range(d_steps):
            slope -= d_rate * (np.tanh(bias) - MEAN)
        bias += g_rate * slope * (1.0 - np.tanh(bias) ** 2)
    return [bias, slope]
