"""The commands that draw: `sample` and `attention`."""

import os
from pathlib import Path

import numpy as np

from keras_sagan.checks import check_integer
from keras_sagan.cli.options import add_run, add_truncation, beside, positive_integer
from keras_sagan.cli.sources import add_data_arguments, load_run, open_source
from keras_sagan.visualization import (
    draw_attention,
    draw_interpolation,
    draw_truncation,
    sample_grid,
    save_image,
)
from keras_sagan.visualization.classes import names_of
from keras_sagan.visualization.query_points import check_images_count, check_points_count

MAX_COLUMNS = 100  # A wider picture takes minutes, and few programs show it.


def sample_arguments(parser):
    add_run(parser)
    kinds = ("grid", "latents", "classes", "truncation")
    parser.add_argument("--kind", choices=kinds, default="grid", help="what the picture shows")
    parser.add_argument(
        "--output",
        type=os.path.expanduser,
        metavar="PATH",
        help="a .png, or a .gif of latents and classes; default: KIND.png in the run's folder",
    )
    parser.add_argument(
        "--columns", type=positive_integer, metavar="N", default=8, help="images in a row"
    )
    parser.add_argument(
        "--classes",
        metavar="CLASS",
        nargs="+",
        help="of the rows, or of the columns of truncation, by name or number; default: all, up "
        "to 10",
    )
    parser.add_argument(
        "--to-classes",
        metavar="CLASS",
        nargs="+",
        help="with --kind classes: where each row ends; default: the next row's class",
    )
    add_truncation(parser)


def sample(settings):
    """Draws samples, or walks between them, from a trained model."""
    check_integer("columns", settings.columns, 1, MAX_COLUMNS, expected=f"at most {MAX_COLUMNS}")
    model, known = load_run(settings.run)
    path = Path(settings.output or beside(settings.run) / f"{settings.kind}.png")
    names = known.get("class_names")
    labels = settings.classes = class_ids(settings.classes, names)
    if settings.kind == "classes" and model.num_classes is None:
        raise ValueError("`--kind classes` needs a model with classes. Received: a model without")
    if settings.to_classes is not None and settings.kind != "classes":
        raise ValueError("--to-classes goes with --kind classes alone.")
    if settings.kind == "truncation":
        draw_truncations(settings, model, path)
        settings.log.say(path)
        return
    if labels is None and model.num_classes is not None:
        count = min(10, model.num_classes)
        labels = [row * model.num_classes // count for row in range(count)]
    rows = 8 if labels is None else len(labels)
    common = {"seed": settings.seed, "truncation": settings.truncation}
    if settings.kind in ("latents", "classes"):
        ends = class_ids(settings.to_classes, names)
        if settings.kind == "classes" and ends is None:
            ends = [*labels[1:], labels[0]]
        draw_interpolation(
            model, path, rows, settings.columns, labels, ends, class_names=names, **common
        )
    else:
        ids = None if labels is None else np.repeat(labels, settings.columns)
        images = model.generate(rows * settings.columns, ids, **common)
        shown = None if labels is None else names_of(labels, names, model.num_classes)
        save_image(path, sample_grid(images, shown, rows=rows, columns=settings.columns))
    settings.log.say(path)


def class_ids(classes, names):
    """Returns the numbers of classes that are given by name or by number; `None` for `None`."""
    ids = {name: number for number, name in enumerate(names or ())}
    for word in classes or ():
        if word not in ids and not word.lstrip("-").isdecimal():
            known = f"one of {list(ids)}, or a number" if ids else "a number"
            raise ValueError(f"A class must be {known}. Received: {word!r}")
    return classes and [ids[word] if word in ids else int(word) for word in classes]


def draw_truncations(settings, model, path):
    """The picture of `--kind truncation`: classes stand in columns there."""
    if settings.truncation is not None:
        raise ValueError("--kind truncation shows several: it doesn't go with --truncation.")
    columns, labels = settings.columns, settings.classes
    if labels is not None:
        if len(labels) > columns:
            raise ValueError(
                f"--columns must be at least the {len(labels)} of --classes. Received: {columns}"
            )
        labels = [labels[column * len(labels) // columns] for column in range(columns)]
    draw_truncation(model, path, columns=columns, labels=labels, seed=settings.seed)


def attention_arguments(parser):
    add_run(parser)
    parser.add_argument(
        "--output", type=os.path.expanduser, metavar="PATH", help="a folder; default: the run's"
    )
    parser.add_argument(
        "--num-images", type=positive_integer, metavar="N", default=4, help="how many, a row each"
    )
    parser.add_argument(
        "--num-points",
        type=positive_integer,
        metavar="N",
        default=3,
        help="coloured dots in each image",
    )
    parser.add_argument(
        "--discriminator", action="store_true", help="show its attention, on real images"
    )
    add_data_arguments(parser)


def attention(settings):
    """Draws where the attention of the generator or the discriminator looks."""
    check_points_count(settings.num_points)
    check_images_count(settings.num_images)
    model, known = load_run(settings.run)
    output = settings.output or beside(settings.run)
    names = known.get("class_names") if model.num_classes else None
    common = {"num_points": settings.num_points, "class_names": names}
    if settings.discriminator:
        count, trained_on = settings.num_images, known.get("data")
        source = open_source(settings, model.image_shape[0], count, trained_on=trained_on)
        images, labels = source.head(settings.num_images)
        labels = labels if model.num_classes else None
        paths = draw_attention(
            model, output, images, labels, name="attention_discriminator", **common
        )
    elif settings.images or settings.dataset:
        raise ValueError("--images and --dataset go with --discriminator: G makes its own images.")
    else:
        paths = draw_attention(
            model, output, num_images=settings.num_images, seed=settings.seed, **common
        )
    for path in paths.values():
        settings.log.say(path)
