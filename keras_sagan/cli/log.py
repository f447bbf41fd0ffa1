"""The log of a command, and the one line that reports an error."""

import os
import platform
import shlex
import tempfile
import time
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

import keras

from keras_sagan.metrics.report import package_versions

NAME = "keras_sagan.log"
# Classes whose messages are written for users; for others the line names the class too.
EXPLAINED = (ValueError, OSError, ImportError, RuntimeError)
LONGEST = 700  # Characters of a message in the line; the log has all of it.


class Log:
    """Keeps a record of a command in a file of the run's folder.

    Only a folder that holds a run gets the file: until then the lines are kept in memory. If a
    command fails without such a folder, they go to a file in the temporary folder.

    Args:
        folder: String or path. The folder of the run, or `None` without one.
        arguments: List of strings. The arguments of the command.
    """

    def __init__(self, folder, arguments):
        self.folder = None if folder is None else Path(folder)
        self._lines, self._path = [], None
        versions = ", ".join(f"{name} {value}" for name, value in package_versions().items())
        self.write(f"{shlex.join(arguments)}\n{versions}, {platform.platform()}")

    def write(self, text):
        """Adds a text to the log, after the time."""
        self._lines.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        if self.folder is not None and os.path.exists(self.folder / "run.json"):
            self._append(self.folder / NAME)

    def say(self, text):
        """Prints a text, and adds it to the log."""
        print(text)
        self.write(text)

    def failed(self, error):
        """Adds an error with its traceback, and returns one line about it that names the log."""
        self.write("".join(traceback.format_exception(error)).rstrip())
        if self._lines:
            try:
                handle, path = tempfile.mkstemp(".log", "keras_sagan_")
                os.close(handle)
                self._append(path)
            except OSError:
                pass  # The line is printed anyway.
        return one_line(error) + ("" if self._path is None else f" (log: {self._path})")

    @contextmanager
    def with_warnings(self):
        """Adds the warnings that are shown meanwhile."""
        with warnings.catch_warnings():
            show = warnings.showwarning

            def show_and_write(message, category, *args, **kwargs):
                self.write(f"{category.__name__}: {message}")
                show(message, category, *args, **kwargs)

            warnings.showwarning = show_and_write
            yield

    def _append(self, path):
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.writelines(self._lines)
        except OSError:
            return
        self._lines, self._path = [], path


class EpochLog(keras.callbacks.Callback):
    """Adds the metrics of each epoch to a `Log`."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def on_epoch_end(self, epoch, logs=None):
        values = ", ".join(f"{name} {value:.5g}" for name, value in (logs or {}).items())
        self.log.write(f"epoch {epoch + 1}: {values}")


def one_line(error):
    """Returns what an error says, in one line of bounded length."""
    text = str(error)
    if hasattr(error, "node_def"):  # An error of TensorFlow, around whose reason there is a graph.
        text = "\n".join(line for line in text.splitlines() if "[[" not in line)
        _, found, reason = text.rpartition("assertion failed: ")
        text = reason.strip().strip("[]").replace("] [", "") if found else text
    text = " ".join(text.split())
    if not isinstance(error, EXPLAINED) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"
