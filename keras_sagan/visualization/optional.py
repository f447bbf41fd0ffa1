"""Lazy access to the optional drawing packages."""

import functools
import io
from pathlib import Path

from keras_sagan.checks import require


def new_figure(width, height, dpi):
    """Makes a matplotlib figure on an Agg canvas, without pyplot and its global state.

    Args:
        width: Float. Width in inches.
        height: Float. Height in inches.
        dpi: Integer. Pixels per inch.

    Returns:
        A `matplotlib.figure.Figure` with a white background.
    """
    figure = require("matplotlib.figure").Figure(
        figsize=(width, height), dpi=dpi, facecolor="white"
    )
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    # Notebooks show what has this. Of themselves they know the figures of pyplot alone.
    figure._repr_png_ = functools.partial(png_of, figure)
    return figure


def png_of(figure):
    """Returns a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    return buffer.getvalue()


def parent_made(path):
    """Makes the folder that a file will lie in.

    Args:
        path: String or path. The file to be written.

    Returns:
        The file's path as a `pathlib.Path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
