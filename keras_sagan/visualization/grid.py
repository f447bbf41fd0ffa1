"""Grids of images as plain arrays, pixel for pixel."""

import math

import numpy as np

from keras_sagan.checks import check_integer, check_list, check_path, require
from keras_sagan.visualization.fonts import drawable_names, font_for
from keras_sagan.visualization.optional import parent_made

# The shortest side, in pixels, that an image of a sample grid is enlarged to.
LEGIBLE_PIXELS = 64
LABEL_GREY = (60, 60, 60)


def check_images(images):
    """Returns uint8 images as (batch, height, width, channels), or says what is wrong.

    Args:
        images: uint8 array in [0, 255] of shape `(batch, height, width)` or
            `(batch, height, width, channels)` with 1 or 3 channels.

    Returns:
        uint8 array of shape `(batch, height, width, channels)`.

    Raises:
        ValueError: If there is no image, or the dtype or shape isn't as above.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(
            "`images` must be uint8 in [0, 255]. "
            f"Received: images of dtype={images.dtype} and shape={images.shape}"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.size == 0:
        raise ValueError(
            "`images` must hold at least one image, as (batch, height, width, channels) with "
            f"1 or 3 channels. Received: images of shape={images.shape}"
        )
    return images


def grid_shape(num_images, rows=None, columns=None):
    """Chooses how many rows and columns a grid has.

    Args:
        num_images: Integer. How many images it holds.
        rows: Integer or `None`.
        columns: Integer or `None`. With neither, the grid is as square as it can be.

    Returns:
        A pair of integers, rows and columns.

    Raises:
        ValueError: If the grid has too few cells.
    """
    rows = check_integer("rows", rows, 1, optional=True)
    columns = check_integer("columns", columns, 1, optional=True)
    if columns is None:
        columns = math.ceil(num_images / rows) if rows else math.ceil(math.sqrt(num_images))
    if rows is None:
        rows = math.ceil(num_images / columns)
    if rows * columns < num_images:
        raise ValueError(
            f"`rows` and `columns` must give every image a cell: {num_images} images. "
            f"Received: rows={rows}, columns={columns}"
        )
    return rows, columns


def image_grid(images, rows=None, columns=None, padding=2, scale=1):
    """Lays images out in a grid.

    The images go row by row, left to right, on white. Enlarging repeats pixels and never blends
    them, so what is seen is what the generator made.

    Args:
        images: uint8 array in [0, 255] of shape `(batch, height, width)` or
            `(batch, height, width, channels)` with 1 or 3 channels.
        rows: Integer. Rows of the grid. Defaults to as many as the columns need.
        columns: Integer. Columns of the grid. Defaults to a grid that is nearly square.
        padding: Integer. White pixels between the images and around them, not enlarged.
            Defaults to `2`.
        scale: Integer. How many pixels wide each pixel is drawn. Defaults to `1`.

    Returns:
        uint8 array of shape `(grid_height, grid_width, channels)`.

    Raises:
        ValueError: If `images` isn't uint8 or has another shape, if a number is out of range, or
            if the grid has too few cells.

    Example:

    >>> import numpy as np
    >>> image_grid(np.zeros((6, 8, 8, 3), "uint8"), columns=3, padding=1).shape
    (19, 28, 3)
    """
    images = check_images(images)
    padding = check_integer("padding", padding, 0)
    scale = check_integer("scale", scale, 1)
    rows, columns = grid_shape(len(images), rows, columns)
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    _, height, width, channels = images.shape

    step_y, step_x = height + padding, width + padding
    grid = np.full((rows * step_y + padding, columns * step_x + padding, channels), 255, "uint8")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = row * step_y + padding, column * step_x + padding
        grid[top : top + height, left : left + width] = image
    return grid


def sample_grid(images, row_labels=None, rows=None, columns=None, padding=2, scale=None):
    """Lays samples out in a grid whose rows may be named, enlarged until they can be seen.

    Text is drawn beside the pixels and never over them. Without `row_labels` this is
    `image_grid` with a scale chosen for the eye.

    Args:
        images: uint8 array in [0, 255] of shape `(batch, height, width)` or
            `(batch, height, width, channels)` with 1 or 3 channels.
        row_labels: List of strings, one for each row, written to its left. `row 3` is written for
            one that no font has the signs for. Defaults to `None`.
        rows: Integer. Rows of the grid. Defaults to `len(row_labels)` where there are labels, and
            to as many as the columns need otherwise.
        columns: Integer. Columns of the grid. Defaults to a grid that is nearly square.
        padding: Integer. White pixels between the images. Defaults to `2`.
        scale: Integer. How many pixels wide each pixel is drawn. Defaults to the smallest number
            that makes an image 64 pixels high.

    Returns:
        uint8 array of shape `(grid_height, grid_width, channels)`; with labels it has 3 channels.

    Raises:
        ValueError: As `image_grid`, or if there isn't one label for each row.
        ImportError: If there are labels and pillow isn't installed.

    Example:

    >>> import numpy as np
    >>> sample_grid(np.zeros((6, 32, 32, 1), "uint8"), columns=3).shape
    (134, 200, 1)
    """
    images = check_images(images)
    row_labels = check_list("row_labels", row_labels, optional=True)
    if scale is None:
        scale = legible_scale(images)
    if row_labels is None:
        return image_grid(images, rows, columns, padding, scale)

    if rows is None and columns is None:
        rows = max(1, len(row_labels))
    rows, columns = grid_shape(len(images), rows, columns)
    if len(row_labels) != rows:
        raise ValueError(
            f"`row_labels` must name each of the {rows} rows. Received: row_labels={row_labels!r}"
        )
    grid = image_grid(images, rows, columns, padding, scale)
    if grid.shape[-1] == 1:
        grid = grid.repeat(3, axis=-1)
    step = images.shape[1] * scale + padding
    row_labels = drawable_names(row_labels, "row_labels", "row")
    margin = label_margin(row_labels, step, padding, grid.shape[0])
    return np.concatenate([margin, grid], axis=1)


def legible_scale(images):
    """Returns the smallest number that makes images 64 pixels high."""
    return max(1, math.ceil(LEGIBLE_PIXELS / images.shape[1]))


def label_margin(row_labels, step, padding, height):
    """Draws the names of rows, set right against the grid that follows them.

    Args:
        row_labels: List of strings.
        step: Integer. Pixels from one row to the next.
        padding: Integer. Pixels above the first row.
        height: Integer. Height of the grid in pixels.

    Returns:
        uint8 array of shape `(height, width, 3)`, as wide as the longest name needs.
    """
    image_module, draw_module = require("PIL.Image"), require("PIL.ImageDraw")
    font = font_for(row_labels, size=min(max(step * 0.24, 11), 28))
    space = round(font.size * 0.6)
    width = math.ceil(max(font.getlength(label) for label in row_labels)) + 2 * space
    margin = image_module.new("RGB", (width, height), "white")
    draw = draw_module.Draw(margin)
    for row, label in enumerate(row_labels):
        middle = padding + row * step + (step - padding) / 2
        draw.text((width - space, middle), label, fill=LABEL_GREY, font=font, anchor="rm")
    return np.asarray(margin)


def save_image(path, image):
    """Writes one image to a file.

    The folder is made if it isn't there. The format follows the file's ending; PNG keeps every
    pixel as it is.

    Args:
        path: String or path. Where to write.
        image: uint8 array in [0, 255] of shape `(height, width)` or `(height, width, channels)`
            with 1 or 3 channels.

    Raises:
        ValueError: If `image` isn't uint8 or has another shape.
        ImportError: If pillow isn't installed.

    Example:

    ```python
    save_image("runs/samples.png", sample_grid(model.generate(100, seed=0)))
    ```
    """
    path = check_path("path", path)
    image = np.asarray(image)
    has_image_shape = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (1, 3))
    if image.dtype != np.uint8 or not has_image_shape or image.size == 0:
        raise ValueError(
            "`image` must be uint8 in [0, 255], as (height, width) or (height, width, channels) "
            f"with 1 or 3 channels. Received: image of dtype={image.dtype}, shape={image.shape}"
        )
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    picture = require("PIL.Image").fromarray(np.ascontiguousarray(image))
    picture.save(parent_made(path))


def read_image(path):
    """Reads one image from a file.

    Args:
        path: String or path.

    Returns:
        uint8 array in [0, 255] of shape `(height, width, channels)` with 1 or 3 channels.
    """
    with require("PIL.Image").open(check_path("path", path)) as picture:
        is_grey = picture.mode in ("1", "L", "I", "I;16", "F")
        pixels = np.asarray(picture.convert("L" if is_grey else "RGB"))
    return pixels if pixels.ndim == 3 else pixels[..., None]
