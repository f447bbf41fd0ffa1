"""Fashion-MNIST: the 10,000 test images that ship with the package, or the full set."""

import pathlib

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

_SHIPPED_DIR = pathlib.Path(__file__).parent / "fashion_mnist_t10k"
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def load_fashion_mnist(data_dir=None, split="test"):
    """Loads Fashion-MNIST from IDX files, without the network.

    The 10,000 images of the test split lie in the package and are checked against their SHA-256
    on every load. The 60,000 training images are too large to ship: give the folder of the
    original IDX files (compressed or not) as `data_dir`; a file `SHA256SUMS` in it, as `sha256sum`
    writes it, is checked too.

    Args:
        data_dir: String or `pathlib.Path`. Folder with the IDX files, named as Zalando names
            them (`train-images-idx3-ubyte.gz`, ...). Defaults to `None`: the shipped test split.
        split: String, `"test"` or `"train"`. Defaults to `"test"`.

    Returns:
        `(images, labels)`: uint8 in [0, 255] of shape (n, 28, 28, 1), and int32 in [0, 9] of
        shape (n,). The names of the classes are in `FASHION_MNIST_CLASSES`.

    Raises:
        ValueError: If `split` is unknown or not shipped, or a file is damaged.
        FileNotFoundError: If a file is missing from `data_dir`.

    Example:

    >>> images, labels = load_fashion_mnist()
    >>> images.shape, images.dtype.name, labels.shape, labels.dtype.name
    ((10000, 28, 28, 1), 'uint8', (10000,), 'int32')
    >>> FASHION_MNIST_CLASSES[labels[0]]
    'Ankle boot'

    Reference:
        Xiao et al. 2017, [Fashion-MNIST](https://arxiv.org/abs/1708.07747), MIT licence.
    """
    split = check_choice("split", split, _FILES, f"one of {sorted(_FILES)}")
    data_dir = check_path("data_dir", data_dir, optional=True)
    if data_dir is None:
        if split != "test":
            raise ValueError(
                "`data_dir` must be given for the training images, of which no copy ships with "
                "the package; take the IDX files from "
                "https://github.com/zalandoresearch/fashion-mnist or from the Debian package "
                f"dataset-fashion-mnist. Received: data_dir=None, split={split!r}"
            )
    folder = _SHIPPED_DIR if data_dir is None else pathlib.Path(data_dir)
    sums = _read_checksums(folder / "SHA256SUMS")
    paths = [_find(folder, name) for name in _FILES[split]]
    arrays = [read_idx(path, sha256=sums.get(path.name)) for path in paths]
    return _check(*arrays, data_dir)


def _read_checksums(path):
    """`{file name: sha256}` from a file written by `sha256sum`, if there is one."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name.strip(): digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def _find(data_dir, name):
    """The path of an IDX file, compressed or not."""
    for candidate in (data_dir / f"{name}.gz", data_dir / name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"`data_dir` must be a folder holding {name}.gz or {name}. Received: data_dir={data_dir}"
    )


def _check(images, labels, data_dir):
    """Images with a channel axis and int32 labels, or an error when the two don't fit."""
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
