"""Creates and saves matplotlib figures without pyplot."""

import contextlib
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
        with writing(path) as path:
            figure.savefig(path, dpi=DPI)
    return figure


@contextlib.contextmanager
def writing(path):
    """Creates the parent folder of a file; errors of the `with` block contain the file's name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    except OSError as error:
        if error.errno is None or error.filename:
            raise
        # On a full disk, the error has no file name.
        raise OSError(error.errno, error.strerror, str(path)) from error
