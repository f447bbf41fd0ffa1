"""The images of a run, and the feature extractor for its FID."""

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_sagan import data, metrics

__all__ = []

NEEDS = {
    "labels_from_folders": "images",
    "grey": "images",
    "stream": "images",
    "split": "dataset",
    "skip_damaged": "dataset",
}


class Source(NamedTuple):
    """The images that a run or a command uses."""

    name: str
    class_names: tuple | None
    channels: int
    num_images: int
    steps_per_epoch: int
    batches: Callable  # `batches()` returns an endless, shuffled dataset.
    head: Callable  # `head(count)` returns the same images and labels on every call.
    chosen: str  # How `head` chooses images, for reports.


@contextlib.contextmanager
def named(option):
    """Adds the name of an option to the beginning of an error message."""
    try:
        yield
    except (OSError, ValueError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{option}: {error}") from error


def open_source(settings, image_size, batch_size, say=print, trained_on=None) -> Source:
    """Returns the selected `Source`; the default one is refused if its name isn't `trained_on`."""
    images, dataset, data_dir = (settings[x] for x in ("images", "dataset", "data_dir"))
    for option in ("images", "dataset", "data_dir"):
        if settings[option] == "":
            raise ValueError(f"--{option.replace('_', '-')} must not be empty.")
    if images and (dataset or data_dir):
        other = "dataset" if dataset else "data-dir"
        raise ValueError(f"--images and --{other} can't both be given.")
    for option, needed in NEEDS.items():
        if settings[option] and not settings[needed]:
            raise ValueError(f"--{option.replace('_', '-')} needs --{needed}.")
    flip = settings.get("flip", False)  # Only the `train` command has this option.
    if dataset:
        common = {"image_size": image_size, "data_dir": data_dir, "seed": settings["seed"]}
        common["on_error"] = "skip" if settings["skip_damaged"] else "raise"
        return _tfds(dataset, settings["split"] or "train", batch_size, flip, common)
    if images:
        channels, name = (1 if settings["grey"] else 3), f"folder {os.path.normpath(images)}"
        more = settings["labels_from_folders"], settings["stream"]
        found = read_folder("--images", images, image_size, channels, *more, say=say)
        pixels, labels, names = found[:3]
    else:
        subset = "test" if data_dir is None else "train"
        name = f"Fashion-MNIST, {subset}"
        if trained_on not in (None, name):
            raise ValueError(
                f"The run was trained on {trained_on}: give its --images or --dataset."
            )
        if image_size != 32:
            raise ValueError("The embedded images are of 32 pixels: give --images or --dataset.")
        pixels, labels = data.load_fashion_mnist(data_dir, subset)
        pixels, names = data.pad_to_32(pixels), data.FASHION_MNIST_CLASSES

    def head(count):  # Choose evenly spaced images, because a folder is sorted by class.
        chosen = data.spread_indices(count, len(pixels))
        return pixels[chosen], None if labels is None else labels[chosen]

    def batches():
        return data.make_dataset(pixels, labels, batch_size, seed=settings["seed"], flip=flip)

    counts = len(pixels), data.steps_per_epoch(len(pixels), batch_size)
    return Source(name, names, pixels.shape[-1], *counts, batches, head, "evenly spread")


def read_folder(option, folder, image_size, channels, use_labels=False, stream=False, say=print):
    """Returns the `ImageFolder` of an option, and tells what was found and skipped."""
    with named(option), warnings.catch_warnings(record=True) as caught:
        found = data.load_image_folder(folder, image_size, channels, use_labels, stream)
    for warning in caught:
        say(str(warning.message))
    if found.broken:
        lines = [f"  {path}: {reason}" for path, reason in found.broken.items()]
        say("\n".join([f"{len(lines)} files can't be read and are skipped:", *lines]))
    images, num_gray = found.images, 0
    if channels == 3 and isinstance(images, np.ndarray):  # Don't read streamed files again.
        num_gray = sum(bool((x == x[..., :1]).all()) for x in images)
    gray = f" ({num_gray:,} gray, converted to color)" if num_gray else ""
    say(f"{len(images):,} images in {folder}{gray}")
    return found


def _tfds(name, split, batch_size, flip, common):
    dataset, info = data.load_tfds(name, split, batch_size=batch_size, flip=flip, **common)

    def head(count):
        count = min(count, info.num_images)
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)  # Each process needs all of these images.
        try:
            batches, _ = data.load_tfds(name, split, batch_size=count, shuffle=False, **common)
        finally:
            keras.distribution.set_distribution(distribution)
        batch = next(iter(batches))
        parts = (batch, None) if info.num_classes is None else batch
        return [None if part is None else np.asarray(part) for part in parts]

    found = info.class_names, info.image_shape[-1], info.num_images, info.steps_per_epoch
    return Source(f"TFDS {name}, {split}", *found, lambda: dataset, head, "the first")


def extractor_for(image_shape, settings, name=None):
    """Returns the extractor with the given name.

    Without a name, `--inception` and `--inception-sha256` select an Inception network. Otherwise,
    `GreyClassifierFeatures` is used for small gray images, and EfficientNet-Lite0 for others.
    """
    inception, digest = settings["inception"], settings["inception_sha256"]
    is_inception = inception is not None or digest is not None
    if name is None:
        is_small_and_grey = image_shape[-1] == 1 and image_shape[0] in (28, 32)
        name = "tfgan" if is_inception else "grey" if is_small_and_grey else "efficientnet"
    if name == "tfgan":
        if inception and inception.endswith(".pth"):
            if digest is not None:
                text = "--inception-sha256 can't be combined with a .pth file of --inception."
                raise ValueError(f"{text} Received: --inception {inception}")
            return metrics.FIDInception(inception)
        return metrics.TFGANInception(inception or metrics.TFGAN_INCEPTION_HANDLE, digest)
    if is_inception:
        option = "--inception" if inception is not None else "--inception-sha256"
        raise ValueError(f"{option} chooses the network: leave out --extractor. Received: {name}")
    classes = {
        "dinov2": metrics.DINOv2Features,
        "efficientnet": metrics.EfficientNetLite0Features,
        "grey": metrics.GreyClassifierFeatures,
        "keras": metrics.KerasInceptionV3,
    }
    return classes[name]()
