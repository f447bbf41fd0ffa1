"""When a callback is due."""


def is_due(epoch, every_epochs, params):
    """Says whether a callback runs at the end of an epoch.

    Args:
        epoch: Integer. The epoch that ends, counted from 0.
        every_epochs: Integer. It runs each time so many epochs are done.
        params: The callback's `params`, whose `"epochs"` is the number of the last one.

    Returns:
        Boolean. `True` at multiples of `every_epochs` and after the last epoch.
    """
    done = epoch + 1
    return done % every_epochs == 0 or done == (params or {}).get("epochs")
