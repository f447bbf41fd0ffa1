"""Writes animations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_sagan.checks import check_float, check_list, check_path, require
from keras_sagan.visualization.grid import check_images
from keras_sagan.visualization.optional import writing


def save_gif(
    path: str | Path,
    frames: np.ndarray | Sequence[np.ndarray],
    seconds: float = 0.1,
    last_seconds: float = 1.5,
) -> None:
    """Writes frames as an animated GIF that repeats forever.

    The file begins with the last frame, because a still preview shows the first frame of a file.
    Gray frames are stored exactly; each color frame is reduced to its own palette of 256 colors.

    Args:
        path: The path of the file. Its folder is created if needed.
        frames: uint8 array in [0, 255] of shape `(frames, height, width)` or
            `(frames, height, width, channels)` with 1 or 3 channels, or a list of such images.
        seconds, last_seconds: The duration of each frame and of the last frame, in seconds.

    Raises:
        ValueError: If the frames have the wrong dtype or shape, or a duration isn't positive.
        ImportError: If pillow isn't installed.

    Example:
    ```python
    frames = model.interpolate(rows=4, steps=24)  # (rows, steps, height, width, channels)
    save_gif("runs/walk.gif", [sample_grid(frames[:, i]) for i in range(24)])
    ```
    """
    path = check_path("path", path)
    check_list("frames", frames)
    seconds = check_float("seconds", seconds, above=0)
    last_seconds = check_float("last_seconds", last_seconds, above=0)
    shapes = {np.shape(frame) for frame in frames}
    if len(shapes) > 1:
        raise ValueError(f"`frames` must have the same shape. Received: shapes {sorted(shapes)}")
    frames = check_images(np.asarray(frames), "frames")
    new = require("PIL.Image").fromarray
    *others, last = [new(x[..., 0] if x.shape[-1] == 1 else x) for x in frames]
    duration = [round(1000 * last_seconds)] + [round(1000 * seconds)] * len(others)
    settings = {"duration": duration, "loop": 0, "optimize": False}
    with writing(path) as path:
        last.save(path, format="GIF", save_all=True, append_images=others, **settings)
