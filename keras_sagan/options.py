"""Declares the options of runs and commands, without importing Keras, which would be slow."""

import argparse
import collections
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

__all__ = []

# What an option accepts: the Python type, a validity test, a description, and a name for `--help`.
Kind = collections.namedtuple("Kind", "type is_valid expected metavar", defaults=[None])
NUMBER = Kind(int, lambda x: x >= 0, "an integer of at least 0", "N")
SEVERAL = Kind(int, lambda x: x == 0 or x >= 2, "0 or an integer of at least 2", "N")
COUNT = Kind(int, lambda x: x >= 1, "a positive integer", "N")
RATE = Kind(float, lambda x: 0 < x < math.inf, "a positive number", "X")
SHARE = Kind(float, lambda x: 0 <= x < 1, "a number in [0, 1)", "X")
TEXT = Kind(str, lambda x: True, "a string", "NAME")
PATH = Kind(str, lambda x: True, "a path", "PATH")
FLAG = Kind(bool, lambda x: True, "true or false")


class Option(NamedTuple):
    """An option, such as `--batch-size` on the command line or `batch_size` in Python."""

    kind: Kind
    help: str
    default: object = None
    choices: tuple | list | None = None
    nargs: str | None = None

    def check(self, name, value):
        """Checks a value from a JSON file or from Python, and returns it as a plain value."""
        kind, choices, is_list = self.kind, self.choices, self.nargs == "+"
        if value is None and self.default is None:
            return None
        is_several = is_list and isinstance(value, list)
        found = [_plain(kind, x) for x in (value if is_several else [value])]
        for each in found:
            right = type(each) is kind.type or (kind.type is float and type(each) is int)
            if not right or not kind.is_valid(each) or (choices and each not in choices):
                expected = f"one of {list(choices)}" if choices else kind.expected
                expected = f"a list, each {expected}" if is_list else expected
                raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
        return found if is_several else found[0]

    def read(self, text):
        """Parses a command-line argument, and returns its value."""
        try:
            return self._replace(choices=None).check("", self.kind.type(text))
        except ValueError:
            message = f"must be {self.kind.expected}, not {text}"
            raise argparse.ArgumentTypeError(message) from None


