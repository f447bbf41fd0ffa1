"""Matplotlib figures without pyplot, and parent folders of files."""

import functools
import io
from pathlib import Path

from keras_sagan.checks import require


def new_figure(width, height, dpi):
    """Makes a white matplotlib figure, in inches, without pyplot and its global state."""
    figure = require("matplotlib.figure").Figure((width, height), dpi, facecolor="white")
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    # Notebooks display objects that have this method; on their own they know pyplot's figures only.
    figure._repr_png_ = functools.partial(_png_of, figure)
    return figure


def _png_of(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    return buffer.getvalue()


def parent_made(path):
    """Makes the folder of a file and returns the file's path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
