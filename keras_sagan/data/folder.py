"""Any folder of images, read into memory."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_sagan.checks import check_boolean, check_choice, check_integer, check_path
from keras_sagan.data.tfds import square_resize
from keras_sagan.image_files import SUFFIXES, find_images, load_pillow, read_image


class ImageFolder(NamedTuple):
    """What was found in a folder.

    Attributes:
        images: uint8 array in [0, 255] of shape `(num_images, size, size, channels)`.
        labels: int32 array `(num_images,)`, or `None`.
        class_names: Tuple of strings, the folders' names, or `None`.
        broken: Dictionary from the path of each file that couldn't be read to what is wrong.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple | None
    broken: dict


def load_image_folder(directory, image_size=64, channels=3, use_labels=False):
    """Reads all images below a folder, cropped to their central square and resized.

    Files are found by their ending, in folders at any depth, and taken in the order of their
    paths. Transparency is laid on white, of an animation the first picture is taken, and the
    camera's orientation is followed. A file that can't be read, is cut short, or would decode to
    more than 67 million pixels is left out and named in `broken`.

    Args:
        directory: String or path.
        image_size: Positive integer. Height and width of the result. Defaults to `64`.
        channels: 3 for RGB or 1 for grey. Defaults to `3`.
        use_labels: Boolean. Whether the folders right below `directory` are the classes, in the
            order of their names. Defaults to `False`.

    Returns:
        An `ImageFolder`. It takes `image_size² × channels` bytes of memory an image.

    Raises:
        ValueError: If an argument is out of range, there is no image that can be read, or with
            `use_labels` a class has none or images lie outside of the folders.
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
    load_pillow()  # At once, also where there is no image.
    paths = find_images(directory)
    names = None
    if use_labels:
        parts = [path.relative_to(directory).parts for path in paths]
        outside = [str(path) for path, part in zip(paths, parts) if len(part) == 1]
        if outside:
            raise ValueError(
                "`use_labels=True` needs every image in the folder of its class. "
                f"Received: directory={directory} with {outside[0]} outside of them"
            )
        names = tuple(sorted({part[0] for part in parts}))
    images, labels, broken = [], [], {}
    for path in paths:
        try:
            pixels = read_image(path, channels)
        except ValueError as error:
            broken[str(path)] = str(error)
            continue
        images.append(square_resize(tf.constant(pixels), image_size).numpy())
        if use_labels:
            labels.append(names.index(path.relative_to(directory).parts[0]))
    if not images:
        raise ValueError(
            f"`directory` must hold an image that can be read, ending in one of {SUFFIXES}. "
            f"Received: directory={directory} with {len(broken)} broken ones"
        )
    if use_labels:
        empty = [name for i, name in enumerate(names) if i not in labels]
        if empty:
            raise ValueError(
                "`use_labels=True` needs an image that can be read in every class. "
                f"Received: directory={directory}, where {empty[0]} has none"
            )
    ids = np.array(labels, "int32") if use_labels else None
    return ImageFolder(np.stack(images), ids, names, broken)
