"""What `SAGAN.fit` does at the end of each epoch, before the user's callbacks."""

import keras

from keras_sagan.models.gan_optimizer import NAMES, number


class EpochEnd(keras.callbacks.Callback):
    """Adds both learning rates to the logs, and warns once of classes without images.

    Args:
        check: The `BatchCheck` that saw the data.
        is_whole: Boolean, whether an epoch is all of the data.
    """

    def __init__(self, check, is_whole):
        super().__init__()
        self.check, self.is_whole = check, is_whole
        self._has_warned = False

    def on_epoch_end(self, epoch, logs=None):
        for name in NAMES:
            # Keras's `MultiOptimizer` has several rates, and none of its own.
            rate = getattr(getattr(self.model, name), "learning_rate", None)
            if rate is not None:
                logs[f"{name[0]}_learning_rate"] = number(rate)
        if not self._has_warned:
            self._has_warned = self.check.warn_of_missing_classes(self.is_whole)


def log_rates_and_classes(model, callbacks, is_whole):
    """Puts an `EpochEnd` before the callbacks, which then find the rates in the logs.

    Args:
        model: A compiled `SAGAN`.
        callbacks: What `fit` got: `None`, a callback, a nest of them, or a
            `keras.callbacks.CallbackList`, which is changed.
        is_whole: Boolean, whether an epoch is all of the data.

    Returns:
        The callbacks for Keras's `fit`.
    """
    own = EpochEnd(model._checks["fit"], is_whole)
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return [own, *keras.tree.flatten(callbacks or [])]
    own.set_model(model)
    others = [x for x in callbacks.callbacks if not isinstance(x, EpochEnd)]
    callbacks.callbacks[:] = [own, *others]
    return callbacks
