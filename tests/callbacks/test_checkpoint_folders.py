"""Runs that are interrupted and resumed, as a user sees them: folders, files and results."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_sagan import SAGAN
from keras_sagan.callbacks import TrainingCheckpoint
from keras_sagan.models import FusedAdam

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 2, 2, 1), dtype="uint8")
STEPS = 3  # An epoch's.


def build(width=4, seed=0, optimizer=keras.optimizers.Adam):
    """With `width` 4 all kernels but the last have one shape, so that mixed-up slots would fit."""
    keras.utils.set_random_seed(seed)
    latents, images = keras.Input((4,)), keras.Input((2, 2, 1))
    x = layers.Dense(width, "relu", use_bias=False)(latents)
    x = layers.Dense(4, "tanh", use_bias=False)(x)
    generator = keras.Model(latents, layers.Reshape((2, 2, 1))(x))
    x = layers.Dense(width, "relu", use_bias=False)(layers.Flatten()(images))
    x = layers.Dense(4, "relu", use_bias=False)(x)
    discriminator = keras.Model(images, layers.Dense(1)(x))
    model = SAGAN(generator, discriminator, latent_dim=4, ema_momentum=0.9, seed=7)
    model.compile(optimizer(1e-2), optimizer(2e-2), run_eagerly=True)
    return model


def fit(model, directory, callbacks=(), epochs=1, **kwargs):
    callbacks = [*callbacks, TrainingCheckpoint(directory, **kwargs)]
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0}
    return model.fit(IMAGES, epochs=epochs, callbacks=callbacks, **arguments)


def values(model):
    """All that training changes."""
    variables = [*model.variables, *model.ema_generator.variables]
    variables += [*model.g_optimizer.variables, *model.d_optimizer.variables]
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def assert_same(received, expected):
    assert len(received) == len(expected)
    for one, two in zip(received, expected):
        np.testing.assert_array_equal(one, two)


class Interrupted(Exception):
    pass


class InterruptEpochEnd(keras.callbacks.Callback):
    """As a kill while the FID is measured; before it, a callback may have set other rates."""

    def __init__(self, epoch, learning_rate=None):
        super().__init__()
        self.epoch, self.learning_rate = epoch, learning_rate

    def on_epoch_end(self, epoch, logs=None):
        if self.learning_rate is not None:
            self.model.g_optimizer.learning_rate = self.learning_rate
        if epoch == self.epoch:
            raise Interrupted


# One process that makes several models


@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam, FusedAdam, keras.optimizers.SGD])
@pytest.mark.parametrize("width", [4, 5])
def test_a_run_interrupted_at_an_epochs_end_and_resumed_by_new_models(tmp_path, width, optimizer):
    first = build(width, 0, optimizer)
    with pytest.raises(Interrupted):
        fit(first, tmp_path, [InterruptEpochEnd(0)], every_steps=1)
    expected = values(first)
    # The second takes no step: it ends the epoch, which notes its learning rates.
    second = build(width, 1, optimizer)
    fit(second, tmp_path, every_steps=1)
    assert_same(values(second), expected)
    third = build(width, 2, optimizer)
    assert TrainingCheckpoint(tmp_path).restore_latest(third) == STEPS
    assert_same(values(third), expected)
    fit(third, tmp_path, epochs=2)
    undisturbed = build(width, 0, optimizer)
    fit(undisturbed, tmp_path / "undisturbed", epochs=2)
    assert_same(values(third), values(undisturbed))
    # The first one, whose names the file of step 3 has, reads the other's file.
    assert TrainingCheckpoint(tmp_path).restore_latest(first) == 2 * STEPS
    assert_same(values(first), values(third))


def test_a_rate_set_at_an_epochs_end_by_another_model_comes_back(tmp_path):
    with pytest.raises(Interrupted):
        fit(build(), tmp_path, [InterruptEpochEnd(0)], every_steps=1)
    second = build(seed=1)
    fit(second, tmp_path, [InterruptEpochEnd(None, learning_rate=0.125)], every_steps=1)
    third = build(seed=2)
    TrainingCheckpoint(tmp_path).restore_latest(third)
    assert float(third.g_optimizer.learning_rate) == 0.125
    assert_same(values(third), values(second))
