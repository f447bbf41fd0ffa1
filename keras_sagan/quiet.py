"""Hides TensorFlow's log messages on the command line, but not in other programs.

TensorFlow ignores its own setting `TF_CPP_MIN_LOG_LEVEL` while it is imported, so standard error is
discarded during the import of Keras. On the command line, `TF_CPP_MIN_LOG_LEVEL` defaults to 3; the
value 0 shows every message.
"""

import logging
import os
import sys

__all__ = []


def _is_command():
    program = (getattr(sys, "argv", None) or [""])[0]
    is_module = program == "-m" and "keras_sagan" in sys.orig_argv
    return is_module or os.path.basename(program) in ("keras-sagan", "keras-sagan.exe")


IS_COMMAND = _is_command()
"""Whether this process is `keras-sagan` or `python -m keras_sagan`."""


def import_quietly():
    """Imports Keras and its backend and discards their messages, but only on the command line."""
    if not IS_COMMAND or os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        return
    for name in ("absl", "tensorflow"):  # These loggers warn about retracing.
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # `os.dup` fails if standard error is closed.
        return
    try:
        os.dup2(nowhere, 2)
        import keras

        # This call imports TensorFlow, if installed, while its messages are discarded.
        keras.saving.serialize_keras_object(keras.dtype_policies.get("float32"))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
