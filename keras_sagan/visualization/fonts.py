"""Fonts that have the signs of what is written beside pictures."""

import functools
import os
import warnings

from keras_sagan.checks import require

# No font has it: what it draws is the box that stands for a missing sign.
MISSING = "\U0010ffff"


def font_for(texts, size):
    """Returns Pillow's own font or, for texts that it has no signs for, matplotlib's.

    Args:
        texts: List of strings.
        size: Float. Pixels.

    Returns:
        A font of Pillow.
    """
    paths = _paths()
    path = next((x for x in paths if all(_has_signs(x, text) for text in texts)), paths[-1])
    return _load(path, size)


def is_drawable(text):
    """Whether one of the fonts has all signs of a text."""
    return any(_has_signs(path, text) for path in _paths())


def drawable_names(names, argument="class_names", kind="class"):
    """Replaces names that no font has the signs for, and warns of them.

    Args:
        names: List, or `None`, which is returned.
        argument: String. What the warning calls them. Defaults to `"class_names"`.
        kind: String. What a name is of. Defaults to `"class"`.

    Returns:
        List of strings on one line each: the names, or `"class 3"` for the one at index 3.
    """
    if names is None:
        return None
    names = [" ".join(str(name).split()) for name in names]
    missing = [i for i, name in enumerate(names) if not is_drawable(name)]
    if missing:
        shown = ", ".join(f"{names[i]!r} as {kind} {i}" for i in missing[:5])
        shown += ", …" if len(missing) > 5 else ""
        warnings.warn(
            f"`{argument}` has signs that neither Pillow's font nor matplotlib's has: {shown} is "
            "written in pictures. Give names in Latin, Greek or Cyrillic letters to read them.",
            stacklevel=4,
        )
    return [f"{kind} {i}" if i in missing else name for i, name in enumerate(names)]


@functools.cache
def _paths():
    """Files of fonts, `None` for Pillow's own."""
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


def _has_signs(path, text):
    return text.isascii() or all(_has_sign(path, sign) for sign in text)


@functools.cache
def _has_sign(path, sign):
    font = _load(path, 20)
    return sign.isascii() or bytes(font.getmask(sign)) != bytes(font.getmask(MISSING))
