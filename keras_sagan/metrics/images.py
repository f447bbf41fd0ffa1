"""Provides the images to evaluate, from a model, arrays or batches."""

import hashlib
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np

from keras_sagan.checks import FilledRange, check_labels
from keras_sagan.metrics.extraction import to_numpy
from keras_sagan.metrics.report import weights_sha256
from keras_sagan.ops.latent import sample_latents

# `tf.data.Dataset.cardinality` returns these values for an endless dataset or an unknown size.
INFINITE_CARDINALITY, UNKNOWN_CARDINALITY = -1, -2
STANDING_BATCH = 64


def batches_of(
    images, batch_size: int, limit: int | None = None, argument: str = "num_reference"
) -> Iterator[tuple]:
    """Returns an iterator over pairs of numpy arrays (images, labels or `None`).

    `images` is an array, a pair of arrays (images, labels), or an iterable of such batches. `limit`
    is the number of images to use, and `argument` is the name that error messages use for it. If an
    endless iterable has no limit, or if the length of `images` is known and too small, an error is
    raised before the first batch.
    """
    if limit is None and is_endless(images):
        raise ValueError(
            f"`{argument}` must be given for endless images, such as those of `make_dataset`, "
            f"`load_tfds` and `Dataset.repeat()`. Received: {argument}=None and {images!r}"
        )
    length = length_of(images)
    if limit is not None and length is not None and length < limit:
        raise _too_few(argument, limit, length)
    return _batches(images, batch_size, limit, argument)


def _batches(images, batch_size, limit, argument):
    done, batches = 0, images
    if is_pair(images) or hasattr(images, "shape"):
        arrays = images if is_pair(images) else (images, None)
        parts = [slice(i, i + batch_size) for i in range(0, len(arrays[0]), batch_size)]
        batches = ([None if x is None else x[part] for x in arrays] for part in parts)
    elif isinstance(images, keras.utils.PyDataset) and not is_endless(images):
        # Use indices, because iterating over Keras's old image generators never ends.
        batches = (images[index] for index in range(images.num_batches))
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            batch = batch, None
        batch, labels = batch
        left = slice(None if limit is None else limit - done)
        batch = to_numpy(batch, "images")[left]
        done += len(batch)
        yield (
            batch,
            None if labels is None else np.asarray(keras.ops.convert_to_numpy(labels))[left],
        )
        if done == limit:
            return
    if limit is not None:
        raise _too_few(argument, limit, done, once(images))


def _too_few(argument, limit, count, note=""):
    return ValueError(
        f"`{argument}` must be at most the number of images. Received: {argument}={limit}, {count} "
        f"images{note}"
    )


def is_endless(images) -> bool:
    """Returns whether `images` is known to be an endless iterable, without reading it."""
    if isinstance(images, keras.utils.PyDataset):
        try:
            return images.num_batches is None
        except NotImplementedError:
            return True
    # For a `tf.data` iterator, check its dataset, which has the same length.
    images = getattr(images, "_iterator", images)
    images = getattr(images, "_dataset", images)
    # Only the endless pipelines of this package have a `start_step`.
    if isinstance(images, itertools.cycle) or hasattr(images, "start_step"):
        return True
    if not callable(getattr(images, "cardinality", None)):
        return False
    cardinality, kind = int(images.cardinality()), type(images).__name__
    if cardinality != UNKNOWN_CARDINALITY or "Take" in kind or not images._inputs():
        return cardinality == INFINITE_CARDINALITY
    return (any if "Concatenate" in kind else all)(map(is_endless, images._inputs()))


def once(images) -> str:
    """Returns a note for error messages if `images` is a Python generator, or `""` otherwise."""
    note = ". A Python generator yields its images only once: pass an array or a list of batches"
    return note if inspect.isgenerator(images) else ""


def length_of(images) -> int | None:
    """Returns the number of images, or `None` if it can't be known without reading them."""
    if is_pair(images):
        return len(images[0])
    return len(images) if hasattr(images, "shape") else getattr(images, "num_images", None)


def is_pair(value) -> bool:
    """Returns whether a value is a pair (images, labels) and not a list of batches."""
    is_two = isinstance(value, (tuple, list)) and len(value) == 2
    return is_two and (np.ndim(value[1]) == 1 or np.shape(value[1])[1:] == (1,))


def noise_images(count: int, image_shape: tuple, seed: int, batch_size: int) -> Iterator:
    """Yields batches of uniform uint8 noise; the images don't depend on the batch size."""
    for first in range(0, count, batch_size):
        rngs = (np.random.default_rng([seed, i]) for i in range(first, count)[:batch_size])
        yield np.stack([rng.integers(0, 256, image_shape, dtype="uint8") for rng in rngs])


