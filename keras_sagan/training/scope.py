"""Stateless scopes that work inside of each other."""

import keras
from keras import ops


class Scope(keras.StatelessScope):
    """Keeps what is assigned inside from the variables, and sees what the scopes around it keep.

    Keras's own scope sees its own values alone: inside of another one, as on JAX where a whole step
    runs in a scope, a variable would have its value from before the step.
    """

    original_scope = None  # The scope around this one, which Keras sets.

    def get_current_value(self, variable):
        value = self.assigned(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value

    def assigned(self, variable):
        """Returns the value that a variable was given or assigned here, or `None`."""
        return super().get_current_value(variable)


class LayerScope(Scope):
    """Keeps what layers assign.

    A layer that assigns a trainable variable in `call`, as Keras's `SpectralNormalization` does,
    uses the new value from there on. The variable's gradient is then that of the new value, as in
    a plain training loop.
    """

    def add_update(self, update):
        variable, value = update
        if variable.trainable:
            # The new value, with the gradient of the variable.
            old = ops.cast(variable.value, value.dtype)
            value = ops.stop_gradient(value) + (old - ops.stop_gradient(old))
        super().add_update((variable, value))
