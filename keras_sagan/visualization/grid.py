"""Arranges arrays of images in grids, without blending pixels."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_sagan.checks import check_integer, check_list, check_path, require
from keras_sagan.visualization.names import drawable_names, font_for
from keras_sagan.visualization.optional import writing

LEGIBLE_PIXELS = 64  # The minimum image height in `sample_grid`, which enlarges smaller images.
LABEL_GRAY = (60, 60, 60)


def check_images(images, name="images"):
    """Returns uint8 images of shape `(batch, height, width, channels)`, or raises an error."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(
            f"`{name}` must be uint8 in [0, 255]. Received: {name} of dtype={images.dtype}"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.size == 0:
        raise ValueError(
            f"`{name}` must hold at least one image, of shape (height, width) or "
            f"(height, width, 1 or 3). Received: a batch of shape {images.shape}"
        )
    return images


def as_rgb(image):
    """Converts an image of 1 or 3 channels to 3 channels."""
    return image if image.shape[-1] == 3 else image.repeat(3, axis=-1)


def grid_shape(num_images, rows=None, columns=None):
    """Returns the number of rows and columns of a grid, which is nearly square by default."""
    rows = check_integer("rows", rows, 1, optional=True)
    columns = check_integer("columns", columns, 1, optional=True)
    if columns is None:
        columns = math.ceil(num_images / rows if rows else math.sqrt(num_images))
    if rows is None:
        rows = math.ceil(num_images / columns)
    if rows * columns < num_images:
        raise ValueError(
            f"`rows` and `columns` must have a cell for each of {num_images} images. "
            f"Received: rows={rows}, columns={columns}"
        )
    return rows, columns


def image_grid(
    images: np.ndarray,
    rows: int | None = None,
    columns: int | None = None,
    padding: int = 2,
    scale: int = 1,
) -> np.ndarray:
    """Arranges images in a grid on a white background, row by row from left to right.

    Images are enlarged by repeating pixels, so the grid shows the original pixels.

    Args:
        images: uint8 array in [0, 255] of shape `(batch, height, width)` or
            `(batch, height, width, channels)` with 1 or 3 channels.
        rows: The number of rows. Defaults to the smallest number that fits all images.
        columns: The number of columns. Without `rows`, the default grid is nearly square.
        padding: The number of white pixels between and around the images, independent of `scale`.
        scale: The factor by which images are enlarged.

    Returns:
        uint8 array of shape `(grid_height, grid_width, channels)`.

    Raises:
        ValueError: If `images` has the wrong dtype or shape, if a number is out of range, or if the
            grid has too few cells.

    Example:
    >>> image_grid(np.zeros((6, 8, 8, 3), "uint8"), columns=3, padding=1).shape
    (19, 28, 3)
    """
    images = check_images(images)
    padding = check_integer("padding", padding, 0)
    scale = check_integer("scale", scale, 1)
    rows, columns = grid_shape(len(images), rows, columns)
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = images.shape
    cells = np.full((rows * columns, padding + height, padding + width, channels), 255, "uint8")
    cells[:count, padding:, padding:] = images
    cells = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    grid = cells.reshape(rows * (padding + height), -1, channels)
    return np.pad(grid, ((0, padding), (0, padding), (0, 0)), constant_values=255)


def sample_grid(
    images: np.ndarray,
    row_labels: Sequence[str] | None = None,
    rows: int | None = None,
    columns: int | None = None,
    padding: int = 2,
    scale: int | None = None,
) -> np.ndarray:
    """Arranges samples in a grid, enlarged for viewing, with optional row names beside the images.

    Without `row_labels`, it differs from `image_grid` only in the default value of `scale`.

    Args:
        images, columns, padding: As in `image_grid`.
        row_labels: The name of each row, drawn on its left. A name that no available font can
            render is replaced, for example by `row 3`.
        rows: The number of rows. Defaults to `len(row_labels)`, or to the smallest number that fits
            all images.
        scale: The factor by which images are enlarged. Defaults to the smallest factor that makes
            images at least 64 pixels high.

    Returns:
        uint8 array of shape `(grid_height, grid_width, channels)`, with 3 channels if there are
        labels.

    Raises:
        ValueError: As in `image_grid`, or if there isn't one label for each row.
        ImportError: If there are labels and pillow isn't installed.

    Example:
    >>> sample_grid(np.zeros((6, 32, 32, 1), "uint8"), columns=3).shape
    (134, 200, 1)
    """
    images = check_images(images)
    row_labels = check_list("row_labels", row_labels, optional=True)
    scale = legible_scale(images) if scale is None else scale
    if row_labels is None:
        return image_grid(images, rows, columns, padding, scale)
    if rows is None and columns is None:
        rows = max(1, len(row_labels))
    rows, columns = grid_shape(len(images), rows, columns)
    if len(row_labels) != rows:
        raise ValueError(
            f"`row_labels` must name each of the {rows} rows. Received: row_labels={row_labels!r}"
        )
    grid = as_rgb(image_grid(images, rows, columns, padding, scale))
    row_labels = drawable_names(row_labels, "row_labels", "row")
    margin = label_margin(row_labels, images.shape[1] * scale + padding, padding, len(grid))
    return np.concatenate([margin, grid], axis=1)


def legible_scale(images):
    """Returns the smallest factor that makes images at least 64 pixels high."""
    return math.ceil(LEGIBLE_PIXELS / images.shape[1])


def label_margin(row_labels, step, padding, height):
    """Returns an image of row names, `step` pixels apart, for the left side of a grid."""
    font = font_for(row_labels, size=min(max(step * 0.24, 11), 28))
    space = round(font.size * 0.6)
    width = math.ceil(max(font.getlength(label) for label in row_labels)) + 2 * space
    margin = require("PIL.Image").new("RGB", (width, height), "white")
    draw = require("PIL.ImageDraw").Draw(margin)
    for row, label in enumerate(row_labels):
        middle = padding + row * step + (step - padding) / 2
        draw.text((width - space, middle), label, fill=LABEL_GRAY, font=font, anchor="rm")
    return np.asarray(margin)


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Writes an image to a file. The extension determines the format; PNG files are lossless.

    Args:
        path: The path of the file. Its folder is created if needed.
        image: uint8 array in [0, 255] of shape `(height, width)` or `(height, width, channels)`
            with 1 or 3 channels.

    Raises:
        ValueError: If `image` has the wrong dtype or shape.
        ImportError: If pillow isn't installed.

    Example:
    ```python
    save_image("runs/samples.png", sample_grid(model.generate(100, seed=0)))
    ```
    """
    path = check_path("path", path)
    (image,) = check_images(np.asarray(image)[None], "image")
    image = image[..., 0] if image.shape[-1] == 1 else image
    with writing(path) as path:
        require("PIL.Image").fromarray(image).save(path)


def read_image(path):
    """Reads an image that `save_image` wrote, as uint8 of shape `(height, width, 1 or 3)`."""
    with require("PIL.Image").open(path) as picture:
        pixels = np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)
