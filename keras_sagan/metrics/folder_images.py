"""Reads the images of a folder for an evaluation."""

import hashlib
import pathlib
from collections.abc import Iterator

import numpy as np

from keras_sagan.checks import check_integer, check_path
from keras_sagan.image_files import describe_skipped, find_images, read_image


class FolderImages:
    """Yields the images of a folder in batches, without changing them.

    Nothing is cropped or resized, because that would change every score. If sizes differ or an
    image can't be read, an error names the file. Files are found, sorted and read as in
    `load_image_folder`.

    Args:
        folder: The path of the folder.
        batch_size: The number of images in a batch.

    Raises:
        FileNotFoundError: If the folder doesn't exist.
        ValueError: If the folder contains no images; while iterating, if an image can't be read, or
            differs from the first one in size or number of channels.
        ImportError: If pillow isn't installed.

    Example:
    ```python
    report = evaluate_images(FolderImages("samples"), "cifar10.npz", "fid", TFGANInception())
    ```
    """

    def __init__(self, folder: str | pathlib.Path, batch_size: int = 64):
        self.batch_size = check_integer("batch_size", batch_size)
        self.folder = pathlib.Path(check_path("folder", folder))
        if not self.folder.is_dir():
            raise FileNotFoundError(f"`folder` must be a folder. Received: folder={self.folder}")
        found = find_images(self.folder)
        self.paths, self.skipped = found.paths, found.skipped
        if not self.paths:
            raise ValueError(
                f"`folder` must hold images that Pillow reads. Received: folder={self.folder}, "
                f"which holds none and {describe_skipped(self.skipped)}"
            )

    @property
    def num_images(self) -> int:
        """The number of files."""
        return len(self.paths)

    @property
    def files_sha256(self) -> str:
        """A digest of the files' names, sizes and modification times."""
        digest = hashlib.sha256()
        for path in self.paths:
            found = path.stat()
            name = path.relative_to(self.folder).as_posix()
            digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[np.ndarray]:
        shape = None
        for start in range(0, len(self.paths), self.batch_size):
            images = []
            for path in self.paths[start : start + self.batch_size]:
                try:
                    images.append(read_image(path))
                except ValueError as error:
                    raise ValueError(
                        f"`folder` must hold images that can be read. Received: {path} ({error})"
                    ) from error
                shape = shape or images[0].shape
                if images[-1].shape != shape:
                    raise ValueError(
                        "`folder` must hold images of the same size and number of channels: "
                        f"{self.paths[0]} has {shape}. Received: {path} with {images[-1].shape}. "
                        "`load_image_folder` crops and resizes images, and converts them to "
                        "color or gray"
                    )
            yield np.stack(images)
