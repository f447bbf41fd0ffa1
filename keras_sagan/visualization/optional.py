"""Lazy access to the optional drawing packages."""

import functools
import importlib
import io
from pathlib import Path


def require(name):
    """Imports a module of an optional drawing package.

    Args:
        name: String. The module's full name, such as `"PIL.Image"`.

    Returns:
        The module.

    Raises:
        ImportError: If the package isn't installed, with the line that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = {"PIL": "pillow"}.get(name.split(".")[0], name.split(".")[0])
        raise ImportError(
            f"Drawing pictures needs {package}, which could not be imported ({error}). "
            f'Install it with:\npip install "keras_sagan[plot]"'
        ) from error


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
