"""Hides TensorFlow's log lines from users of the command line, but not from other programs.

TensorFlow ignores its own setting, `TF_CPP_MIN_LOG_LEVEL`, during import, so standard error is
redirected to nowhere while Keras is imported. The setting then defaults to 3; 0 shows every line.
"""

import logging
import os
import sys

__all__ = []  # Private to the command.


def _is_command():
    program = (getattr(sys, "argv", None) or [""])[0]
    is_module = program == "-m" and "keras_sagan" in sys.orig_argv
    return is_module or os.path.basename(program) in ("keras-sagan", "keras-sagan.exe")


IS_COMMAND = _is_command()
"""Whether this process is `keras-sagan` or `python -m keras_sagan`."""


def import_quietly():
    """Imports Keras and its backend, for the command without standard error."""
    if not IS_COMMAND or os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        return
    for name in ("absl", "tensorflow"):  # Python's own lines, such as warnings of retracing.
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # There is no standard error.
        return
    try:
        os.dup2(nowhere, 2)
        import keras

        # Keras imports TensorFlow, if installed, when it saves or loads on any backend.
        keras.saving.serialize_keras_object(keras.dtype_policies.get("float32"))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
