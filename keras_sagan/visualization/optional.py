"""Creates and saves matplotlib figures without pyplot."""

import io
from pathlib import Path

from keras_sagan.checks import require

DPI = 200


def new_figure(width, height):
    """Creates a white matplotlib figure without pyplot's global state; the size is in inches."""
    figure = require("matplotlib.figure").Figure((width, height), DPI, facecolor="white")
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)

    def png():
        figure.savefig(buffer := io.BytesIO(), format="png", dpi=DPI)
        return buffer.getvalue()

    # Notebooks display objects that have this method; without it, they display only pyplot figures.
    figure._repr_png_ = png
    return figure


def saved(figure, path):
    """Writes a figure to `path`, unless `path` is `None`, and returns the figure."""
    if path is not None:
        figure.savefig(parent_made(path), dpi=DPI)
    return figure


def parent_made(path):
    """Creates the parent folder of a file, and returns the path of the file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
