"""Decides when a callback is due."""


def is_due(epoch: int, every_epochs: int, params: dict | None) -> bool:
    """Returns whether a callback with these `params` runs after `epoch`, which counts from 0.

    It runs at multiples of `every_epochs` and after the last epoch.
    """
    done = epoch + 1
    return done % every_epochs == 0 or done == (params or {}).get("epochs")
