"""Image files: which ones there are in a folder, and the one way to read them."""

import collections
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_sagan.checks import require

MAX_PIXELS = 2**26
"""A picture beyond this is refused before it is decoded: 400 kB of PNG can hold gigabytes."""

# Pillow registers these formats, but decodes them by a program or plugin of others, or not at all.
_NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
# Folders of macOS, Synology, QNAP, Windows and Linux that hold copies and deleted files.
_SYSTEM_FOLDERS = ("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found")
_BITS_PER_SAMPLE = 258  # a tag of TIFF


class FoundImages(NamedTuple):
    """What a folder holds.

    Attributes:
        paths: List of `pathlib.Path`, the image files in their order.
        folders: Tuple of strings, the names of the folders right below in their order.
        skipped: Dictionary from an ending in lower case, such as `".txt"`, to the number of files
            that aren't images, or `""` for names without one. Broken links count here too.
    """

    paths: list
    folders: tuple
    skipped: dict


def find_images(folder):
    """Finds the images below a folder, at any depth.

    Hidden files and folders are passed over: names that begin with a dot, and folders such as
    `__MACOSX` and `@eaDir` that systems keep copies in. Symbolic links are followed, except those
    to a folder that they are in. A warning counts the files with other endings.

    Args:
        folder: String or path of a folder.

    Returns:
        `FoundImages`.

    Raises:
        ImportError: If pillow isn't installed.
        OSError: If a folder can't be listed.
    """
    folder, suffixes = Path(folder), image_suffixes()
    paths, folders, skipped = [], set(), collections.Counter()
    for path in _walk(folder, ()):
        ending = path.suffix.lower()
        if path.is_dir():
            folders.add(path.relative_to(folder).parts[0])
        elif ending in suffixes and path.is_file():
            paths.append(path)
        else:
            skipped[ending] += 1
    skipped = dict(sorted(skipped.items()))
    if skipped:
        warnings.warn(
            f"Skipped {describe_skipped(skipped)} in {folder}: Pillow reads no image with such an "
            "ending, or the file is a broken link. Convert images among them, for example to PNG.",
            stacklevel=3,
        )
    return FoundImages(sorted(paths), tuple(sorted(folders)), skipped)


def describe_skipped(skipped):
    """Returns `skipped` of `FoundImages` in words, such as `"3 other files (1 .db, 2 .txt)"`."""
    count = sum(skipped.values())
    endings = ", ".join(f"{n} {ending or 'without an ending'}" for ending, n in skipped.items())
    return f"{count or 'no'} other file{'s' * (count != 1)}" + (f" ({endings})" if count else "")


def image_suffixes():
    """Returns the endings of all image files that the installed Pillow reads.

    Plugins count once they are registered: `pillow_heif.register_heif_opener()` adds `.heic`.

    Returns:
        Tuple of strings in lower case, with their dots.

    Raises:
        ImportError: If pillow isn't installed.
    """
    image_module, _ = load_pillow()
    formats = {*_formats(image_module), "MPO"}  # The plugin of JPEG opens MPO.
    known = image_module.registered_extensions()
    return tuple(sorted(ending for ending, name in known.items() if name in formats))


def _formats(image_module):
    image_module.init()
    return [name for name in image_module.ID if name not in _NOT_DECODED]


def _walk(folder, above):
    """Yields the paths of all folders and files below a folder that aren't hidden."""
    above = (*above, os.path.realpath(folder))
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.lower() in _SYSTEM_FOLDERS:
            continue
        if not path.is_dir():
            yield path
        elif os.path.realpath(path) not in above:
            yield path
            yield from _walk(path, above)


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

    Transparency is laid on white, the first picture of an animation is taken, and the camera's
    orientation is followed. 16-bit gray is scaled to 8 bits.

    Args:
        path: String or path.
        channels: 1 for gray, 3 for RGB, or `None` for what the file has. Defaults to `None`.

    Returns:
        uint8 array in [0, 255] of shape (height, width, channels).

    Raises:
        ValueError: If the file can't be read, is cut short, has floats or integers beyond 16 bits,
            or would decode to more than `MAX_PIXELS`. The message says what is wrong, but doesn't
            name the file.
        ImportError: If pillow isn't installed.
    """
    image_module, ops_module = load_pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image_module.DecompressionBombWarning)
            with image_module.open(path, formats=_formats(image_module)) as picture:
                return _pixels(picture, channels, image_module, ops_module)
    except image_module.DecompressionBombError as error:
        raise ValueError(f"it would decode to too many pixels ({error})") from error
    except Exception as error:  # Decoders raise errors of many classes for a damaged file.
        raise ValueError(str(error) or type(error).__name__) from error


def _pixels(picture, channels, image_module, ops_module):
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it would decode to {width} × {height} pixels")
    picture.load()
    opened, picture = picture, ops_module.exif_transpose(picture)
    if picture.mode == "F":
        raise ValueError("its pixels are of mode F, floating-point, not of 8 or 16 bits")
    if picture.mode.startswith("I"):
        picture = image_module.fromarray(_to_8_bits(picture, opened))
    if channels is None:
        channels = 1 if picture.mode in ("1", "L", "LA", "La") else 3
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = image_module.new("RGBA", picture.size, "white")
        picture = image_module.alpha_composite(white, picture)
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _to_8_bits(picture, opened):
    """uint8 array of gray values from a picture of 16 bits, or of 12 as TIFF has them."""
    bits = 12 if getattr(opened, "tag_v2", {}).get(_BITS_PER_SAMPLE) == (12,) else 16
    white = 2**bits - 1
    values = np.asarray(picture).astype(np.int64)
    low, high = values.min(), values.max()
    # Other formats use mode I for integers of 32 bits, whose white may as well be 255.
    is_known = picture.mode != "I" or opened.format in ("PNG", "PPM")
    if low < 0 or high > white or (high < 256 and not is_known):
        raise ValueError(f"its pixels are integers in [{low}, {high}], not of 8 or 16 bits")
    values[values == picture.info.get("transparency")] = white
    return np.rint(values * (255 / white)).astype(np.uint8)
