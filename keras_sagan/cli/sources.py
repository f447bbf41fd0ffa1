"""Where the commands get their images, and their model, from."""

import json
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_sagan.data import (
    FASHION_MNIST_CLASSES,
    load_fashion_mnist,
    load_image_folder,
    load_tfds,
    make_dataset,
    pad_to_32,
    spread_indices,
    steps_per_epoch,
)
from keras_sagan.metrics import (
    TFGAN_INCEPTION_HANDLE,
    GreyClassifierFeatures,
    KerasInceptionV3,
    TFGANInception,
)
from keras_sagan.models import SAGAN

SHIPPED = "Fashion-MNIST, test"
EXTRACTORS = {"grey": GreyClassifierFeatures, "keras": KerasInceptionV3, "tfgan": TFGANInception}


class Source(NamedTuple):
    """A set of images that a command works on.

    Attributes:
        name: String, for protocols.
        class_names: Tuple of strings, or `None` without classes.
        channels: Integer.
        steps_per_epoch: Integer, full batches.
        batches: Function `() -> tf.data.Dataset`, endless and shuffled.
        head: Function `(count) -> (images, labels)`, always the same ones.
        chosen: String, which ones those are, for protocols. Of images in memory they are spread
            evenly: those of a folder stand there class by class.
    """

    name: str
    class_names: tuple | None
    channels: int
    steps_per_epoch: int
    batches: object
    head: object
    chosen: str


def add_data_arguments(parser):
    """Adds the options that say which images to use."""
    group = parser.add_argument_group(
        "images", "Without these, the 10,000 Fashion-MNIST images that ship with the package."
    )
    group.add_argument(
        "--images", type=os.path.expanduser, metavar="DIR", help="a folder of images, at any depth"
    )
    group.add_argument(
        "--labels-from-folders", action="store_true", help="with --images: subfolders are classes"
    )
    group.add_argument("--dataset", metavar="NAME", help="a data set of TensorFlow Datasets")
    group.add_argument("--split", metavar="NAME", help="with --dataset: default: train")
    group.add_argument(
        "--data-dir",
        type=os.path.expanduser,
        metavar="DIR",
        help="with --dataset: the folder of its files",
    )
    group.add_argument("--grey", action="store_true", help="with --images: read them as grey")


def open_source(settings, image_size, batch_size, seed=0, trained_on=None):
    """Returns the `Source` that options ask for, and says what can't be read.

    Args:
        settings: Namespace with the options of `add_data_arguments`.
        image_size: Integer, pixels.
        batch_size: Integer.
        seed: Integer. Seed of the order.
        trained_on: String, the name of the images that a run was trained on, where it is known.

    Returns:
        A `Source`.

    Raises:
        ValueError: For options that don't go together, an image size that the data haven't, or
            without options for a run of other images than those that ship.
    """
    for option in ("images", "dataset", "data_dir"):
        if getattr(settings, option) == "":
            raise ValueError(f"--{option.replace('_', '-')} must not be empty.")
    if settings.images and settings.dataset:
        raise ValueError("--images and --dataset can't both be given.")
    for option, needed in (
        ("labels_from_folders", "images"),
        ("grey", "images"),
        ("data_dir", "dataset"),
        ("split", "dataset"),
    ):
        if getattr(settings, option) and not getattr(settings, needed):
            raise ValueError(f"--{option.replace('_', '-')} goes with --{needed} alone.")
    if settings.dataset:
        common = {"image_size": image_size, "data_dir": settings.data_dir, "seed": seed}
        split = settings.split or "train"
        dataset, info = load_tfds(settings.dataset, split, batch_size=batch_size, **common)

        def first(count):
            count = min(count, info.num_images)
            batches, _ = load_tfds(
                settings.dataset, split, batch_size=count, shuffle=False, **common
            )
            batch = next(iter(batches))
            parts = (batch, None) if info.num_classes is None else batch
            return [None if part is None else np.asarray(part) for part in parts]

        return Source(
            f"TFDS {settings.dataset}, {split}",
            info.class_names,
            info.image_shape[-1],
            info.steps_per_epoch,
            lambda: dataset,
            first,
            "the first",
        )
    if settings.images:
        channels = 1 if settings.grey else 3
        with warnings.catch_warnings(record=True) as caught:
            found = load_image_folder(
                settings.images, image_size, channels, settings.labels_from_folders
            )
        images, labels, class_names = found.images, found.labels, found.class_names
        name = f"folder {settings.images}"
        for warning in caught:
            print(warning.message)
        if found.broken:
            print(f"{len(found.broken)} files can't be read and are left out:")
            for path, reason in found.broken.items():
                print(f"  {path}: {reason}")
    else:
        if trained_on not in (None, SHIPPED):
            raise ValueError(
                f"The run was trained on {trained_on}: give its --images or --dataset."
            )
        if image_size != 32:
            raise ValueError("The embedded images are of 32 pixels: give --images or --dataset.")
        images, labels = load_fashion_mnist()
        images, class_names, name = pad_to_32(images), FASHION_MNIST_CLASSES, SHIPPED

    def some(count):
        chosen = spread_indices(count, len(images))
        return images[chosen], None if labels is None else labels[chosen]

    return Source(
        name,
        class_names,
        images.shape[-1],
        steps_per_epoch(len(images), batch_size),
        lambda: make_dataset(images, labels, batch_size, seed=seed),
        some,
        "evenly spread",
    )


