"""Decides when, and for which models, callbacks run."""

import keras


class SAGANCallback(keras.callbacks.Callback):
    """Base class of callbacks that need attributes or methods of a `SAGAN`, named in `needs`."""

    needs: tuple[str, ...] = ()

    def set_model(self, model: keras.Model) -> None:
        missing = [name for name in self.needs if not hasattr(model, name)]
        if missing:
            raise ValueError(
                f"`{type(self).__name__}` must be given a SAGAN, or a model with its "
                f"{', '.join(self.needs)}. Received: {type(model).__name__} without {missing[0]}"
            )
        super().set_model(model)


def is_due(epoch: int, every_epochs: int, params: dict | None) -> bool:
    """Returns `True` after every `every_epochs` epochs and after the last epoch."""
    done = epoch + 1
    return done % every_epochs == 0 or done == (params or {}).get("epochs")
