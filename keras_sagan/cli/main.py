"""The commands and their options; each is a few calls of the package's functions."""

import argparse
import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

from keras_sagan.callbacks import (
    AttentionFigure,
    AttentionMonitor,
    CollapseMonitor,
    FIDEvaluator,
    SampleGrid,
    StopOnNonFinite,
    TrainingCheckpoint,
)
from keras_sagan.cli.sources import (
    add_data_arguments,
    add_inception,
    beside,
    extractor_for,
    load_run,
    open_source,
)
from keras_sagan.metrics import METRICS, FrechetInceptionDistance, evaluate_generator
from keras_sagan.models import (
    FORMATS,
    IMAGE_SIZES,
    PRESETS,
    SAGAN,
    export_generator,
    preset_settings,
)
from keras_sagan.version import __version__
from keras_sagan.visualization import (
    draw_attention,
    draw_interpolation,
    draw_truncation,
    plot_curves,
    sample_grid,
    save_image,
)

EPILOG = """A round on the images that ship with the package:

  keras-sagan train --output runs/first
  keras-sagan sample runs/first
  keras-sagan attention runs/first
  keras-sagan evaluate runs/first --num-images 5000
  keras-sagan export runs/first --formats saved_model

`keras-sagan COMMAND --help` tells more about each."""


def main(arguments=None):
    """Runs a command.

    Args:
        arguments: List of strings. Defaults to `None`: those of the process.

    Returns:
        Integer, the exit code: 0, or 1 after an error that a user can put right.
    """
    parser = build_parser()
    settings = parser.parse_args(arguments)
    try:
        settings.command(settings)
    except KeyboardInterrupt as error:
        print(f"\nStopped{error}.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("KERAS_SAGAN_TRACEBACK"):
            raise
        print(f"keras-sagan: {error}", file=sys.stderr)
        return 1
    return 0


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Says defaults, where there are any."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def build_parser():
    """Returns the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="keras-sagan",
        description="Trains Self-Attention GANs, and looks at what they learned.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keras_sagan {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, fill in (
        ("train", train, train_arguments),
        ("sample", sample, sample_arguments),
        ("attention", attention, attention_arguments),
        ("evaluate", evaluate, evaluate_arguments),
        ("export", export, export_arguments),
    ):
        text = function.__doc__.split("\n")[0]
        command = commands.add_parser(
            name,
            help=text[0].lower() + text[1:].rstrip("."),
            description=text,
            formatter_class=Help,
        )
        fill(command)
        command.set_defaults(command=function)
    return parser


def positive_integer(text):
    """The type of an option that counts something."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text}")
    return value


def add_run(parser):
    parser.add_argument("run", help="the folder of a run, or a .keras file")
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="of the latents")


def add_truncation(parser):
    text = "latents beyond it are drawn again: less variety, more typical images"
    parser.add_argument("--truncation", type=float, metavar="X", help=text)


def train_arguments(parser):
    parser.add_argument(
        "--output", metavar="PATH", default="runs/first", help="the folder of the run"
    )
    presets = sorted(PRESETS)
    parser.add_argument(
        "--preset", choices=presets, default="sagan_fashion_mnist_32", help="networks and rates"
    )
    parser.add_argument("--recipe", metavar="NAME", help="a recipe of the preset, such as paper")
    parser.add_argument(
        "--epochs", type=positive_integer, metavar="N", default=7, help="how long, in all"
    )
    parser.add_argument(
        "--steps-per-epoch",
        type=positive_integer,
        metavar="N",
        help="default: once through the images",
    )
    parser.add_argument(
        "--batch-size", type=positive_integer, metavar="N", help="default: the preset's"
    )
    parser.add_argument(
        "--base-filters",
        type=positive_integer,
        metavar="N",
        help="the width; default: the preset's",
    )
    parser.add_argument(
        "--image-size", type=int, choices=IMAGE_SIZES, help="pixels; default: the preset's"
    )
    parser.add_argument(
        "--fid-images", type=int, metavar="N", default=1000, help="for the FID; 0 for none"
    )
    add_inception(parser)
    parser.add_argument(
        "--seed", type=int, metavar="N", default=0, help="of weights, latents and order"
    )
    add_data_arguments(parser)


