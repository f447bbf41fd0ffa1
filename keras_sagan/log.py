"""The log of a run or a command, and one-line error reports."""

import contextlib
import os
import platform
import shlex
import tempfile
import time
import traceback
import warnings

__all__ = []

# The messages of these errors are meant for users. Reports of other errors also name the class.
EXPLAINED = (ValueError, OSError, ImportError, RuntimeError)
LONGEST = 700  # The maximum length of a report in characters; the log has the full message.


class Log:
    """The log of a command, saved as `keras_sagan.log` in the folder of its run.

    Lines are kept in memory until `run.json` exists in the folder. If a command fails earlier, its
    lines are written to a file in the temporary folder.
    """

    def __init__(self, arguments):
        self.folder, self._lines, self._path = None, [], None
        self.write(f"{shlex.join(arguments)}\n{platform.platform()}")

    def write(self, text: str):
        """Adds text and the current time to the log."""
        self._lines.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        if self.folder is not None and os.path.exists(os.path.join(self.folder, "run.json")):
            self._append(os.path.join(self.folder, "keras_sagan.log"))

    def say(self, text: str):
        """Prints text, and adds it to the log."""
        print(_printable(str(text)))
        self.write(text)

    def failed(self, error: BaseException) -> str:
        """Logs an error with its traceback; returns a one-line report with the path of the log."""
        self.write("".join(traceback.format_exception(error)).rstrip())
        if self._lines:
            with contextlib.suppress(OSError):
                handle, path = tempfile.mkstemp(".log", "keras_sagan_")
                os.close(handle)
                self._append(path)
        return one_line(error) + ("" if self._path is None else f" (log: {self._path})")

    @contextlib.contextmanager
    def with_warnings(self):
        """Logs warnings inside the `with` block, and still shows them."""
        with warnings.catch_warnings():
            show = warnings.showwarning

            def show_and_write(message, category, *args, **kwargs):
                self.write(f"{category.__name__}: {message}")
                show(message, category, *args, **kwargs)

            warnings.showwarning = show_and_write
            yield

    def _append(self, path):
        with contextlib.suppress(OSError):
            with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(self._lines)
            self._lines, self._path = [], path


def _printable(text):
    """Escapes the characters that stand for invalid UTF-8 in a file name."""
    return text.encode(errors="backslashreplace").decode()


def one_line(error: BaseException) -> str:
    """Returns an error's message as one line of limited length."""
    text = str(error)
    if hasattr(error, "node_def"):  # TensorFlow adds lines about its graph to the message.
        text = "\n".join(line for line in text.splitlines() if "[[" not in line)
        text = text.partition("\nTraceback")[0].rpartition("ValueError: ")[2]
    text = " ".join(_printable(text).split())
    if not isinstance(error, EXPLAINED) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"
