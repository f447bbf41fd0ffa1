"""The classes of a picture and their names."""

import numpy as np

from keras_sagan.visualization.fonts import drawable_names


def spread_classes(num_classes, count):
    """Returns `count` class ids, int32 and ascending, spread evenly over all classes."""
    return (np.arange(count) * num_classes // count).astype("int32")


def names_of(labels, class_names, num_classes):
    """Returns the class name of each label, or its number where `class_names` is `None`."""
    if class_names is None:
        return [str(int(label)) for label in labels]
    if len(class_names) != num_classes:
        raise ValueError(
            f"`class_names` must name each of the model's {num_classes} classes. "
            f"Received: class_names of length {len(class_names)}"
        )
    names = drawable_names(class_names)
    return [names[label] for label in labels]
