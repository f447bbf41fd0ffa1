"""The log of a run or a command, and the one line that reports an error."""

import contextlib
import os
import platform
import shlex
import tempfile
import time
import traceback
import warnings

__all__ = []  # Private to the package.

# Errors of these classes have messages for users. Others are reported with their class.
EXPLAINED = (ValueError, OSError, ImportError, RuntimeError)
LONGEST = 700  # Characters of a message in the line; the log has all of it.


class Log:
    """The record of a command, in `keras_sagan.log` in the folder of its run.

    Lines are kept in memory until the folder holds a run. If a command fails before that, they go
    to a file in the temporary folder.
    """

    def __init__(self, arguments):
        self.folder, self._lines, self._path = None, [], None
        self.write(f"{shlex.join(arguments)}\n{platform.platform()}")

    def write(self, text: str):
        """Adds a text and the time to the log."""
        self._lines.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        if self.folder is not None and os.path.exists(os.path.join(self.folder, "run.json")):
            self._append(os.path.join(self.folder, "keras_sagan.log"))

    def say(self, text: str):
        """Prints a text, and adds it to the log."""
        print(text)
        self.write(text)

    def failed(self, error: BaseException) -> str:
        """Adds an error with its traceback, and returns one line about it that names the log."""
        self.write("".join(traceback.format_exception(error)).rstrip())
        if self._lines:
            with contextlib.suppress(OSError):  # The line is printed anyway.
                handle, path = tempfile.mkstemp(".log", "keras_sagan_")
                os.close(handle)
                self._append(path)
        return one_line(error) + ("" if self._path is None else f" (log: {self._path})")

    @contextlib.contextmanager
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
        with contextlib.suppress(OSError):
            with open(path, "a", encoding="utf-8") as file:
                file.writelines(self._lines)
            self._lines, self._path = [], path


def one_line(error: BaseException) -> str:
    """Returns the message of an error, in one line of bounded length."""
    text = str(error)
    if hasattr(error, "node_def"):  # TensorFlow puts a graph and a traceback around the reason.
        text = "\n".join(line for line in text.splitlines() if "[[" not in line)
        text = text.partition("\nTraceback")[0].rpartition("ValueError: ")[2]
    text = " ".join(text.split())
    if not isinstance(error, EXPLAINED) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"
