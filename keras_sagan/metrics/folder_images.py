"""A folder of images as a source for an evaluation: as they are, or not at all."""

import hashlib
import pathlib

import numpy as np

from keras_sagan.checks import check_integer, check_path
from keras_sagan.image_files import describe_skipped, find_images, read_image


class FolderImages:
    """The images of a folder, read in batches, unchanged.

    Images are neither cropped nor resized, because that would change every score: a folder with
    images of mixed size, or with an image that can't be read, is refused with the file's name. The
    files, their order and how they are read are those of `load_image_folder`: hidden files and
    folders are passed over, symbolic links are followed, transparency is laid on white, and 16-bit
    gray is scaled to 8 bits. Files with other endings are counted in `skipped` and in a warning.

    Args:
        folder: String or `pathlib.Path`.
        batch_size: Integer. Defaults to `64`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image; while iterating, for a file that can't be read and for
            an image of another size or mode than the first.
        ImportError: If pillow isn't installed.

    Example:

    ```python
    report = evaluate_images(FolderImages("samples"), "cifar10.npz", "fid", TFGANInception())
    ```
    """

    def __init__(self, folder, batch_size=64):
        self.batch_size = check_integer("batch_size", batch_size)
        folder = pathlib.Path(check_path("folder", folder))
        if not folder.is_dir():
            raise FileNotFoundError(f"`folder` must be a folder. Received: folder={folder}")
        self.folder = folder
        found = find_images(folder)
        self.paths, self.skipped = found.paths, found.skipped
        if not self.paths:
            raise ValueError(
                f"`folder` must hold images that Pillow reads. Received: folder={folder}, which "
                f"holds none and {describe_skipped(self.skipped)}"
            )

    @property
    def num_images(self):
        """Integer, the number of files."""
        return len(self.paths)

    @property
    def files_sha256(self):
        """String that changes with the names, sizes and times of the files."""
        digest = hashlib.sha256()
        for path in self.paths:
            found = path.stat()
            name = path.relative_to(self.folder).as_posix()
            digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
        return digest.hexdigest()

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
    try:
        return read_image(path)
    except ValueError as error:
        raise ValueError(
            f"`folder` must hold images that can be read. Received: {path} ({error})"
        ) from error
