"""A progress bar for anything that takes longer than ten seconds."""

import time

import keras

__all__ = []


class Progress:
    """Shows a title and a progress bar for anything that takes longer than ten seconds."""

    patience = 10.0  # The bar appears after this number of seconds.

    def __init__(self, title, total=None, verbose=True):
        self._title, self._verbose, self._is_shown = title, verbose, False
        # The bar measures the time from here, but prints nothing before its first update.
        self._bar, self._started = keras.utils.Progbar(total, unit_name="image"), time.monotonic()

    def __call__(self, done: int, total: int | None = None):
        """Updates the bar with the number of processed images and, optionally, a new total."""
        self._bar.target = total or self._bar.target
        if self._verbose and time.monotonic() - self._started > self.patience:
            if not self._is_shown:
                print(self._title)
                self._is_shown = True
            self._bar.update(done)
