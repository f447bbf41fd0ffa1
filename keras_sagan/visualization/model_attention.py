"""Draws the attention of a model's layers."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_sagan.checks import check_integer, check_list, check_path, check_string
from keras_sagan.visualization.attention import plot_attention
from keras_sagan.visualization.names import names_of, spread_classes
from keras_sagan.visualization.query_points import MAX_IMAGES, check_count


def draw_attention(
    model: keras.Model | str | Path,
    directory: str | Path,
    images: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    num_images: int = 4,
    num_points: int = 3,
    query_points: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    seed: int | None = 0,
    name: str = "attention",
) -> dict[str, Path]:
    """Draws the attention maps of a network, with one figure for each attention layer.

    `plot_attention` draws the figures. The figures show the discriminator's attention if `images`
    is given, and the generator's attention otherwise. The file of a figure is `<name>.png`, or
    `<name>_<layer>.png` if the network has several attention layers.

    Args:
        model: A `SAGAN`, or the path of a `SAGAN` saved as a `.keras` file.
        directory: The folder for the figures, which is created if needed.
        images: Array of shape `(batch, height, width, channels)`, uint8 or float in [-1, 1], for
            the discriminator.
        labels: Integer array, the class of each given or generated image. A conditional
            discriminator needs labels. By default, the generator uses evenly spaced class ids.
        num_images: Integer in [1, 50]. The number of images to generate, one in each row.
        num_points, query_points: As in `plot_attention`.
        class_names: The names of all classes of the model, written beside the rows. `None` shows
            the class ids.
        seed: The seed for the latents.
        name: The prefix of the file names.

    Returns:
        Dictionary that maps each layer's name to the path of its figure.

    Raises:
        ValueError: If an argument is incompatible with the model, or the network has no attention.
        ImportError: If matplotlib isn't installed.

    Example:
    ```python
    draw_attention("runs/first/model.keras", "runs/first")
    draw_attention(model, "runs/first", images[:4], labels[:4], name="discriminator")
    ```
    """
    directory = Path(check_path("directory", directory))
    num_images = check_count("num_images", num_images, MAX_IMAGES)
    class_names = check_list("class_names", class_names, optional=True)
    seed = check_integer("seed", seed, 0, optional=True)
    name = check_string("name", name)
    if isinstance(model, (str, os.PathLike)):
        model = keras.saving.load_model(check_path("model", model, allow_url=True))
    if images is None:
        shape = (num_images, model.latent_dim)
        images = np.random.default_rng(seed).standard_normal(shape).astype("float32")
        labels = spread_classes(model.num_classes, num_images) if labels is None else labels
    check_count("len(images)", len(images), MAX_IMAGES)
    rows = names_of(labels, class_names, model.num_classes)
    images, maps = model.attention_maps(images, labels)
    paths = {}
    for layer, scores in maps.items():
        ending = "_" + layer.replace("/", "_") if len(maps) > 1 else ""
        paths[layer] = directory / f"{name}{ending}.png"
        plot_attention(
            images,
            scores,
            query_points=query_points,
            num_points=num_points,
            path=paths[layer],
            title=f"{layer}, {scores.shape[1]} × {scores.shape[2]}{in_words(name)}",
            row_labels=rows,
        )
    return paths


def in_words(name):
    """Returns a title suffix, such as `", epoch 6"` for the name `attention_epoch_006`."""
    words = name.removeprefix("attention").strip("_").split("_")
    words = " ".join(str(int(word)) if word.isdecimal() else word for word in words)
    return f", {words}" if words else ""
