"""Any folder of images, read into memory."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_sagan.checks import check_boolean, check_choice, check_integer, check_path
from keras_sagan.data.pipeline import aligned_empty
from keras_sagan.data.tfds import square_resize
from keras_sagan.image_files import describe_skipped, find_images, read_image
from keras_sagan.lazy import tf


class ImageFolder(NamedTuple):
    """What was found in a folder.

    Attributes:
        images: uint8 array in [0, 255] of shape `(num_images, size, size, channels)`.
        labels: int32 array `(num_images,)`, or `None`.
        class_names: Tuple of strings, the folders' names, or `None`.
        broken: Dictionary from the path of each image that couldn't be read to what is wrong.
        skipped: Dictionary from an ending in lower case, such as `".txt"`, to the number of files
            that aren't images, or `""` for names without one. Broken links count here too.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple | None
    broken: dict
    skipped: dict


def load_image_folder(directory, image_size=64, channels=3, use_labels=False):
    """Reads all images below a folder, cropped to their central square and resized.

    It reads every file with the ending of an image that Pillow decodes, in the order of their
    paths. Symbolic links are followed; hidden files and folders are passed over, such as
    `.ipynb_checkpoints`, `__MACOSX` and `@eaDir`. Transparency is laid on white, the first picture
    of an animation is taken, the camera's orientation is followed, and 16-bit gray is scaled to 8
    bits. A file that can't be read, is cut short, or would decode to more than 67 million pixels is
    left out and named in `broken`; files with other endings are counted in `skipped` and in a
    warning.

    Args:
        directory: String or path.
        image_size: Positive integer. Height and width of the result. Defaults to `64`.
        channels: 3 for RGB or 1 for gray. Defaults to `3`.
        use_labels: Boolean. Whether the folders right below `directory` are the classes, in the
            order of their names. Defaults to `False`.

    Returns:
        An `ImageFolder`. It takes `image_size² × channels` bytes of memory an image.

    Raises:
        ValueError: If an argument is out of range, or there is no image that can be read. With
            `use_labels` also if a folder right below `directory` has no such image, or an image
            lies outside of these folders.
        FileNotFoundError: If there is no such folder.
        ImportError: If pillow isn't installed.

    Example:

    ```python
    found = load_image_folder("photos", image_size=64, use_labels=True)
    print(len(found.images), "images;", len(found.broken), "can't be read:", list(found.broken))
    dataset = make_dataset(found.images, found.labels, batch_size=32)
    ```
    """
    directory = Path(check_path("directory", directory))
    image_size = check_integer("image_size", image_size)
    channels = check_choice("channels", channels, (1, 3))
    use_labels = check_boolean("use_labels", use_labels)
    if not directory.is_dir():
        raise FileNotFoundError(f"`directory` must be a folder. Received: directory={directory}")
    found = find_images(directory)
    names = found.folders if use_labels else None
    if use_labels:
        outside = [path for path in found.paths if path.parent == directory]
        if outside:
            raise ValueError(
                "`use_labels=True` needs every image in the folder of its class. "
                f"Received: directory={directory} with {outside[0]} outside of them"
            )
    # One array from the start: a list and its stack would take the memory twice.
    images = aligned_empty((len(found.paths), image_size, image_size, channels))
    count, labels, broken = 0, [], {}
    for path in found.paths:
        try:
            pixels = read_image(path, channels)
        except ValueError as error:
            broken[str(path)] = str(error)
            continue
        images[count] = _resized(pixels, image_size)
        count += 1
        if use_labels:
            labels.append(names.index(path.relative_to(directory).parts[0]))
    if not count:
        raise ValueError(
            "`directory` must hold an image that can be read. Received: "
            f"directory={directory} with {len(broken)} broken images and "
            f"{describe_skipped(found.skipped)}"
        )
    if use_labels:
        empty = [name for i, name in enumerate(names) if i not in labels]
        if empty:
            raise ValueError(
                "`use_labels=True` needs an image that can be read in every class. "
                f"Received: directory={directory}, where {empty[0]} has none"
            )
    ids = np.array(labels, "int32") if use_labels else None
    return ImageFolder(images[:count], ids, names, broken, found.skipped)


def _resized(pixels, size):
    """What `square_resize` returns, as an array."""
    if keras.backend.backend() == "tensorflow":
        return square_resize(tf.constant(pixels), size).numpy()
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    pixels = pixels[top : top + side, left : left + side].astype("float32")
    # Each row: the weights of an image's rows, or columns, in one of the result's.
    scale, places = side / size, np.arange(side) + 0.5
    distances = (np.arange(size)[:, None] + 0.5) * scale - places
    weights = np.maximum(0.0, 1.0 - np.abs(distances) / max(scale, 1.0))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype("float32")
    pixels = np.einsum("yr,xc,rcn->yxn", weights, weights, pixels, optimize=True)
    return np.clip(np.round(pixels), 0, 255).astype("uint8")
