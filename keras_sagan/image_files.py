"""Image files: which ones there are in a folder, and the one way to read them."""

import warnings
from pathlib import Path

import numpy as np

from keras_sagan.checks import require

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How the names of image files end."""
MAX_PIXELS = 2**26
"""A picture beyond this is refused before it is decoded: 400 kB of PNG can hold gigabytes."""


def find_images(folder):
    """Returns the paths of the images below a folder, at any depth, in their order.

    Args:
        folder: String or path of a folder.

    Returns:
        List of `pathlib.Path`: the files that end in one of `SUFFIXES`.
    """
    return sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def load_pillow():
    """Imports pillow.

    Returns:
        The modules `PIL.Image` and `PIL.ImageOps`.

    Raises:
        ImportError: If it isn't installed, with the line that installs it.
    """
    return tuple(require(x, "Reading image files") for x in ("PIL.Image", "PIL.ImageOps"))


def read_image(path, channels=None):
    """Reads an image as it is seen.

    Transparency is laid on white, of an animation the first picture is taken, and the camera's
    orientation is followed.

    Args:
        path: String or path.
        channels: 1 for grey, 3 for RGB, or `None` for what the file has. Defaults to `None`.

    Returns:
        uint8 array in [0, 255] of shape (height, width, channels).

    Raises:
        ValueError: If the file can't be read, is cut short, isn't of 8 bits, or would decode to
            more than `MAX_PIXELS`; the message says what is wrong, and not with which file.
        ImportError: If pillow isn't installed.
    """
    image_module, ops_module = load_pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image_module.DecompressionBombWarning)
            with image_module.open(path) as picture:
                return _pixels(picture, channels, image_module, ops_module)
    except image_module.DecompressionBombError as error:
        raise ValueError(f"it would decode to too many pixels ({error})") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _pixels(picture, channels, image_module, ops_module):
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it would decode to {width} × {height} pixels")
    picture.load()
    picture = ops_module.exif_transpose(picture)
    if picture.mode == "F" or picture.mode.startswith("I"):
        raise ValueError(f"its pixels are of mode {picture.mode}, not of 8 bits")
    if channels is None:
        channels = 1 if picture.mode in ("1", "L", "LA", "La") else 3
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = image_module.new("RGBA", picture.size, "white")
        picture = image_module.alpha_composite(white, picture)
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)
