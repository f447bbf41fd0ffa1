"""Imports Keras without TensorFlow's log lines, where this process is the command line.

TensorFlow's own setting, `TF_CPP_MIN_LOG_LEVEL`, isn't followed while it is imported, so standard
error goes nowhere meanwhile. The command line sets it to 3 for the rest of the process, unless the
user has set it; 0 shows every line. Programs that import the package are left as they are.
"""

import logging
import os
import sys

__all__ = []  # For the command alone: nothing of it is in the reference.

NAMES = ("keras-sagan", "keras-sagan.exe")


def is_command():
    """Returns whether this is `keras-sagan` or `python -m keras_sagan`."""
    program = (getattr(sys, "argv", None) or [""])[0]
    is_module = program == "-m" and "keras_sagan" in sys.orig_argv
    return is_module or os.path.basename(program) in NAMES


def import_quietly():
    """Imports Keras and its backend with standard error shut."""
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        return
    for name in ("absl", "tensorflow"):  # Those that Python writes, such as of retracing.
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # There is no standard error.
        return
    try:
        os.dup2(nowhere, 2)
        import keras  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


if is_command():
    import_quietly()
