"""Finds image files in a folder, and reads them."""

import collections
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_sagan.checks import require

MAX_PIXELS = 2**26
"""Larger images are rejected before decoding: 400 kB of PNG can decode to gigabytes."""

# Formats that Pillow registers, but can't decode without other programs or plugins.
_NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
# Folders in which macOS, Synology, QNAP, Windows and Linux keep copies and deleted files.
_SYSTEM_FOLDERS = ("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found")
_BITS_PER_SAMPLE = 258  # The number of the TIFF tag BitsPerSample.


class FoundImages(NamedTuple):
    """The image files in a folder, the names of its subfolders, and the number of other files.

    Attributes:
        paths: Sorted list of `pathlib.Path`, the image files.
        folders: Sorted tuple of strings, the names of the immediate subfolders.
        skipped: Dictionary with the number of skipped files for each lower-case extension, such as
            `".txt"` (`""` for none). A file is skipped if it is a broken link or isn't an image.
    """

    paths: list
    folders: tuple
    skipped: dict


def find_images(folder: str | Path) -> FoundImages:
    """Finds the images in a folder, at any depth, and returns `FoundImages`.

    The function ignores system folders, such as `__MACOSX` and `@eaDir`, and all files and folders
    whose names begin with a dot. Symbolic links are followed, except links to a folder that
    contains them. A warning reports the number of skipped files.

    Raises:
        ImportError: If pillow isn't installed.
        OSError: If a folder can't be listed.
    """
    folder, suffixes = Path(folder), image_suffixes()
    visible = [*_walk(folder, ())]
    folders = {path.relative_to(folder).parts[0] for path in visible if path.is_dir()}
    files = [path for path in visible if not path.is_dir()]
    paths = [path for path in files if path.suffix.lower() in suffixes and path.is_file()]
    skipped = collections.Counter(path.suffix.lower() for path in set(files) - set(paths))
    if skipped := dict(sorted(skipped.items())):
        warnings.warn(
            f"Skipped {describe_skipped(skipped)} in {folder}: they are broken links, or have no "
            "extension of an image that Pillow can read. Convert images to PNG, for example.",
            stacklevel=3,
        )
    return FoundImages(sorted(paths), tuple(sorted(folders)), skipped)


def describe_skipped(skipped: dict) -> str:
    """Describes `FoundImages.skipped` in words, such as `"3 other files (1 .db, 2 .txt)"`."""
    count = sum(skipped.values())
    suffixes = ", ".join(f"{n} {suffix or 'without an extension'}" for suffix, n in skipped.items())
    return f"{count or 'no'} other file{'s' * (count != 1)}" + (f" ({suffixes})" if count else "")


def image_suffixes() -> tuple[str, ...]:
    """Returns the extensions of all image formats that the installed Pillow can read.

    The extensions are in lower case and begin with a dot. They include formats of registered
    plugins, such as `.heic` after `pillow_heif.register_heif_opener()`. Raises an ImportError if
    pillow isn't installed.
    """
    image_module, _ = load_pillow()
    formats = {*_formats(image_module), "MPO"}  # Pillow's JPEG plugin opens MPO files.
    found = image_module.registered_extensions().items()
    return tuple(sorted(suffix for suffix, name in found if name in formats))


def _formats(image_module):
    image_module.init()
    return [name for name in image_module.ID if name not in _NOT_DECODED]


def _walk(folder, parents):
    """Yields the paths of all visible folders and files in a folder, at any depth."""
    parents = (*parents, os.path.realpath(folder))
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.lower() in _SYSTEM_FOLDERS:
            continue
        if not path.is_dir():
            yield path
        elif os.path.realpath(path) not in parents:
            yield path
            yield from _walk(path, parents)


def load_pillow() -> tuple:
    """Returns the modules `PIL.Image` and `PIL.ImageOps`, or raises an `ImportError`."""
    return tuple(require(x, "Reading image files") for x in ("PIL.Image", "PIL.ImageOps"))


def read_image(path: str | Path, channels: int | None = None) -> np.ndarray:
    """Reads an image as an image viewer would display it.

    Transparent areas become white, the EXIF orientation is applied, and 16-bit gray is scaled to 8
    bits. Only the first frame of an animation is read.

    Args:
        path: String or path.
        channels: 1 for gray or 3 for RGB. If `None`, the result has 1 channel for a gray file,
            and 3 channels for any other file.

    Returns:
        uint8 array in [0, 255] of shape `(height, width, channels)`.

    Raises:
        ValueError: If the file can't be read, is truncated, contains floats or integers of more
            than 16 bits, or has more than `MAX_PIXELS` pixels. The message doesn't contain the file
            name.
        ImportError: If pillow isn't installed.
    """
    image_module, ops_module = load_pillow()
    try:
        with image_module.open(path, formats=_formats(image_module)) as picture:
            return _pixels(picture, channels, image_module, ops_module)
    except image_module.DecompressionBombError as error:
        raise ValueError(f"it would decode to too many pixels ({error})") from error
    except Exception as error:  # Damaged files cause all kinds of errors.
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
    """Returns the gray values of a 16-bit image, or of a 12-bit TIFF image, as a uint8 array."""
    bits = 12 if getattr(opened, "tag_v2", {}).get(_BITS_PER_SAMPLE) == (12,) else 16
    white = 2**bits - 1
    values = np.asarray(picture).astype(np.int64)
    low, high = values.min(), values.max()
    # Pillow's mode I means 16 bits only in PNG and PPM; in other formats, white may be 255.
    is_known = picture.mode != "I" or opened.format in ("PNG", "PPM")
    if low < 0 or high > white or (high < 256 and not is_known):
        raise ValueError(f"its pixels are integers in [{low}, {high}], not of 8 or 16 bits")
    values[values == picture.info.get("transparency")] = white
    return np.rint(values * (255 / white)).astype(np.uint8)