def load_run(path, is_any=False):
    """Loads a model from a run's folder or from a file.

    Args:
        path: String or path of a folder that `train` made, or of a `.keras` file.
        is_any: Boolean, whether another Keras model than a `SAGAN` will do. Defaults to `False`.

    Returns:
        Tuple of the model and what `run.json` beside it says, or an empty dictionary.

    Raises:
        ValueError: If there is no model, or none that can be loaded here.
    """
    path = Path(path)
    model_path = path / "model.keras" if path.is_dir() else path
    if not model_path.exists():
        raise ValueError(f"There is no model at {model_path}; `keras-sagan train` makes one.")
    known = read_record(model_path.with_name("run.json"))
    model = load_file(model_path)
    if not (is_any or isinstance(model, SAGAN)):
        raise ValueError(f"{model_path} holds a {type(model).__name__}, and not a SAGAN.")
    return model, known


def load_file(path):
    """Loads a `.keras` file, or says what to do about one that can't be loaded.

    Raises:
        ValueError: If there is no such file, it is damaged, or its classes aren't known.
    """
    if not os.path.exists(path):
        raise ValueError(f"There is no model at {path}.")
    try:
        return keras.saving.load_model(path)
    except (MemoryError, PermissionError):
        raise
    except TypeError as error:  # A class that this process doesn't know.
        reason = str(error).rpartition("Exception encountered: ")[2].partition("\n")[0]
        raise ValueError(
            f"{path} can't be loaded from the command line: {reason} A model with classes of "
            "its own is loaded in a script that imports them."
        ) from error
    except Exception as error:  # Each kind of damage has an error class of its own.
        raise ValueError(
            f"{path} can't be loaded: it is damaged, or Keras didn't save it. Copy "
            "it again, or remove it and give the run's `keras-sagan train` command again, which "
            f"writes it from the newest checkpoint. ({type(error).__name__}: {error})"
        ) from error


def read_record(path):
    """Returns what a run's `run.json` says, or an empty dictionary where there is none.

    Raises:
        ValueError: If the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: remove it. ({error})") from error
    if not isinstance(known, dict):
        raise ValueError(f"{path} is damaged: remove it. It must hold a JSON object.")
    return known


def extractor_for(image_shape, settings, name=None):
    """The network of a name; without one the shipped classifier where it fits, else Inception.

    Args:
        image_shape: Tuple (height, width, channels).
        settings: Namespace with `inception` and `inception_sha256`, or `None` for both.
        name: String, a key of `EXTRACTORS`, or `None`.
    """
    if name is None:
        is_small_and_grey = image_shape[-1] == 1 and image_shape[0] in (28, 32)
        name = "grey" if is_small_and_grey and settings.inception is None else "tfgan"
    if name == "tfgan":
        handle = settings.inception or TFGAN_INCEPTION_HANDLE
        return TFGANInception(handle, settings.inception_sha256)
    if settings.inception is not None:
        raise ValueError(f"--inception goes with --extractor tfgan. Received: {name}")
    return EXTRACTORS[name]()
