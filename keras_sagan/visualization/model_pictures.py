"""Draws interpolations, truncated samples and nearest neighbors."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_sagan.checks import check_integer, check_list, check_path, require
from keras_sagan.visualization.animation import save_gif
from keras_sagan.visualization.grid import (
    LABEL_GRAY,
    as_rgb,
    check_images,
    image_grid,
    legible_scale,
    sample_grid,
    save_image,
)
from keras_sagan.visualization.names import names_of, spread_classes
from keras_sagan.visualization.query_points import check_count

HEADER_PIXELS, HEADER_FONT, GAP_PIXELS = 26, 12, 16
NUM_REFERENCE = 1000  # The number of real images for the median distance in `draw_neighbours`.


def rows_of_samples(model, columns, labels=None, rows=1, class_names=None, **common):
    """Returns a grid of samples with one row per label; `common` is passed to `generate()`."""
    rows = rows if labels is None else len(labels)
    repeated = None if labels is None else np.repeat(labels, columns)
    images = model.generate(rows * columns, labels=repeated, **common)
    names = names_of(labels, class_names, model.num_classes)
    return sample_grid(images, names, rows=rows, columns=columns)


def draw_interpolation(
    model: keras.Model,
    path: str | Path,
    rows: int = 4,
    steps: int = 8,
    labels: int | Sequence[int] | None = None,
    to_labels: int | Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    seed: int | None = 0,
    truncation: float | None = None,
) -> Path:
    """Draws interpolations between latents, or between classes, and returns the path.

    A PNG has one row for each interpolation. A GIF shows all interpolations at once, forward and
    backward.

    Args:
        model: A `SAGAN`.
        path: The path of a `.png` or `.gif` file.
        rows: The number of interpolations.
        steps: The number of images in each interpolation, including both ends.
        labels, to_labels: Class id, or a list of `rows` class ids, at the start and at the end of
            the interpolations. Without `to_labels`, only the latents change; with `to_labels`, only
            the class changes.
        class_names: The names of all classes of the model. `None` shows the class ids.
        seed, truncation: As in `generate()`.

    Raises:
        ValueError: If `path` isn't a PNG or GIF, or an argument is incompatible with the model.
        ImportError: If pillow isn't installed.

    Example:
    ```python
    draw_interpolation(model, "runs/latents.png")
    draw_interpolation(model, "runs/classes.gif", steps=24, labels=0, to_labels=[1, 2, 3, 4])
    ```
    """
    path = Path(check_path("path", path))
    rows = check_integer("rows", rows, 1)
    steps = check_integer("steps", steps, 2)
    class_names = check_list("class_names", class_names, optional=True)
    if path.suffix not in (".png", ".gif"):
        raise ValueError(f"`path` must end in .png or .gif. Received: path={path}")
    num_classes = model.num_classes
    labels = spread_classes(num_classes, rows) if labels is None else labels
    common = {"seed": seed, "truncation": truncation}
    images = model.interpolate(rows, steps, labels=labels, to_labels=to_labels, **common)
    names = None
    if num_classes is not None:
        ends = (labels, labels if to_labels is None else to_labels)
        ends = [names_of(np.full(rows, ids), class_names, num_classes) for ids in ends]
        names = [a if a == b else f"{a} to {b}" for a, b in zip(*ends)]
    if path.suffix == ".png":
        save_image(path, sample_grid(np.concatenate(images), names, rows, steps))
    else:
        columns = None if names is None else 1
        frames = [sample_grid(images[:, i], names, columns=columns) for i in range(steps)]
        # Put the first frame last, because `save_gif` moves the last frame to the file's start.
        save_gif(path, frames[1:] + frames[-2::-1], seconds=0.08, last_seconds=0.08)
    return path


def draw_truncation(
    model: keras.Model,
    path: str | Path,
    truncations: Sequence[float | None] = (0.1, 0.5, 1.0, 2.0, None),
    columns: int = 10,
    labels: int | Sequence[int] | None = None,
    seed: int | None = 0,
) -> Path:
    """Draws samples, with one row for each truncation threshold, and returns the path.

    Truncation makes images more typical and less varied. `None` means no truncation, as in
    training.

    Args:
        model: A `SAGAN`.
        path: The path of the PNG.
        truncations: The threshold of each row, a positive float or `None`. Latent values whose
            magnitude exceeds it are resampled.
        columns: The number of samples in each row.
        labels: Class id, or a list of `columns` class ids. Defaults to evenly spaced class ids.
        seed: The seed for the latents.

    Raises:
        ValueError: If an argument is incompatible with the model.
        ImportError: If pillow isn't installed.

    Example:
    ```python
    draw_truncation(model, "runs/truncation.png", labels=3)
    ```

    Reference: [Brock et al., 2019](https://arxiv.org/abs/1809.11096), section 3.1.
    """
    path = check_path("path", path)
    truncations = check_list("truncations", truncations)
    columns = check_integer("columns", columns, 1)
    if not truncations:
        raise ValueError(
            f"`truncations` must hold at least one value. Received: truncations={truncations!r}"
        )
    labels = spread_classes(model.num_classes, columns) if labels is None else labels
    images = [model.generate(columns, labels, seed, truncation=t) for t in truncations]
    names = ["none" if value is None else f"{value:g}" for value in truncations]
    save_image(path, sample_grid(np.concatenate(images), names, columns=columns))
    return Path(path)


def nearest_neighbours(
    images: np.ndarray,
    real_images: np.ndarray,
    feature_extractor: Callable | None = None,
    num_neighbours: int = 5,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the real images that are nearest to each image, in feature space.

    Args:
        images, real_images: uint8 arrays in [0, 255] of shape `(batch, height, width, channels)`.
        feature_extractor: Callable that maps float32 images in [-1, 1] to features, such as
            `keras_sagan.metrics.GreyClassifierFeatures()`. `None` compares pixels.
        num_neighbours: The number of real images to find for each image.

    Returns:
        Tuple `(indices, distances)`: indices into `real_images` and Euclidean distances, both of
        shape `(len(images), num_neighbours)`, in order of increasing distance.

    Raises:
        ValueError: If images aren't uint8 or `num_neighbours` is out of range.

    Example:
    >>> real = np.arange(3, dtype="uint8").reshape(3, 1, 1, 1) * 100
    >>> nearest_neighbours(real[2:] - 10, real, num_neighbours=2)[0]
    array([[2, 1]])
    """
    images, real_images = check_images(images), check_images(real_images, "real_images")
    num_neighbours = check_count("num_neighbours", num_neighbours, len(real_images))
    features, real = (features_of(x, feature_extractor) for x in (images, real_images))
    squares = (real**2).sum(axis=1)
    indices, distances = [], []
    for one in features:
        found = np.argsort(squares - 2.0 * real @ one, kind="stable")[:num_neighbours]
        indices.append(found)
        distances.append(np.linalg.norm(real[found] - one, axis=1))
    return np.stack(indices), np.stack(distances)


def features_of(images, feature_extractor):
    """Returns the features of uint8 images, as float64 of shape `(batch, dim)`."""
    features = []
    for start in range(0, len(images), 250):
        x = images[start : start + 250].astype("float32") / 127.5 - 1.0
        if feature_extractor is not None:
            x = keras.ops.convert_to_numpy(feature_extractor(x))
        features.append(np.asarray(x, "float64").reshape(len(x), -1))
    return np.concatenate(features)


def draw_neighbours(
    images: np.ndarray,
    real_images: np.ndarray,
    path: str | Path,
    feature_extractor: Callable | None = None,
    num_neighbours: int = 5,
) -> tuple[Path, np.ndarray]:
    """Draws generated images beside their nearest real images, to reveal memorization.

    The number beside each row is the distance to the nearest real image, divided by the median
    distance between a real image and its nearest neighbor, among up to 1,000 real images. The
    number is 0 for a copy, and approximately 1 for an image that is as far from its nearest real
    image as real images are from theirs.

    Args:
        images, real_images, feature_extractor, num_neighbours: As in `nearest_neighbours`.
        path: The path of the PNG.

    Returns:
        Tuple of the path and the numbers beside the rows, a float array of shape `(len(images),)`.

    Raises:
        ValueError: As in `nearest_neighbours`, or if there are fewer than 2 real images.
        ImportError: If pillow isn't installed.

    Example:
    ```python
    pictures = model.generate(8, seed=0)
    draw_neighbours(pictures, train_images, "runs/neighbours.png", GreyClassifierFeatures())
    ```
    """
    path = check_path("path", path)
    images, real_images = check_images(images), check_images(real_images, "real_images")
    if len(real_images) < 2:
        raise ValueError(
            f"`real_images` must hold at least 2 images. Received: {len(real_images)} images"
        )
    found, distances = nearest_neighbours(images, real_images, feature_extractor, num_neighbours)
    some = real_images[:: math.ceil(len(real_images) / NUM_REFERENCE)]
    # Use the second of 2 neighbors, because the first is the image itself.
    _, among_real = nearest_neighbours(some, real_images, feature_extractor, 2)
    multiples = distances[:, 0] / max(float(np.median(among_real[:, 1])), 1e-12)

    scale = legible_scale(images)
    left = sample_grid(images, [f"{x:.2f}" for x in multiples], columns=1)
    right = as_rgb(image_grid(real_images[found.ravel()], columns=num_neighbours, scale=scale))
    margin = left.shape[1] - images.shape[2] * scale
    font = require("PIL.ImageFont").load_default(size=HEADER_FONT)
    x_images = max(margin, math.ceil(font.getlength("distance")) + 10)
    end = x_images + left.shape[1] - margin
    x_real = end + GAP_PIXELS
    shape = (HEADER_PIXELS + len(left), x_real + right.shape[1], 3)
    picture = np.full(shape, 255, "uint8")
    picture[HEADER_PIXELS:, end - left.shape[1] : end] = left
    picture[HEADER_PIXELS:, x_real:] = right
    picture = require("PIL.Image").fromarray(picture)
    draw = require("PIL.ImageDraw").Draw(picture)
    for x, name in ((0, "distance"), (x_images, "generated"), (x_real, "nearest real images")):
        draw.text((x + 2, HEADER_PIXELS - 6), name, fill=LABEL_GRAY, font=font, anchor="ls")
    save_image(path, np.asarray(picture))
    return Path(path), multiples
