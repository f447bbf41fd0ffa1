"""Functions of tensors whose gradient is written by hand."""

import contextlib
import functools

import keras
from keras import ops


def with_gradient(function, gradient):
    """Gives a function another gradient than that of its operations.

    Args:
        function: Function of tensors, which returns a tensor.
        gradient: Function of the tuple of the inputs and of the gradient of the output, which
            returns that of the input, or a tuple of those of several inputs. In TensorFlow's
            profiles it has the name of the layer that called the function.

    Returns:
        Function of the same tensors.
    """

    @ops.custom_gradient
    def apply(*inputs):
        scope = _scope_of_gradient()

        def of(*received, upstream=None):
            # TensorFlow and JAX give the output's gradient alone, torch by name.
            with scope():
                return gradient(inputs, received[0] if upstream is None else upstream)

        return function(*inputs), of

    return apply


def _scope_of_gradient():
    """Makes the scope that TensorFlow itself gives to the gradients of operations called here."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext
    import tensorflow as tf

    name = tf.get_current_name_scope()
    return functools.partial(tf.name_scope, f"gradient_tape/{name}/" if name else "gradient_tape/")
