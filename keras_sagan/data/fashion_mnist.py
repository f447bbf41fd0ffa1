"""Fashion-MNIST: the 10,000 test images in the package, or the full dataset from a folder."""

import re
from pathlib import Path

import numpy as np

from keras_sagan.checks import check_choice, check_path
from keras_sagan.data.idx import read_idx

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_SHIPPED_DIR = Path(__file__).parent / "fashion_mnist_t10k"
_PREFIXES = {"train": "train", "test": "t10k"}


def load_fashion_mnist(
    data_dir: str | Path | None = None, split: str = "test"
) -> tuple[np.ndarray, np.ndarray]:
    """Loads Fashion-MNIST from IDX files, without network access.

    The package contains only the 10,000 images of the test split. To load the 60,000 training
    images, pass the folder of the original IDX files as `data_dir`. If the folder contains a
    `SHA256SUMS` file, in the format of `sha256sum`, the files are checked against it. The files in
    the package are always checked.

    Args:
        data_dir: The folder that contains the IDX files, compressed or not, with their original
            names (`train-images-idx3-ubyte.gz`, …). If `None`, the test split in the package is
            loaded.
        split: `"test"` or `"train"`.

    Returns:
        `(images, labels)`: uint8 in [0, 255] of shape `(n, 28, 28, 1)`, and int32 in [0, 9] of
        shape `(n,)`. `FASHION_MNIST_CLASSES` contains the class names.

    Raises:
        ValueError: If `split` is unknown or not in the package, or a file is damaged.
        FileNotFoundError: If a file is missing from `data_dir`.

    Example:
    >>> images, labels = load_fashion_mnist()
    >>> images.shape, images.dtype.name, labels.shape, labels.dtype.name
    ((10000, 28, 28, 1), 'uint8', (10000,), 'int32')
    >>> FASHION_MNIST_CLASSES[labels[0]]
    'Ankle boot'

    Reference: [Xiao et al., 2017](https://arxiv.org/abs/1708.07747), MIT license.
    """
    split = check_choice("split", split, _PREFIXES, f"one of {sorted(_PREFIXES)}")
    data_dir = check_path("data_dir", data_dir, optional=True)
    if data_dir is None and split != "test":
        raise ValueError(
            "`data_dir` must be given for the training images, which aren't in the package. Get "
            "the IDX files from https://github.com/zalandoresearch/fashion-mnist or from the "
            f"Debian package dataset-fashion-mnist. Received: data_dir=None, split={split!r}"
        )
    folder = _SHIPPED_DIR if data_dir is None else Path(data_dir)
    sums = folder / "SHA256SUMS"
    text = sums.read_text(encoding="utf-8") if sums.is_file() else ""
    # Lines are `digest  name`, `digest *name` or `SHA256 (name) = digest`.
    digests = {y: x for x, y in re.findall(r"^(\w{64}) [ *](.+?)\s*$", text, re.MULTILINE)}
    digests |= re.findall(r"^SHA256 \((.+)\) = (\w{64})\s*$", text, re.MULTILINE)
    paths = [_find(folder, f"{_PREFIXES[split]}-{x}-ubyte") for x in ("images-idx3", "labels-idx1")]
    images, labels = (read_idx(path, sha256=digests.get(path.name)) for path in paths)
    if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            "`data_dir` must hold uint8 images of rank 3 and one label for each image. Received: "
            f"data_dir={data_dir} with images {images.shape} of {images.dtype} and labels "
            f"{labels.shape}"
        )
    if labels.size and (labels.min() < 0 or labels.max() >= len(FASHION_MNIST_CLASSES)):
        raise ValueError(
            f"`data_dir` must hold labels in [0, {len(FASHION_MNIST_CLASSES) - 1}]. Received: "
            f"data_dir={data_dir} with labels in [{labels.min()}, {labels.max()}]"
        )
    return images[..., np.newaxis], labels.astype(np.int32)


def _find(data_dir, name):
    """Returns the path of an IDX file, which may be compressed."""
    for path in (data_dir / f"{name}.gz", data_dir / name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"`data_dir` must be a folder holding {name}.gz or {name}. Received: data_dir={data_dir}"
    )