class GeneratedImages:
    """Generates images from a model and a seed; the arguments are as in `evaluate_generator`.

    `class_counts`, of shape (num_classes,), is the number of reference images in each class.
    Latents and labels are drawn for all images at once, so they don't depend on the batch size.
    """

    def __init__(
        self,
        model,
        num_images: int,
        labels: str | np.ndarray = "uniform",
        class_counts: np.ndarray | None = None,
        seed: int = 0,
        batch_size: int = 64,
        use_ema: bool = True,
        truncation: float | None = None,
    ):
        self.model, self.batch_size, self.num_images = model, batch_size, num_images
        self._is_averaged = use_ema and getattr(model, "ema_generator", None) is not None
        network = getattr(model, "ema_generator" if self._is_averaged else "generator", model)
        self.network = network if isinstance(network, keras.Model) else model
        latent_dim, num_classes = _sizes(model, class_counts)
        rng = np.random.default_rng(seed)
        self.latents = sample_latents(num_images, latent_dim, rng, truncation)
        self.labels, kind = None, "none"
        if num_classes is not None:
            rng = np.random.default_rng([seed, 1])
            self.labels, kind = _labels(labels, num_images, num_classes, class_counts, rng)
        advice = "the model must use all of [-1, 1], or every score is wrong"
        self._filled = FilledRange("the images of `model`", advice)
        self.protocol = {
            "weights": "averaged (EMA)" if self._is_averaged else "raw",
            "labels": kind,
            "truncation": truncation,
            "seed": seed,
            "batch_statistics": "moving",
        }

    @property
    def name(self) -> str:
        """The model's name and, for a Keras model, the digest of the weights in use."""
        name = getattr(self.model, "name", type(self.model).__name__)
        is_keras = isinstance(self.network, keras.Model)
        return f"{name} sha256:{weights_sha256(self.network)}" if is_keras else name

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yields pairs (uint8 images, labels or `None`); raises an error for weights with NaN."""
        for weight in getattr(self.network, "variables", ()):
            if not np.isfinite(np.float32(keras.ops.convert_to_numpy(weight))).all():
                raise ValueError(
                    "`model` must have finite weights. Received: NaN or infinite values in "
                    f"{weight.path}"
                )
        for first in range(0, self.num_images, self.batch_size):
            yield self._generate(slice(first, first + self.batch_size))

    def standing_batches(self, passes: int, seed: int, progress: Callable) -> Iterator:
        """Yields model inputs for standing statistics, with new latents and random labels."""
        rng = np.random.default_rng([seed, 2])
        for done in range(passes):
            progress(done * STANDING_BATCH)
            latents = sample_latents(STANDING_BATCH, self.latents.shape[1], rng)
            chosen = None if self.labels is None else rng.choice(self.labels, STANDING_BATCH)
            yield _inputs(latents, chosen)

    def _generate(self, part):
        """Returns the uint8 images of a slice, and their labels or `None`."""
        latents = self.latents[part]
        labels = None if self.labels is None else self.labels[part]
        if hasattr(self.model, "generate"):
            settings = {"batch_size": self.batch_size, "use_ema": self._is_averaged}
            images = self.model.generate(len(latents), labels=labels, latents=latents, **settings)
            return images, labels
        images = to_numpy(self.network(_inputs(latents, labels), training=False), "model")
        images = images.astype("float32")
        if not (np.isfinite(images).all() and np.abs(images).max() <= 1.001):
            raise ValueError(
                "`model` must generate finite images in [-1, 1]. Received: images in "
                f"[{images.min():g}, {images.max():g}]"
            )
        self._filled(images, -1.0, 1.0)
        return np.clip(np.round((images + 1.0) * 127.5), 0, 255).astype("uint8"), labels


def _inputs(latents, labels):
    latents = keras.ops.convert_to_tensor(latents)
    return latents if labels is None else [latents, keras.ops.convert_to_tensor(labels)]


def _sizes(model, class_counts):
    """Returns the latent dimension and the number of classes of a model."""
    if hasattr(model, "generate") and hasattr(model, "latent_dim"):
        return model.latent_dim, model.num_classes
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) not in (1, 2) or len(inputs[0].shape) != 2:
        raise ValueError(
            "`model` must have generate() and latent_dim, as SAGAN has, or be a Keras model from "
            f"latents (batch, latent_dim), or from [latents, labels]. Received: model={model!r}"
        )
    if len(inputs) == 2 and class_counts is None:
        raise ValueError(
            "`reference` must come with labels for a Keras model on [latents, labels], which "
            "doesn't store its number of classes. Received: a reference without labels"
        )
    return inputs[0].shape[1], None if len(inputs) == 1 else len(class_counts)


def _labels(labels, count, num_classes, class_counts, rng):
    """Returns labels of shape (count,), and the entry of the protocol that describes them."""
    kind = labels if isinstance(labels, str) else None
    if kind == "uniform":
        if class_counts is not None and np.count_nonzero(class_counts) < num_classes:
            warnings.warn(
                f'`labels="uniform"` draws {num_classes} classes, and the reference has images of '
                f"{np.count_nonzero(class_counts)} of them: the scores count the others as wrong. "
                'Use labels="reference" for the classes of the reference.',
                stacklevel=4,
            )
        return (np.arange(count) % num_classes).astype("int32"), "uniform, in turn"
    if kind == "reference":
        if class_counts is None or len(class_counts) > num_classes:
            known = "no labels" if class_counts is None else f"{len(class_counts)} classes"
            raise ValueError(
                'With `labels="reference"` the reference must come with labels of the '
                f"{num_classes} classes of the model. Received: a reference with {known}"
            )
        weights = np.pad(class_counts, (0, num_classes - len(class_counts)))
        return apportion_labels(weights, count, rng), "the reference's frequencies"
    if kind is not None or np.shape(labels) != (count,):
        raise ValueError(
            f'`labels` must be "uniform", "reference" or an array of shape ({count},). '
            f"Received: {kind or f'labels of shape {np.shape(labels)}'}"
        )
    check_labels(labels, num_classes)
    labels = np.asarray(labels, dtype="int32")
    return labels, f"given, sha256:{hashlib.sha256(labels.tobytes()).hexdigest()}"


def apportion_labels(weights, count, rng):
    """Returns shuffled int32 labels, in proportion to `weights` as closely as possible."""
    shares = weights * (count / weights.sum())
    numbers = np.floor(shares).astype(int)
    # The classes with the largest remainders get one more label each; lower ids come first.
    numbers[np.argsort(numbers - shares, kind="stable")[: count - numbers.sum()]] += 1
    return rng.permutation(np.repeat(np.arange(len(weights), dtype="int32"), numbers))
