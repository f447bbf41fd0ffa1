"""The commands and their options; each is a few calls of the package's functions."""

import argparse
import json
import os
import sys
from pathlib import Path

import keras

from keras_sagan.callbacks import (
    AttentionFigure,
    AttentionMonitor,
    CollapseMonitor,
    FIDEvaluator,
    RunHistory,
    SampleGrid,
    StopOnNonFinite,
    TrainingCheckpoint,
)
from keras_sagan.callbacks.checkpoint_files import CheckpointFiles
from keras_sagan.checks import check_integer
from keras_sagan.cli.log import EpochLog, Log
from keras_sagan.cli.options import add_inception, add_run, add_truncation, beside, positive_integer
from keras_sagan.cli.pictures import attention, attention_arguments, sample, sample_arguments
from keras_sagan.cli.sources import (
    EXTRACTORS,
    add_data_arguments,
    extractor_for,
    load_run,
    open_source,
    read_record,
)
from keras_sagan.image_files import read_image
from keras_sagan.metrics import (
    METRICS,
    FolderImages,
    FrechetInceptionDistance,
    evaluate_generator,
    evaluate_images,
)
from keras_sagan.models import (
    FORMATS,
    IMAGE_SIZES,
    PRESETS,
    SAGAN,
    export_generator,
    preset_settings,
)
from keras_sagan.version import __version__
from keras_sagan.visualization import plot_curves
from keras_sagan.whole_files import replace_file

EPILOG = """A round on the images that ship with the package:

  keras-sagan train --output runs/first
  keras-sagan sample runs/first
  keras-sagan attention runs/first
  keras-sagan evaluate runs/first --num-images 5000
  keras-sagan export runs/first --formats saved_model

`keras-sagan COMMAND --help` tells more about each."""


def main(arguments=None):
    """Runs a command.

    Whatever goes wrong is said in one line, which names a log with the traceback. The log is
    `keras_sagan.log` in the folder of the run, or without a run a file in the temporary folder.

    Args:
        arguments: List of strings. Defaults to `None`: those of the process.

    Returns:
        Integer, the exit code: 0, 1 after an error, or 130 after Ctrl-C.
    """
    parser = build_parser()
    settings = parser.parse_args(arguments)
    arguments = sys.argv[1:] if arguments is None else arguments
    folder = beside(settings.run) if getattr(settings, "run", None) else settings.output
    settings.log = log = Log(folder, ["keras-sagan", *map(str, arguments)])
    try:
        with log.with_warnings():
            settings.command(settings)
    except KeyboardInterrupt as error:
        log.write(f"Stopped{error}.")
        print(f"\nStopped{error}.", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("KERAS_SAGAN_TRACEBACK"):
            raise
        print(f"keras-sagan: {log.failed(error)}", file=sys.stderr)
        return 1
    return 0


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Says defaults, where there are any."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False or isinstance(action.default, list):
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


def train_arguments(parser):
    parser.add_argument(
        "--output",
        type=os.path.expanduser,
        metavar="PATH",
        default="runs/first",
        help="the folder of the run",
    )
    presets = sorted(PRESETS)
    parser.add_argument(
        "--preset",
        choices=presets,
        default="sagan_fashion_mnist_32",
        help="the networks and how they are trained",
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="settings of the preset by name, such as paper"
    )
    parser.add_argument(
        "--epochs",
        type=positive_integer,
        metavar="N",
        default=7,
        help="times through the images, in all",
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
        help="the width of both networks; default: the preset's",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        choices=IMAGE_SIZES,
        help="height and width in pixels; default: the preset's",
    )
    parser.add_argument(
        "--fid-images",
        type=int,
        metavar="N",
        default=1000,
        help="images that the FID is measured on; 0 leaves it out",
    )
    add_inception(parser)
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        default=0,
        help="of weights, latents and the order of images",
    )
    add_data_arguments(parser)


