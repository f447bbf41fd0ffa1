"""A folder of images as a source for an evaluation: as they are, or not at all."""

import importlib
import pathlib

import numpy as np

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


class FolderImages:
    """The images of a folder, read in batches, unchanged.

    Nothing is cropped, resized or left out in silence, because that would change every score: a
    folder with images of mixed size, or with a file that can't be read, is refused with the file's
    name. Files are taken in the order of their paths, from folders at any depth.

    Args:
        folder: String or `pathlib.Path`.
        batch_size: Integer. Defaults to `64`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image; while iterating, for a file that can't be read and for
            an image of another size or mode than the first.
        ImportError: While iterating, if pillow isn't installed.

    Example:

    ```python
    report = evaluate_images(FolderImages("samples"), "cifar10.npz", "fid", TFGANInception())
    ```
    """

    def __init__(self, folder, batch_size=64):
        folder = pathlib.Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"`folder` must be a folder. Received: folder={folder}")
        self.paths = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in _SUFFIXES and path.is_file()
        )
        if not self.paths:
            raise ValueError(
                f"`folder` must hold images ({', '.join(_SUFFIXES)}). Received: folder={folder}, "
                "which holds none"
            )
        self.batch_size = batch_size

    @property
    def num_images(self):
        return len(self.paths)

    def __iter__(self):
        first = None
        for start in range(0, len(self.paths), self.batch_size):
            images = []
            for path in self.paths[start : start + self.batch_size]:
                images.append(_read(path))
                first = images[0].shape if first is None else first
                if images[-1].shape != first:
                    raise ValueError(
                        "`folder` must hold images of one size and one number of channels: "
                        f"{self.paths[0]} has {first}. Received: {path} with {images[-1].shape}"
                    )
            yield np.stack(images)


def _read(path):
    """A uint8 image of shape (height, width, 1 or 3)."""
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ImportError(
            'Reading image files needs pillow. Run: pip install "keras_sagan[plot]"'
        ) from error
    try:
        with pillow.open(path) as image:
            image = image.convert("L" if image.mode in ("1", "L") else "RGB")
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise ValueError(
            f"`folder` must hold images that can be read. Received: {path} "
            f"({type(error).__name__}: {error})"
        ) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels
