"""When a callback is due, and which classes it shows."""

import numpy as np


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


def spread_classes(num_classes, count):
    """Chooses classes that are spread evenly over all there are.

    Args:
        num_classes: Integer. How many there are.
        count: Integer. How many to choose; above `num_classes` they repeat.

    Returns:
        int32 array of shape `(count,)`, ascending.
    """
    return (np.arange(count) * num_classes // count).astype("int32")


def names_of(labels, class_names, num_classes):
    """Names the classes of labels.

    Args:
        labels: Integer array.
        class_names: List of strings, one for each class, or `None`.
        num_classes: Integer. How many classes the model has.

    Returns:
        List of strings: the names, or the labels themselves.

    Raises:
        ValueError: If there isn't one name for each class.
    """
    if class_names is None:
        return [str(int(label)) for label in labels]
    if len(class_names) != num_classes:
        raise ValueError(
            f"`class_names` must name each of the model's {num_classes} classes. "
            f"Received: class_names of length {len(class_names)}"
        )
    return [str(class_names[label]) for label in labels]