def train(settings):
    """Trains a model; the same command again resumes a run that was stopped."""
    output, log = Path(settings.output), settings.log
    check_integer("fid_images", settings.fid_images, 0)
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
    run = {
        "class_names": names,
        "data": source.name,
        "preset": settings.preset,
        "recipe": settings.recipe,
        "batch_size": batch_size,
        **changes,
    }
    checkpoint = TrainingCheckpoint(output / "checkpoints")
    newest = newest_step(output / "checkpoints")
    if is_finished(output, run, settings.epochs, newest):
        log.say(
            f"The run in {output}/ is finished, and nothing was changed. Give more --epochs to "
            "train on, or another --output to train anew."
        )
        return
    keras.utils.set_random_seed(settings.seed)
    model = SAGAN.from_preset(settings.preset, settings.recipe, **changes)
    model.compile()
    steps = settings.steps_per_epoch or source.steps_per_epoch
    log.say(f"{source.name}: {steps} steps an epoch, {settings.epochs} epochs, into {output}/")
    fid, extractor = None, extractor_for(model.image_shape, settings)
    is_asked_for = settings.inception or settings.inception_sha256
    if settings.fid_images and not is_asked_for and not getattr(extractor, "is_at_hand", True):
        log.say("No FID is measured: it needs --inception, or --inception-sha256.")
    elif settings.fid_images:
        real, _ = source.head(settings.fid_images)
        fid = FIDEvaluator(
            FrechetInceptionDistance(extractor),
            real,
            len(real),
            max(1, settings.epochs // 5),
            at_start=not newest,
            dataset=source.name,
            split=f"{len(real)} images, {source.chosen}",
        )
    history = RunHistory(output / "history.json", [fid] if fid else [])
    record = RunRecord(output / "run.json", run)
    stop = StopOnNonFinite()
    callbacks = [
        stop,
        record,
        AttentionMonitor(),
        CollapseMonitor(),
        SampleGrid(output, class_names=names, gif=True),
        *([AttentionFigure(output, class_names=names)] if model.attention_gammas() else []),
        *([fid] if fid else []),
        EpochLog(log),
        history,
        checkpoint,  # Last: all before it is done then.
    ]
    try:
        model.fit(
            source.batches(), epochs=settings.epochs, steps_per_epoch=steps, callbacks=callbacks
        )
    except KeyboardInterrupt as error:
        if not int(model.steps):
            raise
        checkpoint.save()
        history.save()
        message = f" after step {int(model.steps)}; the same command again resumes the run"
        raise KeyboardInterrupt(message) from error
    if stop.reason:
        raise ValueError(f"{stop.reason} The newest of {checkpoint.directory} is from before.")
    model.save(output / "model.keras")
    if history.history:
        plot_curves(history.history, output / "curves.png")
    if fid:
        by_epoch = {"name": fid.name, "by_epoch": fid.history, "protocol": fid.protocol}
        (output / "fid.json").write_text(json.dumps(by_epoch, indent=2) + "\n", encoding="utf-8")
        for epoch, value in fid.history:
            log.say(f"{fid.name} after {epoch} epochs: {value:.1f}")
        print(json.dumps(fid.protocol, indent=2))
    record.save({"epochs": settings.epochs, "step": int(model.steps)})
    log.say(f"Pictures and model.keras are in {output}/")


class RunRecord(keras.callbacks.Callback):
    """Writes `run.json` once a step was trained, and so nothing is left that could be refused.

    Args:
        path: Path of the file.
        content: Dictionary. What the file says of the run.
    """

    def __init__(self, path, content):
        super().__init__()
        self.path, self.content = path, content
        self._is_written = False

    def on_train_batch_end(self, batch, logs=None):
        if not self._is_written:
            self.save()

    def save(self, finished=None):
        """Writes the file.

        Args:
            finished: Dictionary. The epochs and the step at which the run has ended, where all
                other files are written. Defaults to `None`: the run goes on.
        """
        content = {**self.content, **({} if finished is None else {"finished": finished})}
        text = json.dumps(content, indent=2) + "\n"
        replace_file(self.path, lambda file: file.write(text.encode()))
        self._is_written = True


def newest_step(directory):
    """Returns the step of the newest complete checkpoint of a folder, or 0."""
    return max(CheckpointFiles(str(directory), 1).steps(), default=0)


def is_finished(output, run, epochs, step):
    """Returns whether a folder has everything that a run leaves at its end.

    Args:
        output: Path of the run's folder.
        run: Dictionary. What `run.json` would say of this run.
        epochs: Integer. How many epochs are asked for.
        step: Integer. The step of the newest checkpoint.

    Raises:
        ValueError: If the folder holds a finished run of other settings.
    """
    known = read_record(output / "run.json")
    finished = known.get("finished") or {}
    is_whole = step and finished.get("step") == step and (output / "model.keras").exists()
    if not is_whole or epochs > finished.get("epochs", 0):
        return False
    for name in sorted({*run} - {"batch_size", "class_names", "data", "attention_resolutions"}):
        if known.get(name) != run[name]:
            raise ValueError(
                f"--output must be a new folder, or that of the same run. Received: {output} with "
                f"a finished run of {name}={known.get(name)!r}, and {name}={run[name]!r}"
            )
    return True


def evaluate_arguments(parser):
    add_run(parser, "?")
    parser.add_argument(
        "--generated",
        type=os.path.expanduser,
        metavar="DIR",
        help="a folder of generated images, in place of a run",
    )
    parser.add_argument(
        "--num-images",
        type=positive_integer,
        metavar="N",
        help="how many are generated, and of the real ones compared with; default: 5000, and all "
        "images of a folder",
    )
    scores = sorted(METRICS)
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=scores,
        metavar="NAME",
        default=["fid"],
        help=f"one or several of {', '.join(scores)}; default: fid",
    )
    parser.add_argument(
        "--reference",
        type=os.path.expanduser,
        metavar="PATH",
        help="a folder of real images as they are, or a .npz of their statistics, in place of "
        "--images and --dataset",
    )
    parser.add_argument(
        "--cache-dir",
        type=os.path.expanduser,
        metavar="DIR",
        help="a folder that keeps the statistics of the real images for the next time",
    )
    parser.add_argument(
        "--held-out",
        type=os.path.expanduser,
        metavar="DIR",
        help="a folder of other real images, whose score is the floor; default: one half of the "
        "real images against the other",
    )
    parser.add_argument(
        "--extractor",
        choices=sorted(EXTRACTORS),
        help="the network that looks at images; default: grey for grey ones of 28 and 32 pixels, "
        "tfgan for all others",
    )
    add_inception(parser)
    add_truncation(parser)
    parser.add_argument(
        "--labels",
        choices=["uniform", "reference"],
        default="uniform",
        help="classes in equal number, or as often as in the reference",
    )
    parser.add_argument(
        "--raw-weights", action="store_true", help="of the last step, not their average"
    )
    parser.add_argument(
        "--standing-passes",
        type=int,
        metavar="N",
        default=0,
        help="batches that batch norm's statistics are taken from anew; 0 keeps the moving ones",
    )
    parser.add_argument(
        "--batch-size", type=positive_integer, metavar="N", default=64, help="images at a time"
    )
    parser.add_argument(
        "--output",
        type=os.path.expanduser,
        metavar="PATH",
        help="a .json; default: report.json in the run, and no file with --generated",
    )
    add_data_arguments(parser)


