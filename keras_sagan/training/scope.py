"""A stateless scope that works inside of another one."""

import keras


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
