"""Reads IDX files, the file format of MNIST and Fashion-MNIST."""

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np

from keras_sagan.checks import check_path, check_string

_GZIP_MAGIC = b"\x1f\x8b"
_DTYPES = {
    code: np.dtype(name)
    for code, name in {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}.items()
}
# The maximum array size in bytes, so that a damaged or malicious header can't exhaust memory.
# 60,000 MNIST images take 47 MB.
_MAX_BYTES = 2**31


def read_idx(path: str | Path, sha256: str | None = None) -> np.ndarray:
    """Reads an IDX file, which may be compressed with gzip, into a numpy array.

    The file consists of two zero bytes, the type code, the rank, one big-endian 32-bit size per
    dimension, and the values. Compression is detected from the content, not from the name.

    Args:
        path: The path of the file.
        sha256: The expected SHA-256 of the file (64 hexadecimal digits), checked before the file is
            parsed.

    Returns:
        Array with the shape and type that the file declares, in native byte order.

    Raises:
        FileNotFoundError: If the file doesn't exist.
        ValueError: If the checksum differs, or the file isn't an IDX file, is truncated, or is too
            long.

    Example:
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    >>> read_idx(path)
    array([7, 8, 9], dtype=uint8)

    Reference: [The IDX file format](http://yann.lecun.com/exdb/mnist/), at the end of the page.
    """
    path = Path(check_path("path", path))
    sha256 = check_string("sha256", sha256, optional=True)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be an IDX file that exists. Received: path={path}")
    stored = path.read_bytes()
    digest = hashlib.sha256(stored).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        expected = f"hold the file with SHA-256 {sha256}; it is damaged or a different file"
        raise _wrong(path, expected, f"with SHA-256 {digest}")
    stream = io.BytesIO(stored)
    try:
        if stored.startswith(_GZIP_MAGIC):
            stream = gzip.GzipFile(fileobj=stream)
        return _read(stream, path)
    except (EOFError, OSError, zlib.error) as error:
        expected = f"be a complete gzip file; it is truncated or damaged ({error})"
        raise _wrong(path, expected, f"of {len(stored)} bytes") from error


def _read(stream, path):
    """Reads an IDX array from a stream; reads one extra byte to detect files that are too long."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\x00\x00" or magic[2] not in _DTYPES or magic[3] == 0:
        codes = ", ".join(f"{code:02x}" for code in _DTYPES)
        expected = f"be an IDX file, which starts with bytes 00 00, a type code of {codes} and a "
        received = f"starting with bytes {magic.hex(' ') or '(none)'}"
        raise _wrong(path, expected + "rank of at least 1", received)
    dtype, rank = _DTYPES[magic[2]], magic[3]
    header = stream.read(4 * rank)
    if len(header) < 4 * rank:
        expected = f"have an IDX header of {4 + 4 * rank} bytes; the file is truncated"
        raise _wrong(path, expected, f"with {4 + len(header)} bytes")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    size = math.prod(shape) * dtype.itemsize
    if size > _MAX_BYTES:
        expected = f"announce at most {_MAX_BYTES} bytes of values"
        raise _wrong(path, expected, f"announcing shape {shape}, {size} bytes")
    values = stream.read(size + 1)
    if len(values) != size:
        is_long = len(values) > size
        fault = "longer than its header says" if is_long else "truncated"
        expected = f"hold {size} bytes of values for shape {shape}; the file is {fault}"
        received = f"with {'at least ' if is_long else ''}{len(values)} bytes of values"
        raise _wrong(path, expected, received)
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _wrong(path, expected, received):
    return ValueError(f"`path` must {expected}. Received: path={path} {received}")
