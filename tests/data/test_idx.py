"""Reading of IDX files, whole and damaged, and of Fashion-MNIST."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from keras_sagan.data import FASHION_MNIST_CLASSES, load_fashion_mnist, read_idx
from keras_sagan.data import fashion_mnist as module


def idx_bytes(array, code=0x08):
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def plain(tmp_path):
    """A plain IDX file of 2 × 3 bytes."""
    path = tmp_path / "values-idx2-ubyte"
    path.write_bytes(idx_bytes(np.arange(6, dtype="uint8").reshape(2, 3)))
    return path


@pytest.mark.parametrize(
    ("code", "dtype"),
    [(8, "uint8"), (9, "int8"), (11, "int16"), (12, "int32"), (13, "float32"), (14, "float64")],
)
def test_every_type_plain_and_compressed(tmp_path, code, dtype):
    array = np.array([[1, 2, 3], [4, 5, -6 if dtype != "uint8" else 6]], dtype)
    for name, content in (
        ("a", idx_bytes(array, code)),
        ("b", gzip.compress(idx_bytes(array, code))),
    ):
        (tmp_path / name).write_bytes(content)
        result = read_idx(tmp_path / name)
        assert result.dtype == dtype and result.dtype.isnative
        np.testing.assert_array_equal(result, array)


def test_the_checksum_is_of_the_stored_bytes(plain):
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    assert read_idx(plain, sha256=digest.upper()).shape == (2, 3)
    with pytest.raises(ValueError, match=rf"`path` .*SHA-256 {'0' * 64}.*Received: .*{digest}"):
        read_idx(str(plain), sha256="0" * 64)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must be .*Received: path=.*absent"):
        read_idx(tmp_path / "absent")


@pytest.mark.parametrize("start", [b"", b"\0\0\x08", b"\x89PNG", b"\0\0\x07\x01", b"\0\0\x08\0"])
def test_other_files_are_refused(tmp_path, start):
    path = tmp_path / "file"
    path.write_bytes(start + (b"\0" * 20 if len(start) == 4 else b""))
    with pytest.raises(ValueError, match="`path` must be an IDX file.*Received: path=.*file start"):
        read_idx(path)


@pytest.mark.parametrize("kept", [6, 17])
def test_a_truncated_file_is_refused(plain, kept):
    plain.write_bytes(plain.read_bytes()[:kept])
    with pytest.raises(ValueError, match="`path` must h.*truncated.*Received: path=.*idx2.* bytes"):
        read_idx(plain)


def test_a_truncated_or_damaged_gzip_file_is_refused(plain):
    content = gzip.compress(plain.read_bytes() * 1)
    damaged = content[:12] + b"\xff\xff\xff" + content[15:]
    for stored in (content[:-9], content[:15], damaged):
        plain.write_bytes(stored)
        with pytest.raises(ValueError, match="`path` must be a complete gzip.*Received: path="):
            read_idx(plain)


def test_a_file_longer_than_its_header_is_refused(plain):
    plain.write_bytes(plain.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="`path` must hold 6 bytes .*longer.*at least 7 bytes"):
        read_idx(plain)


def test_a_header_that_asks_for_all_the_memory_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12)
    with pytest.raises(ValueError, match="`path` must announce at most .*Received: .*shape"):
        read_idx(path)


def test_shipped_fashion_mnist():
    images, labels = load_fashion_mnist()
    assert images.shape == (10_000, 28, 28, 1) and images.dtype == np.uint8
    assert labels.shape == (10_000,) and labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(labels), [1000] * 10)
    assert images.min() == 0 and images.max() == 255
    assert [FASHION_MNIST_CLASSES[label] for label in labels[:3]] == [
        "Ankle boot",
        "Pullover",
        "Trouser",
    ]


def test_shipped_files_have_a_licence_and_are_checked(tmp_path, monkeypatch):
    assert "Zalando SE" in (module._SHIPPED_DIR / "LICENSE").read_text()
    for path in module._SHIPPED_DIR.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    monkeypatch.setattr(module, "_SHIPPED_DIR", tmp_path)
    with pytest.raises(ValueError, match="`path` must hold the file with SHA-256"):
        load_fashion_mnist()


def write_split(folder, images, labels, prefix="train"):
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))


def test_a_folder_of_idx_files(tmp_path):
    write_split(tmp_path, np.ones((5, 28, 28), "uint8"), np.arange(5, dtype="uint8"))
    images, labels = load_fashion_mnist(tmp_path, split="train")
    assert images.shape == (5, 28, 28, 1) and labels.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(FileNotFoundError, match="`data_dir` must be a folder holding t10k-images"):
        load_fashion_mnist(tmp_path)


@pytest.mark.parametrize("line", ["{0}  {1}\n\n", "{0} *{1}", "SHA256 ({1}) = {0}"])
def test_every_format_of_checksums_is_read(tmp_path, line):
    write_split(tmp_path, np.ones((5, 28, 28), "uint8"), np.arange(5, dtype="uint8"))
    name = "train-images-idx3-ubyte"
    digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(line.format(digest, name))
    load_fashion_mnist(tmp_path, split="train")
    (tmp_path / "SHA256SUMS").write_text(line.format("0" * 64, name))
    with pytest.raises(ValueError, match="`path` must hold the file with SHA-256 0000"):
        load_fashion_mnist(tmp_path, split="train")


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write_split(tmp_path, np.ones((5, 28, 28), "uint8"), np.arange(4, dtype="uint8"))
    with pytest.raises(ValueError, match="`data_dir` must hold uint8 images .*one label"):
        load_fashion_mnist(tmp_path, split="train")
    write_split(tmp_path, np.ones((5, 28, 28), "uint8"), np.full(5, 10, "uint8"))
    with pytest.raises(ValueError, match=r"`data_dir` must hold labels in \[0, 9\].*10, 10"):
        load_fashion_mnist(tmp_path, split="train")


def test_splits_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="`split` must be one of .*Received: split='validation'"):
        load_fashion_mnist(split="validation")
    with pytest.raises(ValueError, match="`data_dir` must be given .*Received: data_dir=None"):
        load_fashion_mnist(split="train")
