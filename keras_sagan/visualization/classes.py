"""Which classes a picture shows, and what they are called."""

import numpy as np

from keras_sagan.visualization.fonts import drawable_names


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
        List of strings: the names, `"class 3"` for one that no font has the signs for, or the
        labels themselves.

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
    names = drawable_names(class_names)
    return [names[label] for label in labels]