def _plain(kind, value):
    """Returns a NumPy scalar as a Python value, and a path as a string with `~` expanded."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if kind is PATH and isinstance(value, (str, os.PathLike)):
        value = os.path.expanduser(value)
    return value


# These lists repeat names from modules that import Keras; `tests/cli` checks that they agree.
PRESETS = (
    *("sagan_cifar10_32", "sagan_emoji_64", "sagan_fashion_mnist_32", "sagan_imagenet_128"),
    *("sagan_photos_64", "sagan_small_data_128", "sagan_small_data_32", "sagan_small_data_64"),
)
IMAGE_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
METRICS = [
    *("density_coverage", "fid", "fid_infinity", "inception_score", "intra_fid", "kid"),
    *("memorization", "mind", "precision_recall"),
]
EXTRACTORS = ("dinov2", "efficientnet", "grey", "keras", "tfgan")
FORMATS = ["saved_model", "onnx", "litert"]
BACKENDS = ("tensorflow", "jax", "torch")
STRATEGIES = ("auto", "none", "mirrored", "multi_worker", "tpu")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

INCEPTION = {
    "inception": Option(
        PATH, "for color or large images: pytorch-fid's .pth or URL, or TF-GAN's folder"
    ),
    "inception_sha256": Option(TEXT, "the digest of its files; downloads it from TF-Hub"),
}
DATA = {
    "images": Option(PATH, "a folder of images, at any depth, instead of the embedded ones"),
    "labels_from_folders": Option(FLAG, "with --images: subfolders are classes", False),
    "grey": Option(FLAG, "with --images: read them as grey", False),
    "stream": Option(FLAG, "with --images: read each batch from disk, to save memory", False),
    "dataset": Option(TEXT, "the name of a dataset in TensorFlow Datasets"),
    "split": Option(TEXT, "with --dataset: its split; default: train"),
    "skip_damaged": Option(FLAG, "with --dataset: replace damaged images, and continue", False),
    "data_dir": Option(PATH, "the files of --dataset, or else the IDX files of Fashion-MNIST"),
}
TRUNCATION = Option(RATE, "redraw larger latent values: less variety, more typical images")
COMMON = {
    "seed": Option(NUMBER, "the seed of the random numbers", 0),
    "backend": Option(TEXT, "Keras's backend; default: Keras's setting", choices=BACKENDS),
}
PRESET_HELP = "networks and training; default: with --images sagan_small_data_32, _64 or _128 by "
PRESET_HELP += "--image-size, else sagan_fashion_mnist_32"
TRAIN = {
    "output": Option(PATH, "the local folder of the run", "runs/first"),
    "checkpoints": Option(PATH, "their folder or gs://… URL; default: checkpoints/ in --output"),
    "keep_best": Option(FLAG, "keep the checkpoint of the best FID in best/ as well", False),
    "tensorboard": Option(FLAG, "also write the metrics to tensorboard/ in --output", False),
    "preset": Option(TEXT, PRESET_HELP, choices=PRESETS),
    "recipe": Option(TEXT, "settings of the preset by name, such as paper"),
    "epochs": Option(COUNT, "in total; default: 6 for the embedded images, else 100"),
    "steps_per_epoch": Option(COUNT, "default: one pass over the images"),
    "batch_size": Option(COUNT, "default: the preset's"),
    "base_filters": Option(COUNT, "the width of both networks; default: the preset's"),
    "image_size": Option(COUNT, "in pixels; default: the preset's", choices=IMAGE_SIZES),
    "g_learning_rate": Option(RATE, "the generator's; default: the preset's"),
    "d_learning_rate": Option(RATE, "the discriminator's; default: the preset's"),
    "ema_momentum": Option(SHARE, "of the averaged generator; default: the preset's"),
    "precision": Option(TEXT, "Keras's dtype policy", "float32", PRECISIONS),
    "strategy": Option(TEXT, "which devices; auto: all; default: one device", None, STRATEGIES),
    "tpu": Option(TEXT, "the name of a TPU for TensorFlow; local on a TPU VM"),
    "steps_per_execution": Option(COUNT, "steps per call of the device, such as 50 on TPUs", 1),
    "save_every": Option(COUNT, "steps between checkpoints; default: the end of each epoch"),
    "fid_images": Option(SEVERAL, "for the FID; 0: no FID; default: 5000 embedded images, or 1000"),
    "fid_every": Option(COUNT, "epochs between FIDs; default: a fifth of --epochs"),
    "augmentation": Option(TEXT, "of D's images, such as color,cutout; default: the preset's"),
    "flip": Option(FLAG, "mirror half of the images", False),
    **INCEPTION,
    **DATA,
    **COMMON,
}
KINDS = ("grid", "latents", "classes", "truncation")
SAMPLE = {
    "kind": Option(TEXT, "what the picture shows", "grid", KINDS),
    "output": Option(PATH, "a .png, or a .gif of latents and classes; default: KIND.png"),
    "columns": Option(COUNT, "images in a row", 8),
    "classes": Option(TEXT, "of the rows, by name or id; default: all, at most 10", nargs="+"),
    "to_classes": Option(
        TEXT, "with --kind classes: the last class in each row; default: the next one", nargs="+"
    ),
    "truncation": TRUNCATION,
    **COMMON,
}
ATTENTION = {
    "output": Option(PATH, "a folder; default: the run's"),
    "num_images": Option(COUNT, "rows of the figure", 4),
    "num_points": Option(COUNT, "colored dots in each image", 3),
    "discriminator": Option(FLAG, "show its attention, on real images", False),
    **DATA,
    **COMMON,
}
METRICS_HELP = f"of {', '.join(METRICS)}; default: fid and memorization, and kid if few images"
EXTRACTOR_HELP = "default: --inception's network, or grey for small grey images, else efficientnet"
LABELS_HELP = "classes equally often, or as often as in the reference"
EVALUATE = {
    "generated": Option(PATH, "a folder of generated images, instead of a run"),
    "num_images": Option(COUNT, "real and generated images each; default: 5000, or the folder's"),
    "metrics": Option(TEXT, METRICS_HELP, None, METRICS, "+"),
    "reference": Option(PATH, "a folder of real images, used unchanged, or a .npz of statistics"),
    "cache_dir": Option(PATH, "a folder that stores the statistics of real images for next time"),
    "held_out": Option(PATH, "other real images, for the floor; default: halves of the reference"),
    "extractor": Option(TEXT, EXTRACTOR_HELP, None, EXTRACTORS),
    **INCEPTION,
    "truncation": TRUNCATION,
    "labels": Option(TEXT, LABELS_HELP, "uniform", ("uniform", "reference")),
    "raw_weights": Option(FLAG, "use the current weights instead of their average", False),
    "standing_passes": Option(
        NUMBER, "batches for new batch norm statistics; 0: keep the current statistics", 0
    ),
    "batch_size": Option(COUNT, "images at a time", 64),
    "output": Option(PATH, "a .json; default: report.json in the run; with --generated: none"),
    **DATA,
    **COMMON,
}
EXPORT = {
    "output": Option(PATH, "a folder; default: export/ in the run"),
    "formats": Option(TEXT, f"of {', '.join(FORMATS)}; default: all", FORMATS, FORMATS, "+"),
    **COMMON,
}


def add_options(parser, options):
    """Adds options to an `argparse` parser."""
    for name, (kind, text, default, choices, nargs) in options.items():
        text += f" (default: {default})" if isinstance(default, (int, str)) and default else ""
        given = {"help": text, "action": argparse.BooleanOptionalAction}
        if kind is not FLAG:
            metavar = None if choices and not nargs else kind.metavar
            given |= {"action": "store", "type": options[name].read, "metavar": metavar}
            given |= {"choices": choices, "nargs": nargs}
        parser.add_argument("--" + name.replace("_", "-"), **given)
        parser.set_defaults(**{name: default})


def check_options(options, values):
    """Returns plain values, or raises a ValueError for an unknown name or an invalid value."""
    for name in values:
        if name not in options:
            raise ValueError(f"There is no option `{name}`. The options are {list(options)}")
    return {name: options[name].check(name, value) for name, value in values.items()}


def check_backend(name):
    """Imports Keras, and raises an error if it uses another backend than `name`, unless `None`."""
    import keras

    if name not in (None, keras.backend.backend()):
        raise ValueError(
            f"--backend must be {keras.backend.backend()}, which Keras already uses here: in a "
            f"script, set KERAS_BACKEND={name} in the environment. Received: {name}"
        )


def read_config(path):
    """Returns the options of a run from a JSON file, such as the `run.json` of a previous run."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        content = content.get("settings", content)
        return check_options(TRAIN, {**content})
    except OSError as error:
        text = f"--config must be a file that can be read. Received: {path} ({error.strerror})"
        raise ValueError(text) from error
    except (AttributeError, TypeError) as error:
        raise ValueError(f"--config must be a file with a JSON object. Received: {path}") from error
    except ValueError as error:
        raise ValueError(f"--config {path}: {error}") from error
