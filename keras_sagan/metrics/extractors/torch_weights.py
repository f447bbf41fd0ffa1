"""Reads the tensors of a PyTorch weights file, without PyTorch and without running code in it."""

import collections
import io
import math
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # Files written by PyTorch before 1.6 start with it.
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_torch_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns a dictionary of the tensors that `torch.save(model.state_dict(), path)` wrote.

    This function reads the zip files of PyTorch 1.6 and later, and the pickle files of earlier
    versions. Loading a pickle file normally calls any function that the file names. Here, a name
    that isn't needed for tensors raises an error, so no code in the file runs. The arrays are
    read-only views of the file's content.

    Raises:
        ValueError: If the file isn't a PyTorch file, is damaged, or contains anything except
            tensors.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        read = _read_zip if content.startswith(b"PK") else _read_stream
        tensors, storages = read(io.BytesIO(content))
        return {name: _array(tensor, storages) for name, tensor in tensors.items()}
    except Exception as error:  # A damaged pickle can raise any error.
        raise ValueError(
            "`path` must be a complete PyTorch file that holds only a dictionary of tensors. "
            f"Received: {path} ({type(error).__name__}: {error})"
        ) from error


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def _tensor(storage, offset, shape, strides, *_):
    return _Tensor(storage, offset, shape, strides)


def _parameter(tensor, *_):
    return tensor


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
        }
        if f"{module}.{name}" not in known:
            raise ValueError(f"it names {module}.{name}, which was not called")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid):
        _, dtype, key, _, size = pid[:5]
        return _Storage(key, dtype, size)


def _read_zip(file):
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} files data.pkl instead of one")
        tensors = _Unpickler(io.BytesIO(archive.read(names[0]))).load()
        folder = names[0].removesuffix("data.pkl") + "data/"
        keys = {tensor.storage.key for tensor in tensors.values()}
        return tensors, {key: archive.read(folder + key) for key in keys}


def _read_stream(file):
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("it doesn't begin with PyTorch's magic number")
    _Unpickler(file).load()  # Skip the version of the protocol.
    _Unpickler(file).load()  # Skip the sizes of C types.
    tensors = _Unpickler(file).load()
    known = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    storages = {}
    for key in _Unpickler(file).load():
        (size,) = struct.unpack("<q", file.read(8))
        storages[key] = file.read(size * np.dtype(known[key].dtype).itemsize)
    return tensors, storages


def _array(tensor, storages):
    storage = tensor.storage
    if type(storage) is not _Storage or storage.dtype not in _DTYPES.values():
        # An array of objects would take the bytes of the file for addresses in memory.
        raise ValueError("it holds something other than numbers")
    dtype, data = np.dtype(storage.dtype), storages[storage.key]
    if len(data) != storage.size * dtype.itemsize or math.prod(tensor.shape) > storage.size:
        raise ValueError(f"its storage {storage.key} has {len(data)} bytes, which isn't its size")
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    # Numpy raises an error for a view that isn't inside the data.
    return np.ndarray(tensor.shape, dtype, data, tensor.offset * dtype.itemsize, strides)
