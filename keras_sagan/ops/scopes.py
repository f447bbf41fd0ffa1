"""Scopes that hold the values that layers assign to variables."""

import keras


class Scope(keras.StatelessScope):
    """Holds assigned values without changing variables, and also sees the values of outer scopes.

    Keras's `StatelessScope` sees only its own values. On JAX, the full training step runs in a
    scope; a `StatelessScope` inside it would read a variable's value from before the step.
    """

    def __init__(self, state_mapping=None, collect_losses=False):
        super().__init__(state_mapping, collect_losses)
        self._variables = {}  # The assigned variables, by id.

    def __enter__(self):
        super().__enter__()
        outer = {} if self.original_scope is None else self.original_scope.state_mapping
        self._given = {**outer, **self.state_mapping}
        self.state_mapping = dict(self._given)
        return self

    def add_update(self, update):
        self._variables[id(update[0])] = update[0]
        super().add_update(update)

    def assigned(self, variables):
        """Returns the list of values assigned to variables here, with `None` for no assignment."""
        pairs = [(self._given.get(id(v)), self.state_mapping.get(id(v))) for v in variables]
        return [None if value is given else value for given, value in pairs]

    def commit(self, layer):
        """After the `with` block, assigns what the scope recorded, and adds its losses."""
        for key, variable in self._variables.items():
            variable.assign(self.state_mapping[key])
        outer = self.original_scope
        add_loss = layer.add_loss if outer is None else outer.add_loss
        if outer is None or outer.collect_losses:
            for loss in self.losses:
                add_loss(loss)
