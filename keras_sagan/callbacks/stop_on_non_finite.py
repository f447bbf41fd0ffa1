import warnings

import keras
import numpy as np

from keras_sagan.callbacks.model_state import FiniteCheck
from keras_sagan.checks import check_integer

ORDER = ("d_loss", "g_loss")  # The order in which a step computes the losses.


class StopOnNonFinite(keras.callbacks.Callback):
    """Stops training when a loss or a weight becomes NaN or infinite.

    Keras's `TerminateOnNaN` looks only at `loss`, which a GAN doesn't have. This callback checks
    every logged metric and every variable of the networks and the optimizers, because a ReLU may
    hide a NaN weight from the losses. A warning names the metric or variable, and `fit` ends.
    `TrainingCheckpoint` never saves NaN or infinite values, so you can resume from the newest
    checkpoint.

    To read the metrics, the callback must wait for the end of each step, like a progress bar. Each
    check reads every variable once. With `steps_per_execution`, one execution counts as a step.

    Args:
        every_steps: The number of steps between checks of the variables. Variables are also checked
            at the end of an epoch, and when a metric isn't finite.

    Raises:
        ValueError: If `every_steps` isn't a positive integer.

    Example:
    ```python
    callbacks = [StopOnNonFinite(), TrainingCheckpoint("runs/first", every_steps=500)]
    model.fit(dataset, epochs=20, steps_per_epoch=156, callbacks=callbacks)
    ```
    """

    def __init__(self, every_steps: int = 1):
        super().__init__()
        self.every_steps = check_integer("every_steps", every_steps, 1)
        self.reason = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.reason = None
        self._check = FiniteCheck(self.model, compiles=True)
        self._last_good = "the start" if not self._check() else None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch, self._done = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        before, self._done = self._done, batch + 1
        bad = [name for name, value in (logs or {}).items() if not np.all(np.isfinite(value))]
        if bad or self._done // self.every_steps > before // self.every_steps:
            self._look(bad)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.reason is None:
            self._look([])

    def _look(self, bad):
        """Stops training if a variable, or a metric named in `bad`, isn't finite."""
        here, broken = f"step {self._done} of epoch {self._epoch + 1}", self._check()
        if not bad and not broken:
            self._last_good = here
            return
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        variables = f"the variable `{broken[0]}`{more}" if broken else ""
        if bad:
            first = next((name for name in ORDER if name in bad), bad[0])
            also = f", and so did {variables}" if broken else ""
            reason = f"`{first}` became NaN or infinite{also}"
        else:
            reason = f"{variables} became NaN or infinite, while every loss was finite"
        good = "A variable was NaN or infinite before the first step"
        if self._last_good:
            good = f"All was finite at {self._last_good}"
        self.reason = f"Training stopped at {here}: {reason}. {good}."
        self.model.stop_training = True
        warnings.warn(self.reason, RuntimeWarning, stacklevel=2)
