"""Training stops at the step at which something isn't finite, and says what."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import layers

from keras_sagan import SAGAN
from keras_sagan.callbacks import StopOnNonFinite, TrainingCheckpoint
from keras_sagan.data import make_dataset

IMAGES = ((tiny.images(40) + 1.0) * 127.0).astype("uint8")


class Poison(keras.callbacks.Callback):
    """Puts a value into a weight before a step."""

    def __init__(self, step, find, value=np.nan):
        super().__init__()
        self.step, self.find, self.value = step, find, value
        self.count = 0

    def on_train_batch_begin(self, batch, logs=None):
        self.count += 1
        if self.count == self.step:
            variable = self.find(self.model)
            variable.assign(np.full(variable.shape, self.value))


def kernel(layer):
    return lambda model: next(
        network.get_layer(layer).kernel
        for network in (model.generator, model.discriminator)
        if layer in [x.name for x in network.layers]
    )


@pytest.fixture(scope="module")
def trained():
    """One traced model for all tests, and its weights at the start."""
    steps = [keras.Input((3,)), layers.Dense(128), layers.Reshape(tiny.SHAPE)]
    steps.append(layers.Conv2D(2, 1, activation="tanh", name="last"))
    generator = keras.Sequential(steps, name="generator")
    steps = [keras.Input(tiny.SHAPE), layers.Conv2D(4, 3, activation="relu", name="first")]
    steps += [layers.Flatten(), layers.Dense(1, name="logits")]
    model = SAGAN(generator, keras.Sequential(steps, name="discriminator"), latent_dim=3, seed=7)
    model.compile(**tiny.sgd())
    return model, model.get_weights()


def fit(trained, callbacks, **kwargs):
    model, start = trained
    model.set_weights(start)
    model.optimizer.learning_rate = 0.02
    kwargs = {"epochs": 3, "steps_per_epoch": 5, "verbose": 0, **kwargs}
    dataset = make_dataset(IMAGES, batch_size=4)
    return model.fit(dataset, callbacks=callbacks, **kwargs)


@pytest.mark.slow
def test_it_stops_at_the_step_of_a_bad_loss(trained):
    stop = StopOnNonFinite()
    with pytest.warns(RuntimeWarning, match="step 2 of epoch 2: `d_loss` became NaN"):
        fit(trained, [Poison(7, kernel("logits")), stop])
    assert int(trained[0].steps) == 7  # None after it.
    assert "All was finite at step 1 of epoch 2" in stop.reason
    assert "and so did the variable `" in stop.reason


@pytest.mark.slow
def test_it_stops_at_the_step_of_a_bad_weight(trained):
    # The discriminator's ReLU may hide the NaN from every loss.
    stop = StopOnNonFinite()
    with pytest.warns(RuntimeWarning, match="step 2 of epoch 2: .*generator/"):
        fit(trained, [Poison(7, kernel("last")), stop])
    assert int(trained[0].steps) == 7


@pytest.mark.slow
def test_infinity_counts_too(trained):
    with pytest.warns(RuntimeWarning, match="became NaN or infinite"):
        fit(trained, [Poison(3, kernel("logits"), np.inf), StopOnNonFinite()])
    assert int(trained[0].steps) == 3


@pytest.mark.slow
def test_a_bad_variable_that_no_loss_shows_is_found_at_the_step(trained):
    stop = StopOnNonFinite()
    with pytest.warns(RuntimeWarning, match="step 2 of epoch 1: the variable `generator/"):
        fit(trained, [Poison(2, lambda model: model.g_optimizer.learning_rate), stop])
    assert int(trained[0].steps) == 2
    assert "while every loss was finite" in stop.reason


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_it_is_found_at_the_end_of_an_epoch_at_the_latest(trained, value):
    class PoisonAtEnd(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:  # No step shows it any more.
                weight = self.model.discriminator.get_layer("first").bias
                weight.assign(np.full(weight.shape, value))

    with pytest.warns(
        RuntimeWarning, match="step 5 of epoch 1: the variable `discriminator/.*first"
    ):
        fit(trained, [PoisonAtEnd(), StopOnNonFinite(every_steps=100)])
    assert int(trained[0].steps) == 5


@pytest.mark.slow
def test_a_good_run_is_left_alone(trained, recwarn):
    stop = StopOnNonFinite(every_steps=2)
    fit(trained, [stop])
    assert stop.reason is None and int(trained[0].steps) == 15
    assert not [w for w in recwarn if w.category is RuntimeWarning]


@pytest.mark.slow
def test_the_last_good_checkpoint_is_kept(trained, tmp_path):
    model = trained[0]
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1, keep=2)
    poison, stop = Poison(7, kernel("logits")), StopOnNonFinite()
    with pytest.warns(RuntimeWarning) as warned:
        fit(trained, [poison, checkpoint, stop])
    texts = [str(w.message) for w in warned]
    assert any("Step 7 isn't saved" in t and "newest checkpoint is of step 6" in t for t in texts)
    assert any("Training stopped at step 2 of epoch 2" in t for t in texts)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-5", "step-6"]
    model.set_weights(trained[1])
    assert TrainingCheckpoint(tmp_path).restore_latest(model) == 6
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_every_steps_must_be_positive(value):
    with pytest.raises(ValueError, match="`every_steps` must be an integer of at least 1"):
        StopOnNonFinite(every_steps=value)
