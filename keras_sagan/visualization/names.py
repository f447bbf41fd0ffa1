"""Chooses the classes that a picture shows, their names, and a font that has all characters."""

import functools
import os
import warnings

import numpy as np

from keras_sagan.checks import require

# A character that no font has; fonts draw it as the box for missing characters.
MISSING = "\U0010ffff"


def spread_classes(num_classes, count):
    """Returns `count` evenly spaced class ids in ascending order, or `None` without classes."""
    return (
        None if num_classes is None else (np.arange(count) * num_classes // count).astype("int32")
    )


def names_of(labels, class_names, num_classes):
    """Returns the name (or id) of each label's class, or `None` without labels or classes."""
    if num_classes is None and class_names is not None:
        raise ValueError(
            "`class_names` must be None for an unconditional model. "
            f"Received: class_names={class_names}"
        )
    if num_classes is None or labels is None:
        return None
    if class_names is None:
        return [str(int(label)) for label in labels]
    if len(class_names) != num_classes:
        raise ValueError(
            f"`class_names` must name each of the model's {num_classes} classes. "
            f"Received: class_names of length {len(class_names)}"
        )
    names = drawable_names(class_names)
    return [names[label] for label in labels]


def drawable_names(names, argument="class_names", kind="class"):
    """Returns one-line names; a name that no font can render is replaced with `"class <index>"`."""
    if names is None:
        return None
    names = [" ".join(str(name).split()) for name in names]
    missing = [i for i, name in enumerate(names) if not any(_has(x, name) for x in _paths())]
    if missing:
        shown = ", ".join(f"{names[i]!r} as {kind} {i}" for i in missing[:5])
        warnings.warn(
            f"`{argument}` has characters that the fonts of Pillow and matplotlib lack. "
            f"Pictures show {shown}{', …' * (len(missing) > 5)}. "
            "Use names in Latin, Greek or Cyrillic letters.",
            stacklevel=4,
        )
    return [f"{kind} {i}" if i in missing else name for i, name in enumerate(names)]


def font_for(texts, size):
    """Returns Pillow's own font, or matplotlib's font if Pillow's font can't render the texts."""
    paths = _paths()
    return _load(next((x for x in paths if all(_has(x, text) for text in texts)), paths[-1]), size)


@functools.cache
def _paths():
    """Returns font paths: `None` for Pillow's font, and matplotlib's font if it is installed."""
    try:
        folder = require("matplotlib").get_data_path()
    except ImportError:
        return (None,)
    path = os.path.join(folder, "fonts", "ttf", "DejaVuSans.ttf")
    return (None, path) if os.path.exists(path) else (None,)


@functools.cache
def _load(path, size):
    module = require("PIL.ImageFont")
    return module.load_default(size=size) if path is None else module.truetype(path, size)


@functools.cache
def _has(path, text):
    """Returns whether a font has all characters in `text`."""
    if text != text.encode(errors="ignore").decode():  # A name that isn't valid UTF-8.
        return False
    masks = [bytes(_load(path, 20).getmask(x)) for x in text if not x.isascii()]
    return not masks or bytes(_load(path, 20).getmask(MISSING)) not in masks
