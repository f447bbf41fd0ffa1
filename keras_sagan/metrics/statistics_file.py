"""Reads files of statistics from any source, and checks them before use."""

import json
import pathlib
import zipfile

import numpy as np

# Maps array names to shapes and dtype kinds; sizes such as `dim` are the same in all arrays.
_ARRAYS: dict[str, tuple[tuple, str]] = {
    "mu": (("dim",), "fiu"),
    "sigma": (("dim", "dim"), "fiu"),
    "info": ((), "U"),
    "features": (("num_images", "dim"), "fiu"),
    "logits": (("num_images", "num_classes"), "fiu"),
    "labels": (("num_images",), "iu"),
    "half_counts": (("halves",), "iu"),
    "half_means": (("halves", "dim"), "f"),
    "half_scatters": (("halves", "dim", "dim"), "f"),
}
_INFO = "dataset split num_images sha256 image_shape feature_extractor resize".split()
_ALWAYS_ALLOWED = 2**26  # Bytes. Files that unpack to at most this size are always accepted.
_COMPRESSION = 20  # For larger files, the maximum ratio of unpacked size to file size.
MOST_CLASSES = 10**6


def read_statistics(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict | None]:
    """Reads a `.npz` file of statistics from this package or another project.

    Only arrays with known names are unpacked. Returns the arrays and the file's `info` (`None` if
    another project wrote the file). Raises a `ValueError` with the file's name if the file is
    damaged, contains no statistics, or would be too large when unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {x.filename.removesuffix(".npy"): x.file_size for x in archive.infolist()}
        if not {"mu", "sigma"} <= set(sizes):
            raise ValueError(f"no `mu` and `sigma`, only {sorted(sizes)}")
        size = sum(sizes.get(name, 0) for name in _ARRAYS)
        if size > max(_ALWAYS_ALLOWED, _COMPRESSION * path.stat().st_size):
            raise ValueError(f"it would unpack to {size} bytes")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS if name in sizes}
        info, sizes = None, {"halves": 2}
        if "info" in arrays:
            info = json.loads(str(arrays.pop("info")))
            info = {name: info[name] for name in _INFO}
            if info["num_images"] is not None:
                sizes["num_images"] = info["num_images"]
                if not info["num_images"] >= 2:
                    raise ValueError(f"it is of {info['num_images']} images")
        _check_arrays(arrays, sizes)
        return arrays, info
    # Catch all errors: `zipfile` and numpy can raise almost any error for a damaged file.
    except Exception as error:
        raise ValueError(
            "`reference` must be an intact .npz file of plain arrays: `mu` of shape (dim,), "
            f"`sigma` of shape (dim, dim), and arrays that match. Received: {path} "
            f"({type(error).__name__}: {error}). Remove it, and compute or download it again"
        ) from error


def _check_arrays(arrays, sizes):
    """Checks arrays against `_ARRAYS`; `sizes` maps names such as `num_images` to known sizes."""
    for name, array in arrays.items():
        shape, kinds = _ARRAYS[name]
        known = [sizes.setdefault(size, found) for size, found in zip(shape, array.shape)]
        fits = array.ndim == len(shape) and list(array.shape) == known and sizes["dim"] > 0
        if not fits or array.dtype.kind not in kinds:
            raise ValueError(f"`{name}` has shape {array.shape} and dtype {array.dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"`{name}` has NaN or infinity")
    labels, counts = arrays.get("labels", np.zeros(0)), arrays.get("half_counts")
    if labels.size and not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
        raise ValueError(f"`labels` must lie in [0, {MOST_CLASSES})")
    halves = [name for name in arrays if name.startswith("half_")]
    is_whole = len(halves) == 3 and counts.min() > 0 and counts.sum() == sizes.get("num_images")
    if halves and not is_whole:
        raise ValueError("the halves don't add up to its number of images")
