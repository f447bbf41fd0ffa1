"""Keeps the best checkpoint of a run, according to a logged metric."""

import warnings

import numpy as np

from keras_sagan.callbacks.checkpoint_files import CheckpointFiles, DamagedCheckpoint
from keras_sagan.checks import check_choice, check_string

LOWER_IS_BETTER = ("loss", "fid", "kid", "distance")
HIGHER_IS_BETTER = ("accuracy", "inception_score", "precision", "recall")


class BestCheckpoint:
    """Tracks the best value of the metric `monitor` and its checkpoint in the folder `best`."""

    def __init__(self, directory, monitor, mode):
        mode = check_choice("mode", mode, ("auto", "min", "max"))
        self.monitor = check_string("monitor", monitor)
        if mode == "auto":
            falls = any(word in monitor for word in LOWER_IS_BETTER)
            rises = any(word in monitor for word in HIGHER_IS_BETTER)
            if falls == rises:
                raise ValueError(
                    '`mode` must be "min" or "max" if `monitor` doesn\'t show which is better. '
                    f"Received: mode='auto', monitor={monitor!r}"
                )
            mode = "min" if falls else "max"
        self.files = CheckpointFiles(f"{directory}/best", keep=1)
        self.value = self.latest = None
        self._compare = np.less if mode == "min" else np.greater
        self._has_seen = False  # True after an epoch has logged `monitor`.

    def begin(self, is_chief: bool, protocol: dict | None):
        """Reads the best value so far, unless its protocol differs in an entry that both know."""
        if is_chief:
            self.files.remove_incomplete()
        self.value = None
        for step in reversed(self.files.steps()):
            try:
                manifest = self.files.manifest(step)
            except DamagedCheckpoint as error:
                warnings.warn(f"The best checkpoint is damaged: {error}.", stacklevel=3)
                continue
            old = manifest.get("protocol") or {}
            pairs = [(old.get(name), value) for name, value in (protocol or {}).items()]
            is_same = all(None in pair or pair[0] == pair[1] for pair in pairs)
            if manifest.get("monitor") == self.monitor and is_same:
                self.value = manifest["value"]
                return

    def is_better(self, logs: dict | None) -> bool:
        """Returns whether an epoch has a better value of `monitor` than any earlier epoch."""
        value = (logs or {}).get(self.monitor)
        self.latest = None if value is None else float(value)  # Some workers don't log the metric.
        self._has_seen |= value is not None
        if value is None or not np.isfinite(value):
            return False
        return self.value is None or bool(self._compare(value, self.value))

    def warn_if_unseen(self, logs: dict | None):
        """Warns at the end of training if no epoch logged `monitor`."""
        if logs and not self._has_seen:
            warnings.warn(
                "`monitor` must be among the logs of an epoch: no best checkpoint was kept. "
                f"Received: monitor={self.monitor!r}, and logs of {', '.join(logs)}",
                stacklevel=4,
            )
