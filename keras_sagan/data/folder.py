"""Reads folders of images into memory, or streams them from disk."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_sagan.checks import Progress, check_boolean, check_choice, check_integer, check_path
from keras_sagan.image_files import describe_skipped, find_images, load_pillow, read_image

_FILES_AT_ONCE = 32  # The number of images to decode in parallel before copying them.


class ImageFolder(NamedTuple):
    """The images read from a folder.

    Attributes:
        images: uint8 array in [0, 255] of shape `(num_images, size, size, channels)`, or
            `StreamedImages` of this shape.
        labels: int32 array of shape `(num_images,)`, or `None`.
        class_names: The names of the class folders, or `None`.
        broken: Dictionary that maps the path of each unreadable image to the error message.
        skipped: Dictionary with the number of skipped files for each lower-case extension, such as
            `".txt"` (`""` for none). A file is skipped if it isn't an image or is a broken link.
    """

    images: "np.ndarray | StreamedImages"
    labels: np.ndarray | None
    class_names: tuple | None
    broken: dict
    skipped: dict


class StreamedImages:
    """An array-like object that reads its images from disk, in threads, when it is indexed.

    `load_image_folder(..., stream=True)` returns this object and `make_dataset` accepts it. The
    first axis can be indexed by an integer, a slice or an array, as in numpy. `shape` is
    `(num_images, image_size, image_size, channels)`, and `dtype` is uint8. Indexing raises
    `ValueError` if a file can no longer be read.

    Args:
        paths: List of the paths of the images.
        image_size: The height and width of the images in pixels.
        channels: 3 for RGB or 1 for gray.
    """

    dtype = np.dtype("uint8")

    def __init__(self, paths: list, image_size: int, channels: int):
        self.shape = (len(paths), image_size, image_size, channels)
        self._paths = np.array(paths, "object")
        self._threads = ThreadPoolExecutor()

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, indices):
        paths = self._paths[indices]
        if not isinstance(paths, np.ndarray):
            return self._read(paths)
        images = np.empty((len(paths), *self.shape[1:]), "uint8")
        for image, pixels in zip(images, self._threads.map(self._read, paths)):
            image[:] = pixels
        return images

    def _read(self, path):
        try:
            return _resized(read_image(path, self.shape[-1]), self.shape[1])
        except ValueError as error:
            raise ValueError(f"{path} can no longer be read: {error}") from error


def load_image_folder(
    directory: str | Path,
    image_size: int = 64,
    channels: int = 3,
    use_labels: bool = False,
    stream: bool = False,
) -> ImageFolder:
    """Reads all images in a folder and its subfolders, crops them to squares and resizes them.

    All files with the extension of a format that Pillow can decode are read, sorted by path. Images
    are cropped to their central square. Symbolic links are followed. Hidden files and system
    folders, such as `.ipynb_checkpoints`, `__MACOSX` and `@eaDir`, are ignored. Transparent pixels
    are blended with white, images are rotated to the orientation stored by the camera, 16-bit gray
    is scaled to 8 bits, and only the first frame of an animation is read. Images that can't be
    read, are truncated, or have more than 67 million pixels are listed in `broken`. Other files are
    counted in `skipped`, and a warning reports them. The images are the same on every backend. A
    progress bar appears after ten seconds.

    Args:
        directory: The path of the folder.
        image_size: The height and width of the result in pixels.
        channels: 3 for RGB or 1 for gray.
        use_labels: Whether the folders directly below `directory` are the classes, sorted by name.
        stream: Whether to keep the images on disk and read each batch when it is needed. Use
            `stream=True` for folders that don't fit into memory. Each file is still decoded once at
            the start, to find broken files before training.

    Returns:
        An `ImageFolder`, which uses `image_size² × channels` bytes of memory per image. With
        `stream=True`, only a few batches are in memory.

    Raises:
        ValueError: If an argument is out of range, or no image can be read; with `use_labels=True`,
            also if a class folder has no readable image, or an image is outside the class folders.
        FileNotFoundError: If the folder doesn't exist.
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
    stream = check_boolean("stream", stream)
    if not directory.is_dir():
        raise FileNotFoundError(f"`directory` must be a folder. Received: directory={directory}")
    found = find_images(directory)
    outside = [path for path in found.paths if path.parent == directory]
    if use_labels and outside:
        raise ValueError(
            "`use_labels=True` needs every image in the folder of its class. "
            f"Received: directory={directory} with {outside[0]} outside these folders"
        )

    def read(path):
        try:
            pixels = read_image(path, channels)
            return None if stream else _resized(pixels, image_size)
        except ValueError as error:
            return str(error)

    # Fill one array, because stacking a list of images would take twice the memory.
    shape = (0 if stream else len(found.paths), image_size, image_size, channels)
    images, good, broken = np.empty(shape, "uint8"), [], {}
    progress = Progress(f"Images in {directory}", len(found.paths))
    with ThreadPoolExecutor() as threads:
        for first in range(0, len(found.paths), _FILES_AT_ONCE):
            paths = found.paths[first : first + _FILES_AT_ONCE]
            for path, result in zip(paths, threads.map(read, paths)):
                if isinstance(result, str):
                    broken[str(path)] = result
                    continue
                if not stream:
                    images[len(good)] = result
                good.append(path)
            progress(len(good) + len(broken))
    if not good:
        raise ValueError(
            "`directory` must hold an image that can be read. Received: "
            f"directory={directory} with {len(broken)} broken images and "
            f"{describe_skipped(found.skipped)}"
        )
    images = StreamedImages(good, image_size, channels) if stream else images[: len(good)]
    if not use_labels:
        return ImageFolder(images, None, None, broken, found.skipped)
    names = [path.relative_to(directory).parts[0] for path in good]
    if empty := sorted(set(found.folders) - set(names)):
        raise ValueError(
            "`use_labels=True` needs at least one readable image in every class. "
            f"Received: directory={directory}, where {empty[0]} has none"
        )
    labels = np.searchsorted(found.folders, names).astype("int32")
    return ImageFolder(images, labels, found.folders, broken, found.skipped)


def _resized(pixels, size):
    """Does the same as `square_resize`, but without TensorFlow; rounding may differ."""
    image_module, _ = load_pillow()
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side]
    picture = image_module.fromarray(square[:, :, 0] if square.shape[2] == 1 else square)
    resized = np.asarray(picture.resize((size, size), image_module.Resampling.BILINEAR))
    return resized.reshape(size, size, -1)
