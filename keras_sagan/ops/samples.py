"""Checks of sets of feature vectors."""

import numpy as np


def check_features(keep=np.float64, **arrays):
    """Float64 matrices of one width, or an error that names the argument.

    Args:
        keep: Another dtype that arrays may keep. Defaults to none.
        **arrays: Arrays of shape (num_samples, dim), by name.

    Returns:
        List of the arrays, in float64 or `keep`.

    Raises:
        ValueError: For another rank, no sample, different widths, or values that aren't finite.
    """
    result, width = [], None
    for name, value in arrays.items():
        value = np.asarray(value)
        value = value if value.dtype == keep else value.astype(np.float64, copy=False)
        if value.ndim != 2 or value.size == 0 or width not in (None, value.shape[1]):
            raise ValueError(
                f"`{name}` must have shape (num_samples, {width or 'dim'}), with at least one of "
                f"each. Received: {name}.shape={value.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(value).all(axis=1))
        if bad.size:
            raise ValueError(
                f"`{name}` must be finite. Received: NaN or infinity in {bad.size} of {len(value)} "
                f"samples, the first at index {bad[0]}"
            )
        width = value.shape[1]
        result.append(value)
    return result