def evaluate(settings):
    """Measures a model, or a folder of generated images, against real images.

    Returns:
        `EvaluationReport`.
    """
    if (settings.run is None) == (settings.generated is None):
        raise ValueError("Give either a run or --generated with a folder of images.")
    path = settings.output and Path(settings.output)
    common = {
        "metrics": settings.metrics,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "cache_dir": settings.cache_dir,
        "held_out": settings.held_out and FolderImages(settings.held_out, settings.batch_size),
    }
    if settings.run is None:
        for option in ("raw_weights", "standing_passes", "truncation"):
            if getattr(settings, option):
                raise ValueError(f"--{option.replace('_', '-')} goes with a run alone.")
        images = FolderImages(settings.generated, settings.batch_size)
        shape, known, num_classes = read_image(images.paths[0]).shape, {}, None
        measure, what = evaluate_images, {"images": images, "num_images": settings.num_images}
        what["name"] = images.folder.name
    else:
        model, known = load_run(settings.run, is_any=True)
        path = path or beside(settings.run) / "report.json"
        is_sagan = isinstance(model, SAGAN)
        shape = model.image_shape if is_sagan else model.output_shape[1:]
        num_classes = model.num_classes if is_sagan else len(model.inputs) - 1
        measure = evaluate_generator
        what = {
            "model": model,
            "num_images": settings.num_images or 5000,
            "labels": settings.labels,
            "use_ema": not settings.raw_weights,
            "standing_passes": settings.standing_passes,
            "truncation": settings.truncation,
        }
    if path and path.is_dir():
        raise ValueError(f"--output must be a file, and not a folder. Received: {path}")
    reference = settings.reference
    if reference is None:
        source = open_source(settings, shape[0], 1, trained_on=known.get("data"))
        images, labels = source.head(what["num_images"] or what["images"].num_images)
        reference = (images, labels) if labels is not None and num_classes else images
        common |= {"dataset": source.name, "split": f"{len(images)} images, {source.chosen}"}
    elif settings.images or settings.dataset:
        raise ValueError("--reference stands in place of --images and --dataset.")
    elif not reference.endswith(".npz"):
        reference = FolderImages(reference, settings.batch_size)
        common["dataset"] = reference.folder.name
    extractor = extractor_for(shape, settings, settings.extractor)
    report = measure(reference=reference, feature_extractor=extractor, **what, **common)
    settings.log.say(report)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        report.save(path)
        settings.log.say(path)
    return report


def export_arguments(parser):
    add_run(parser)
    parser.add_argument(
        "--output",
        type=os.path.expanduser,
        metavar="PATH",
        help="a folder; default: export/ in the run",
    )
    formats = list(FORMATS)
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=formats,
        metavar="NAME",
        default=formats,
        help=f"one or several of {', '.join(formats)}; default: all",
    )


def export(settings):
    """Writes the generator for other runtimes, and compares each file by its own runtime."""
    model, _ = load_run(settings.run)
    output = settings.output or beside(settings.run) / "export"
    files = export_generator(model, output, settings.formats, seed=settings.seed)
    for name, (path, difference) in files.items():
        settings.log.say(f"{name}: {path}, largest difference of a pixel {difference:.1e}")
