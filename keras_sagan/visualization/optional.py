"""Makes matplotlib figures without pyplot, and parent folders of files."""

import io
from pathlib import Path

from keras_sagan.checks import require

DPI = 200


def new_figure(width, height):
    """Makes a white matplotlib figure, with its size in inches, without pyplot's global state."""
    figure = require("matplotlib.figure").Figure((width, height), DPI, facecolor="white")
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)

    def png():
        figure.savefig(buffer := io.BytesIO(), format="png", dpi=DPI)
        return buffer.getvalue()

    # Notebooks display objects that have this method; without it, they display only pyplot figures.
    figure._repr_png_ = png
    return figure


def saved(figure, path):
    """Writes a figure to a path unless it is `None`, and returns the figure."""
    if path is not None:
        figure.savefig(parent_made(path), dpi=DPI)
    return figure


def parent_made(path):
    """Creates the folder that a file belongs to, and returns the file's path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
