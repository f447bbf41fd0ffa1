"""Checks whether a callback should run after an epoch."""


def is_due(epoch: int, every_epochs: int, params: dict | None) -> bool:
    """Returns `True` after every `every_epochs` epochs and after the last epoch."""
    done = epoch + 1
    return done % every_epochs == 0 or done == (params or {}).get("epochs")
