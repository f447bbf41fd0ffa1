"""A progress bar for anything that takes longer than ten seconds."""

import time

import keras


class Progress:
    """Shows a bar if processing `total` images is expected to take more than ten seconds."""

    patience = 10.0  # A bar is shown if the expected time exceeds this number of seconds.

    def __init__(self, title, total=None, verbose=True):
        self._total, self._title, self._is_shown = total, title, verbose
        self._started, self._first, self._bar = time.monotonic(), None, None

    def __call__(self, done: int, total: int | None = None):
        """Updates the bar with the number of processed images and, optionally, a new total."""
        if not self._is_shown:
            return
        self._total = self._total if total is None else total
        if self._first is None:
            # The time of the first batch isn't typical: it may include building a network.
            self._first = (done, time.monotonic())
        if self._bar is None and self._expected(done) > self.patience:
            print(self._title)
            self._bar = keras.utils.Progbar(self._total, unit_name="image")
        if self._bar is not None:
            self._bar.update(done)

    def _expected(self, done):
        now = time.monotonic()
        spent, (first, since) = now - self._started, self._first
        if self._total is None or done == first:
            return spent
        return spent + (self._total - done) * (now - since) / (done - first)
