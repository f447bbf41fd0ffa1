"""The training step, and what each backend adds to it."""

import importlib
import sys

import keras

BACKENDS = ("tensorflow", "jax", "torch")

if keras.backend.backend() not in BACKENDS:
    raise ImportError(
        f"keras_sagan needs one of the backends {BACKENDS}: set KERAS_BACKEND before Keras is "
        f"imported. Received: KERAS_BACKEND={keras.backend.backend()}"
    )
backend = importlib.import_module(f"keras_sagan.training.{keras.backend.backend()}")

from keras_sagan.training.step import LayerScope  # noqa: E402  # It looks up `backend`.


def input_gradient(function, inputs):
    """The gradient of the sum of a function with respect to its inputs, differentiable once more.

    Args:
        function: Function of one tensor, such as a discriminator that already has its labels. What
            its layers assign is dropped.
        inputs: Float tensor.

    Returns:
        Tensor of the shape of `inputs`.
    """

    def total(inputs):
        with LayerScope():
            return keras.ops.sum(function(inputs))

    return backend.input_gradient(total, inputs)


def check_owner_of_devices():
    """Raises for a strategy of TensorFlow's or a distribution of Keras's on another backend.

    It would be ignored in silence.
    """
    name = keras.backend.backend()
    tf = sys.modules.get("tensorflow")
    if name != "tensorflow" and hasattr(tf, "distribute") and tf.distribute.has_strategy():
        advice = "use `keras.distribution`" if name == "jax" else "train on one device"
        raise ValueError(
            f"A tf.distribute strategy belongs to the TensorFlow backend: {advice} on {name}. "
            f"Received: the scope of {type(tf.distribute.get_strategy()).__name__}"
        )
    distribution = keras.distribution.distribution()
    if name != "jax" and distribution is not None:
        advice = (
            "`keras_sagan.distribution.make_strategy`" if name == "tensorflow" else "one device"
        )
        raise ValueError(
            f"A `keras.distribution` belongs to the JAX backend: use {advice} on {name}. "
            f"Received: {type(distribution).__name__}"
        )


__all__ = ["input_gradient"]
