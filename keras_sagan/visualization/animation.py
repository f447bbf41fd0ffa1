"""Moving pictures."""

import numpy as np

from keras_sagan.checks import check_float, check_list, check_path, require
from keras_sagan.visualization.grid import check_images
from keras_sagan.visualization.optional import parent_made


def save_gif(path, frames, seconds=0.1, last_seconds=1.5):
    """Writes frames as an animated GIF that repeats for ever.

    Grey frames keep every pixel as it is; colour ones are reduced to 256 colours, one palette for
    each frame.

    Args:
        path: String or path. Where to write; the folder is made if it isn't there.
        frames: uint8 array in [0, 255] of shape `(frames, height, width)` or
            `(frames, height, width, channels)` with 1 or 3 channels, or a list of such images.
        seconds: Float. How long a frame stands. Defaults to `0.1`.
        last_seconds: Float. How long the last one stands. Defaults to `1.5`.

    Raises:
        ValueError: If the frames have another dtype or shape, or a time isn't positive.
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
        raise ValueError(f"`frames` must all have one shape. Received: shapes {sorted(shapes)}")
    frames = check_images(np.asarray(frames))
    image_module = require("PIL.Image")
    pictures = [image_module.fromarray(x[..., 0] if x.shape[-1] == 1 else x) for x in frames]
    durations = [round(1000 * seconds)] * (len(pictures) - 1) + [round(1000 * last_seconds)]
    pictures[0].save(
        parent_made(path),
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
        optimize=False,
    )
