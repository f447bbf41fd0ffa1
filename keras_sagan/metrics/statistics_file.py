"""Reads files of statistics from any source, and checks them before use."""

import io
import json
import math
import pathlib
import zipfile

import numpy as np

from keras_sagan.checks import check_integer

ARRAYS = ("features", "logits", "labels")  # one row for each image
HALVES = [(f"half_{i}_count", f"half_{i}_mean", f"half_{i}_scatter") for i in (0, 1)]
# Shapes of the arrays ("dim" is that of `mu`, `None` any size), and the kinds of their dtypes.
_EXPECTED = {
    "mu": (("dim",), "fiu"),
    "sigma": (("dim", "dim"), "fiu"),
    "info": ((), "U"),
    "features": ((None, "dim"), "fiu"),
    "logits": ((None, None), "fiu"),
    "labels": ((None,), "iu"),
}
for _count, _mean, _scatter in HALVES:
    _EXPECTED |= {_count: ((), "iu"), _mean: _EXPECTED["mu"], _scatter: _EXPECTED["sigma"]}
_INFO = {
    "dataset": str | None,
    "split": str | None,
    "num_images": int | None,
    "sha256": str,
    "image_shape": list | None,
    "feature_extractor": str | None,
    "resize": str | None,
}
# Statistics of 2048 features take 32 MB, and real ones never compress further than this.
_ALWAYS_ALLOWED, _COMPRESSION = 2**26, 20
_HEADER = 2**16  # bytes, at most
_MOST_CLASSES = 10**6


class _Unfit(Exception):
    """Raised with what is expected and received, for an intact file that holds something else."""


def read_statistics(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict | None]:
    """Reads a `.npz` of statistics, of this package or of another project.

    Nothing is unpacked until the headers of all arrays fit each other and the size of the file.
    Arrays of other names aren't unpacked.

    Returns:
        Dictionary of arrays, and the `info` that a file of this package has, or `None`.

    Raises:
        ValueError: For a file that is damaged or holds no statistics; it names the file.
    """
    try:
        arrays = _arrays(path)
        info = _info(arrays.pop("info")) if "info" in arrays else None
        _check_values(arrays, info and info["num_images"])
        return arrays, info
    except _Unfit as error:
        expected, received = error.args
        raise ValueError(
            f"`reference` must {expected}. Received: {path} with {received}. Give another file, "
            "or remove this one from `cache_dir`"
        ) from error.__cause__
    # `zipfile` and numpy raise a dozen kinds, down to NotImplementedError for an unknown method.
    except Exception as error:
        raise ValueError(
            f"`reference` must be a whole .npz file of plain arrays. Received: {path} "
            f"({type(error).__name__}: {error}). Remove it, and compute or download it again"
        ) from error


def _arrays(path):
    with zipfile.ZipFile(path) as archive:
        members = {x.filename.removesuffix(".npy"): x for x in archive.infolist()}
        _check_headers({name: _header(archive, x) for name, x in members.items()})
        members = {name: x for name, x in members.items() if name in _EXPECTED}
        stored, size = path.stat().st_size, sum(x.file_size for x in members.values())
        if size > max(_ALWAYS_ALLOWED, _COMPRESSION * stored):
            expected = f"unpack to no more than {_COMPRESSION} times its size"
            raise _Unfit(expected, f"{stored} bytes that unpack to {size}")
        arrays = {}
        for name, member in members.items():
            with archive.open(member) as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        return arrays


def _header(archive, member):
    """Returns the shape and dtype of an array without reading it."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in a way that numpy doesn't use")
    with archive.open(member) as file:
        start = io.BytesIO(file.read(_HEADER))
    version = np.lib.format.read_magic(start)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(start)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds pickled objects")
    size = start.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size != member.file_size:
        raise ValueError(f"{member.filename} has {member.file_size} bytes, its header says {size}")
    return shape, dtype


def _check_headers(headers):
    shapes = {name: shape for name, (shape, _) in headers.items()}
    mean, cov = (shapes.pop(name, ()) for name in ("mu", "sigma"))
    if len(mean) != 1 or mean == (0,) or cov != mean * 2:
        expected = "hold `mu` of shape (dim,) and `sigma` of shape (dim, dim)"
        raise _Unfit(expected, f"mu {mean}, sigma {cov} and {shapes}")
    for name in [name for name in headers if name in _EXPECTED]:
        (shape, dtype), (expected, kinds) = headers[name], _EXPECTED[name]
        sizes = [mean[0] if size == "dim" else size for size in expected]
        fits = len(shape) == len(sizes) and all(b in (None, a) for a, b in zip(shape, sizes))
        if not fits or dtype.kind not in kinds:
            received = f"`{name}` of shape {shape} and dtype {dtype}"
            raise _Unfit(f"hold arrays that fit `mu` of shape {mean}", received)


def _info(array):
    """Returns the `info` of a file that this package wrote."""
    try:
        info = json.loads(str(array))
        for name, kind in _INFO.items():
            if not isinstance(info[name], kind):
                raise ValueError(f"{name}={info[name]!r}")
        check_integer("num_images", info["num_images"], 2, optional=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        expected = "hold an `info` as `ReferenceStatistics.save` writes it"
        raise _Unfit(expected, f"another one ({type(error).__name__}: {error})") from error
    return info


def _check_values(arrays, count):
    broken = [x for x, y in arrays.items() if y.dtype.kind == "f" and not np.isfinite(y).all()]
    if broken:
        raise _Unfit("be finite", f"NaN or infinity in `{broken[0]}`")
    rows = {name: len(arrays[name]) for name in ARRAYS if name in arrays}
    if len({count, *rows.values()} - {None}) > 1:
        raise _Unfit("hold one row for each of its images", f"{count} images and rows {rows}")
    labels = arrays.get("labels", np.zeros(0))
    if labels.size and (labels.min() < 0 or labels.max() >= _MOST_CLASSES):
        raise _Unfit(f"hold labels in [0, {_MOST_CLASSES})", "other `labels`")
    known = [name in arrays for half in HALVES for name in half]
    counts = [int(arrays.get(name, 0)) for name, *_ in HALVES]
    if any(known) and not (all(known) and min(counts) > 0 and sum(counts) == count):
        raise _Unfit("hold both halves of its images", f"{count} images, halves of {counts}")
