"""Imports TensorFlow when it is first used, because other backends work without it."""

import contextlib
import functools
import sys

import keras

__all__ = []


class _TensorFlow:
    def __getattr__(self, name):
        if name.startswith("__"):  # Don't import TensorFlow when a tool looks up `__wrapped__`.
            raise AttributeError(name)
        try:
            import tensorflow
        except ImportError as error:
            raise ImportError(
                f"This part of keras_sagan needs TensorFlow. Run: pip install tensorflow ({error})",
                name="tensorflow",
            ) from error
        _leave_devices(tensorflow)
        return getattr(tensorflow, name)


@functools.lru_cache(None)
def _leave_devices(tensorflow):
    """On other backends, hides GPUs and TPUs so that TensorFlow doesn't reserve their memory."""
    if keras.backend.backend() != "tensorflow":
        for kind in ("GPU", "TPU"):
            with contextlib.suppress(RuntimeError):  # TensorFlow may already be using the devices.
                tensorflow.config.set_visible_devices([], kind)


tf = _TensorFlow()


def is_tensorflow_dataset(value) -> bool:
    """Returns whether a value is a `tf.data.Dataset`, without importing TensorFlow."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.data.Dataset)