def train(settings):
    """Trains a model; the same command again goes on with a run that was stopped."""
    output = Path(settings.output)
    preset = preset_settings(settings.preset, settings.recipe)
    size = settings.image_size or preset["image_size"]
    batch_size = settings.batch_size or PRESETS[settings.preset]["batch_size"]
    source = open_source(settings, size, batch_size, settings.seed)
    names = None if source.class_names is None else list(source.class_names)
    changes = {
        "image_size": size,
        "channels": source.channels,
        "num_classes": None if names is None else len(names),
        "seed": settings.seed,
    }
    if size != preset["image_size"]:
        changes["attention_resolutions"] = (min(32, size // 2),)
    if settings.base_filters:
        changes["base_filters"] = settings.base_filters
    keras.utils.set_random_seed(settings.seed)
    model = SAGAN.from_preset(settings.preset, settings.recipe, **changes)
    model.compile()
    steps = settings.steps_per_epoch or source.steps_per_epoch
    output.mkdir(parents=True, exist_ok=True)
    run = {
        "class_names": names,
        "data": source.name,
        "preset": settings.preset,
        "recipe": settings.recipe,
        "batch_size": batch_size,
        **changes,
    }
    (output / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    print(f"{source.name}: {steps} steps an epoch, {settings.epochs} epochs, into {output}/")
    fid = None
    if settings.fid_images:
        real, _ = source.head(settings.fid_images)
        fid = FIDEvaluator(
            FrechetInceptionDistance(extractor_for(model.image_shape, settings)),
            real,
            len(real),
            max(1, settings.epochs // 5),
            at_start=True,
            dataset=source.name,
            split=source.head_is(len(real)),
        )
    checkpoint = TrainingCheckpoint(output / "checkpoints")
    stop = StopOnNonFinite(every_steps=steps)
    callbacks = [
        stop,
        AttentionMonitor(),
        CollapseMonitor(),
        SampleGrid(output, class_names=names, gif=True),
        *([AttentionFigure(output, class_names=names)] if model.attention_gammas() else []),
        *([fid] if fid else []),
        checkpoint,  # Last: all before it is done then.
    ]
    try:
        history = model.fit(
            source.batches(), epochs=settings.epochs, steps_per_epoch=steps, callbacks=callbacks
        )
    except KeyboardInterrupt as error:
        if not int(model.steps):
            raise
        checkpoint.save()
        message = f" after step {int(model.steps)}; the same command again goes on"
        raise KeyboardInterrupt(message) from error
    if stop.reason:
        raise ValueError(f"{stop.reason} The newest of {checkpoint.directory} is from before.")
    model.save(output / "model.keras")
    if history.epoch:
        count = len(history.epoch)
        figures = {k: v for k, v in history.history.items() if len(v) == count}
        if fid:
            figures[fid.name] = fid.history
        plot_curves({**figures, "epoch": history.epoch}, output / "curves.png")
    if fid:
        record = {"name": fid.name, "by_epoch": fid.history, "protocol": fid.protocol}
        (output / "fid.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for epoch, value in fid.history:
            print(f"{fid.name} after {epoch} epochs: {value:.1f}")
        print(json.dumps(fid.protocol, indent=2))
    print(f"Pictures and model.keras are in {output}/")


def sample_arguments(parser):
    add_run(parser)
    kinds = ("grid", "latents", "classes", "truncation")
    parser.add_argument("--kind", choices=kinds, default="grid", help="what the picture shows")
    parser.add_argument(
        "--output", metavar="PATH", help="a .png, or a .gif of latents and classes; in the run"
    )
    parser.add_argument(
        "--columns", type=positive_integer, metavar="N", default=8, help="images in a row"
    )
    parser.add_argument(
        "--classes", type=int, metavar="N", nargs="+", help="the rows; default: all, up to 10"
    )
    parser.add_argument(
        "--to-classes", type=int, metavar="N", nargs="+", help="of classes: where rows end"
    )
    add_truncation(parser)


def sample(settings):
    """Draws samples, or walks between them, from a trained model."""
    model, known = load_run(settings.run)
    path = Path(settings.output or beside(settings.run) / f"{settings.kind}.png")
    names = known.get("class_names")
    labels = settings.classes
    if settings.kind == "classes" and model.num_classes is None:
        raise ValueError("`--kind classes` needs a model with classes. Received: a model without")
    if labels is None and model.num_classes is not None:
        count = min(10, model.num_classes)
        labels = [row * model.num_classes // count for row in range(count)]
    rows = 8 if labels is None else len(labels)
    common = {"seed": settings.seed, "truncation": settings.truncation}
    if settings.kind == "truncation":
        draw_truncation(model, path, columns=settings.columns, seed=settings.seed)
    elif settings.kind in ("latents", "classes"):
        ends = settings.to_classes
        if settings.kind == "classes" and ends is None:
            ends = None if labels is None else [*labels[1:], labels[0]]
        if settings.kind == "latents":
            ends = None
        draw_interpolation(
            model, path, rows, settings.columns, labels, ends, class_names=names, **common
        )
    else:
        ids = None if labels is None else np.repeat(labels, settings.columns)
        images = model.generate(rows * settings.columns, ids, **common)
        shown = None if labels is None else [names[i] if names else str(i) for i in labels]
        save_image(path, sample_grid(images, shown, rows=rows, columns=settings.columns))
    print(path)


def attention_arguments(parser):
    add_run(parser)
    parser.add_argument("--output", metavar="PATH", help="a folder; default: the run's")
    parser.add_argument(
        "--num-images", type=positive_integer, metavar="N", default=4, help="rows of the figure"
    )
    parser.add_argument(
        "--num-points", type=positive_integer, metavar="N", default=3, help="queries in each image"
    )
    parser.add_argument(
        "--discriminator", action="store_true", help="show its attention on real images"
    )
    add_data_arguments(parser)


def attention(settings):
    """Draws where the attention of the generator or the discriminator looks."""
    model, known = load_run(settings.run)
    output = settings.output or beside(settings.run)
    names = known.get("class_names") if model.num_classes else None
    common = {"num_points": settings.num_points, "class_names": names}
    if settings.discriminator:
        source = open_source(settings, model.image_shape[0], settings.num_images)
        images, labels = source.head(settings.num_images)
        labels = labels if model.num_classes else None
        paths = draw_attention(
            model, output, images, labels, name="attention_discriminator", **common
        )
    else:
        paths = draw_attention(
            model, output, num_images=settings.num_images, seed=settings.seed, **common
        )
    for path in paths.values():
        print(path)


def evaluate_arguments(parser):
    add_run(parser)
    parser.add_argument(
        "--num-images", type=positive_integer, metavar="N", default=5000, help="generated, and real"
    )
    scores = sorted(METRICS)
    parser.add_argument("--metrics", nargs="+", choices=scores, default=["fid"], help="scores")
    add_inception(parser)
    add_truncation(parser)
    parser.add_argument("--output", metavar="PATH", help="a .json; default: report.json in the run")
    add_data_arguments(parser)


def evaluate(settings):
    """Measures a model against real images; the same command again goes on with it."""
    model, _ = load_run(settings.run)
    size = model.image_shape[0]
    source = open_source(settings, size, 1)
    images, labels = source.head(settings.num_images)
    path = Path(settings.output or beside(settings.run) / "report.json")
    report = evaluate_generator(
        model,
        images if labels is None or model.num_classes is None else (images, labels),
        metrics=settings.metrics,
        feature_extractor=extractor_for(model.image_shape, settings),
        num_images=settings.num_images,
        seed=settings.seed,
        truncation=settings.truncation,
        dataset=source.name,
        split=source.head_is(len(images)),
        checkpoint=path.with_suffix(".interrupted"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    report.save(path)
    print(report)
    print(path)


def export_arguments(parser):
    add_run(parser)
    parser.add_argument("--output", metavar="PATH", help="a folder; default: export/ in the run")
    formats = list(FORMATS)
    parser.add_argument("--formats", nargs="+", choices=formats, default=formats, help="which")


def export(settings):
    """Writes the generator for other runtimes, and compares each file by its own runtime."""
    model, _ = load_run(settings.run)
    output = settings.output or beside(settings.run) / "export"
    files = export_generator(model, output, settings.formats, seed=settings.seed)
    for name, (path, difference) in files.items():
        print(f"{name}: {path}, largest difference of a pixel {difference:.1e}")
