"""Chooses and checks the query points of an attention figure."""

import numpy as np

from keras_sagan.checks import check_integer
from keras_sagan.visualization.grid import check_images

# A figure has one panel per point and image. Larger figures take minutes and gigabytes.
MAX_POINTS, MAX_IMAGES = 32, 50


def choose_query_points(image: np.ndarray, num_points: int = 3) -> np.ndarray:
    """Chooses points of high local contrast that are far from one another.

    Contrast is the standard deviation of the gray image around each pixel. Each chosen point lowers
    the contrast near it, so that the points spread out. The function also works for an image of a
    single color.

    Args:
        image: uint8 array in [0, 255] of shape `(height, width, channels)`.
        num_points: The number of points.

    Returns:
        Integer array of shape `(num_points, 2)`: (row, column) in image pixels.

    Raises:
        ValueError: If `image` isn't a single uint8 image, or `num_points` isn't positive.

    Example:
    >>> image = np.zeros((32, 32, 1), "uint8")
    >>> image[20:, 20:] = 255
    >>> choose_query_points(image, num_points=2).shape
    (2, 2)
    """
    num_points = check_integer("num_points", num_points, 1)
    (image,) = check_images(np.asarray(image)[None], "image")
    gray = image.mean(axis=-1) / 255.0
    height, width = gray.shape
    side = max(3, min(height, width) // 8 | 1)
    variance = box_mean(gray**2, side) - box_mean(gray, side) ** 2
    contrast = np.sqrt(np.maximum(variance, 0.0)) + 0.02 * (1.0 - gray.std())

    rows, columns = np.mgrid[:height, :width]
    spread = min(height, width) / 3.5
    # Prefer pixels away from the edge, which is often padding.
    edge = max(1, min(height, width) // 16)
    weight = contrast * 0.5
    weight[edge:-edge, edge:-edge] *= 2
    points = []
    for _ in range(num_points):
        # Round the weights, so that every machine breaks ties in the same way.
        row, column = np.unravel_index(np.argmax(weight.round(9)), weight.shape)
        points.append((row, column))
        distance = (rows - row) ** 2 + (columns - column) ** 2
        weight = weight * (1.0 - np.exp(-distance / (2 * spread**2)))
    return np.array(points)


def box_mean(values, side):
    """Averages the `side` x `side` square around each pixel; border pixels are repeated."""
    padded = np.pad(values, side // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    return windows.mean(axis=(-2, -1))


def check_points(query_points, images, num_points):
    """Returns the given or chosen query points, as an array of shape `(batch, points, 2)`."""
    if query_points is None:
        return np.stack([choose_query_points(image, num_points) for image in images])
    points = np.asarray(query_points)
    batch, height, width = images.shape[:3]
    if points.ndim == 2:
        points = np.broadcast_to(points, (batch, *points.shape))
    shape_fits = points.ndim == 3 and points.shape[0] == batch and points.shape[2] == 2
    if not shape_fits or points.size == 0 or not np.issubdtype(points.dtype, np.integer):
        raise ValueError(
            "`query_points` must be integers of shape (points, 2) or (batch, points, 2), with the "
            f"batch of `images`: {batch}. Received: query_points of dtype={points.dtype}, "
            f"shape={np.shape(query_points)}"
        )
    check_count("query_points.shape[-2]", points.shape[1], MAX_POINTS)
    if points.min() < 0 or np.any(points >= (height, width)):
        raise ValueError(
            f"`query_points` must be (row, column) inside the image, {height} × {width} pixels. "
            f"Received: query_points={points.tolist()}"
        )
    return points


def check_count(name, count, most):
    return check_integer(name, count, 1, most, expected=f"an integer from 1 to {most}")
