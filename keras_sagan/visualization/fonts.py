"""Fonts that have the characters of the text beside pictures."""

import functools
import os
import warnings

from keras_sagan.checks import require

# No font has this character: it is drawn as the box of a missing one.
MISSING = "\U0010ffff"


def font_for(texts, size):
    """Returns Pillow's own font, or matplotlib's for texts that only it can draw."""
    paths = _paths()
    return _load(next((x for x in paths if all(_has(x, text) for text in texts)), paths[-1]), size)


def drawable_names(names, argument="class_names", kind="class"):
    """Returns names on one line each, with `"class 3"` for a name that no font can draw."""
    if names is None:
        return None
    names = [" ".join(str(name).split()) for name in names]
    missing = [i for i, name in enumerate(names) if not any(_has(x, name) for x in _paths())]
    if missing:
        shown = ", ".join(f"{names[i]!r} as {kind} {i}" for i in missing[:5])
        shown += ", …" if len(missing) > 5 else ""
        warnings.warn(
            f"`{argument}` has characters that neither Pillow's font nor matplotlib's has. "
            f"Pictures show {shown}. Use names in Latin, Greek or Cyrillic letters.",
            stacklevel=4,
        )
    return [f"{kind} {i}" if i in missing else name for i, name in enumerate(names)]


@functools.cache
def _paths():
    """Returns the font files: `None` for Pillow's own, then matplotlib's if it is installed."""
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


def _has(path, text):
    return text.isascii() or all(_has_character(path, character) for character in text)


@functools.cache
def _has_character(path, character):
    font = _load(path, 20)
    return character.isascii() or bytes(font.getmask(character)) != bytes(font.getmask(MISSING))
