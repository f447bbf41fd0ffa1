"""Decides when a callback is due."""


def is_due(epoch: int, every_epochs: int, params: dict | None) -> bool:
    """Returns whether a callback is due: after every `every_epochs` epochs and the last one."""
    done = epoch + 1
    return done % every_epochs == 0 or done == (params or {}).get("epochs")
