"""Reads files of statistics, which anybody may have written, and checks them before use."""

import io
import json
import math
import zipfile

import numpy as np

from keras_sagan.checks import check_integer

ARRAYS = ("features", "logits", "labels")  # one row for each image
HALVES = [(f"half_{i}_count", f"half_{i}_mean", f"half_{i}_scatter") for i in (0, 1)]
_NAMES = {"mu", "sigma", "info", *ARRAYS, *HALVES[0], *HALVES[1]}
# Statistics of 2048 features take 32 MB, and real ones never compress further than this.
_ALWAYS_ALLOWED, _COMPRESSION = 2**26, 20
_HEADER = 2**16  # bytes, at most
_MOST_CLASSES = 10**6


def read_statistics(path):
    """Reads a `.npz` of statistics, of this package or of another project.

    Nothing is unpacked before the headers of all arrays were found to fit each other and the size
    of the file. Arrays of other names are left in the file.

    Args:
        path: `pathlib.Path` of a file that exists.

    Returns:
        Dictionary of arrays, and the `info` that a file of this package has, or `None`.

    Raises:
        ValueError: For a file that is damaged, or isn't one of statistics; it names the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {x.filename.removesuffix(".npy"): x for x in archive.infolist()}
            headers = {name: _header(archive, x) for name, x in members.items()}
            _check_shapes(path, headers)
            wanted = [name for name in members if name in _NAMES]
            _check_size(path, sum(members[name].file_size for name in wanted))
            arrays = {name: _array(archive, members[name]) for name in wanted}
    except _Unfit:
        raise
    # `zipfile` and numpy raise a dozen kinds, down to NotImplementedError for an unknown method.
    except Exception as error:
        raise ValueError(
            f"`reference` must be a whole .npz file of plain arrays. Received: {path} "
            f"({type(error).__name__}: {error}). Remove it, and compute or download it again"
        ) from error
    info = _info(path, arrays.pop("info")) if "info" in arrays else None
    _check_values(path, arrays, info)
    return arrays, info


class _Unfit(ValueError):
    """The file is intact, but it holds something else."""

    def __init__(self, path, expected, received):
        super().__init__(
            f"`reference` must {expected}. Received: {path} with {received}. Give another file, "
            "or remove this one from `cache_dir`"
        )


def _header(archive, member):
    """Returns the shape and dtype of an array without reading it."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in a way that numpy doesn't use")
    with archive.open(member) as file:
        start = io.BytesIO(file.read(_HEADER))
    shape, _, dtype = read[np.lib.format.read_magic(start)](start)
    size = start.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds pickled objects")
    if min(shape, default=0) < 0 or size != member.file_size:
        raise ValueError(f"{member.filename} has {member.file_size} bytes, its header says {size}")
    return shape, dtype


def _array(archive, member):
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _check_size(path, size):
    """Raises if the arrays are far larger than a file of this size can hold."""
    stored = path.stat().st_size
    if size > max(_ALWAYS_ALLOWED, _COMPRESSION * stored):
        raise _Unfit(
            path,
            f"unpack to no more than {_COMPRESSION} times its size",
            f"{stored} bytes that unpack to {size}",
        )


def _check_shapes(path, headers):
    shapes = {name: shape for name, (shape, _) in headers.items()}
    mean, cov = shapes.get("mu", ()), shapes.get("sigma", ())
    if len(mean) != 1 or mean == (0,) or cov != mean * 2:
        raise _Unfit(
            path,
            "hold `mu` of shape (dim,) and `sigma` of shape (dim, dim)",
            f"mu {mean}, sigma {cov} and "
            f"{ {name: x for name, x in shapes.items() if name not in ('mu', 'sigma')} }",
        )
    expected = {"mu": mean, "sigma": cov, "info": ()}
    for count, half_mean, scatter in HALVES:
        expected.update({count: (), half_mean: mean, scatter: cov})
    kinds = {"info": "U", "labels": "iu", **{count: "iu" for count, *_ in HALVES}}
    for name, (shape, dtype) in headers.items():
        if name in ARRAYS:
            width = {"features": mean, "logits": shape[1:], "labels": ()}[name]
            is_fit = len(shape) == (1 if name == "labels" else 2) and shape[1:] == width
        else:
            is_fit = shape == expected.get(name, shape)
        if name in _NAMES and not (is_fit and dtype.kind in kinds.get(name, "fiu")):
            raise _Unfit(
                path,
                f"hold arrays that fit `mu` of shape {mean}",
                f"`{name}` of shape {shape} and dtype {dtype}",
            )


def _info(path, array):
    """Returns the `info` of a file that this package wrote."""
    kinds = {
        "dataset": (str, type(None)),
        "split": (str, type(None)),
        "num_images": (int, type(None)),
        "sha256": str,
        "image_shape": (list, type(None)),
        "feature_extractor": (str, type(None)),
        "resize": (str, type(None)),
    }
    try:
        info = json.loads(str(array))
        for name, kind in kinds.items():
            if not isinstance(info[name], kind):
                raise ValueError(f"{name}={info[name]!r}")
        check_integer("num_images", info["num_images"], 2, optional=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _Unfit(
            path,
            "hold an `info` as `ReferenceStatistics.save` writes it",
            f"another one ({type(error).__name__}: {error})",
        ) from error
    return info


def _check_values(path, arrays, info):
    broken = [x for x, y in arrays.items() if y.dtype.kind == "f" and not np.isfinite(y).all()]
    if broken:
        raise _Unfit(path, "be finite", f"NaN or infinity in `{broken[0]}`")
    count = None if info is None else info["num_images"]
    rows = {name: len(arrays[name]) for name in ARRAYS if name in arrays}
    if len({count, *rows.values()} - {None}) > 1:
        raise _Unfit(path, "hold one row for each of its images", f"{count} images and rows {rows}")
    labels = arrays.get("labels", np.zeros(0))
    if labels.size and (labels.min() < 0 or labels.max() >= _MOST_CLASSES):
        raise _Unfit(path, f"hold labels in [0, {_MOST_CLASSES})", "other `labels`")
    known = [name in arrays for half in HALVES for name in half]
    counts = [int(arrays.get(name, 0)) for name, *_ in HALVES]
    if any(known) and not (all(known) and min(counts) > 0 and sum(counts) == count):
        raise _Unfit(path, "hold both halves of its images", f"{count} images, halves of {counts}")
