"""The best checkpoint of a run by one of its figures."""

import os
import warnings

import numpy as np

from keras_sagan.callbacks.checkpoint_store import CheckpointStore, DamagedCheckpoint
from keras_sagan.checks import check_choice, check_string

LOWER_IS_BETTER = ("loss", "fid", "kid", "distance")
HIGHER_IS_BETTER = ("accuracy", "inception_score", "precision", "recall")


class BestCheckpoint:
    """Knows the best value of a figure so far, and where its checkpoint is kept.

    Args:
        directory: String, the folder of the run; the best checkpoint is in its folder `best`.
        monitor: String, a key of an epoch's figures, or `None` to keep no best one.
        mode: `"min"`, `"max"`, or `"auto"` to tell from `monitor`.

    Raises:
        ValueError: For another mode, or where `"auto"` can't tell.
    """

    def __init__(self, directory, monitor, mode):
        self.store = CheckpointStore(os.path.join(directory, "best"), keep=1)
        self.monitor = monitor
        self.value = None
        self.has_seen = False  # Whether an epoch had the figure.
        self._is_better = _comparison(monitor, mode)

    def begin(self):
        """Takes the value of the checkpoint that is there, if one is."""
        self.value = None
        for step in reversed(self.store.steps() if self.monitor else []):
            try:
                manifest = self.store.manifest(step)
            except DamagedCheckpoint as error:
                warnings.warn(f"Damaged: {error}.", stacklevel=3)
                continue
            if manifest.get("monitor") == self.monitor:
                self.value = manifest["value"]
                return

    def find_in(self, logs):
        """Returns the figure if it is better than all before, else `None`."""
        value = None if self.monitor is None else (logs or {}).get(self.monitor)
        if value is None:
            return None
        self.has_seen = True
        value = float(value)
        is_best = np.isfinite(value) and (self.value is None or self._is_better(value, self.value))
        return value if is_best else None

    def warn_if_unseen(self, logs):
        """Warns at the end of a training in which no epoch had the figure."""
        if self.monitor is not None and logs and not self.has_seen:
            warnings.warn(
                f"`monitor` must be among the figures of an epoch: no best checkpoint was kept. "
                f"Received: monitor={self.monitor!r}, and figures {', '.join(logs)}",
                stacklevel=3,
            )


def _comparison(monitor, mode):
    mode = check_choice("mode", mode, ("auto", "min", "max"))
    if check_string("monitor", monitor, optional=True) is None:
        return None
    if mode == "auto":
        falls, rises = (
            any(word in monitor for word in words) for words in (LOWER_IS_BETTER, HIGHER_IS_BETTER)
        )
        if falls == rises:
            raise ValueError(
                '`mode` must be "min" or "max" where `monitor` doesn\'t tell which is better. '
                f"Received: mode='auto', monitor={monitor!r}"
            )
        mode = "min" if falls else "max"
    return np.less if mode == "min" else np.greater
