"""`StopOnNonFinite` watches any Keras model, on every backend."""

import keras
import numpy as np
import pytest

from keras_sagan.callbacks import StopOnNonFinite


class Poison(keras.callbacks.Callback):
    """Puts NaN into a variable before the third step of the second epoch."""

    def __init__(self, find):
        super().__init__()
        self.find, self.epoch = find, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, 2):
            variable = self.find(self.model)
            variable.assign(np.full(variable.shape, np.nan))


def fit(*callbacks):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.5), loss="mse")
    x, y = np.ones((8, 2), "float32"), np.zeros((8, 1), "float32")
    return model.fit(x, y, batch_size=2, epochs=3, verbose=0, callbacks=list(callbacks))


def test_it_stops_at_the_step_of_a_bad_loss():
    stop = StopOnNonFinite()
    with pytest.warns(RuntimeWarning, match="step 3 of epoch 2: `loss` became NaN"):
        history = fit(Poison(lambda model: model.layers[0].kernel), stop)
    assert history.epoch == [0, 1]
    assert "All was finite at step 2 of epoch 2" in stop.reason


def test_a_bad_loss_is_seen_at_every_step():
    stop = StopOnNonFinite(every_steps=100)
    with pytest.warns(RuntimeWarning, match="step 3 of epoch 2: `loss` became NaN"):
        fit(Poison(lambda model: model.layers[0].kernel), stop)


def test_it_stops_at_the_step_of_bad_weights_that_no_loss_shows():
    stop = StopOnNonFinite()
    with pytest.warns(RuntimeWarning, match="step 3 of epoch 2: the variable `model/.*kernel` and"):
        fit(Poison(lambda model: model.optimizer.learning_rate), stop)
    assert "while every loss was finite" in stop.reason


def test_a_good_run_is_left_alone(recwarn):
    stop = StopOnNonFinite(every_steps=2)
    assert fit(stop).epoch == [0, 1, 2]
    assert stop.reason is None and not [w for w in recwarn if w.category is RuntimeWarning]
