"""Where the images of an evaluation come from: a model, arrays, batches."""

import hashlib
import inspect
import itertools
import operator
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np

from keras_sagan.checks import FilledRange, check_labels
from keras_sagan.metrics.features import check_batch_labels, to_numpy
from keras_sagan.metrics.replicas import share_among_replicas
from keras_sagan.metrics.report import weights_sha256
from keras_sagan.ops.labels import apportion_labels
from keras_sagan.ops.latent import sample_latents

# What `tf.data.Dataset.cardinality` returns instead of a number of batches.
INFINITE_CARDINALITY, UNKNOWN_CARDINALITY = -1, -2
STANDING_BATCH = 64  # images in a pass for standing statistics, whatever the batch size


def batches_of(images, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yields pairs of images and integer labels (or `None`) as numpy arrays.

    `images` is an array, a pair of arrays (images, labels), which are cut into batches, or an
    iterable of batches of either, such as a finite `tf.data.Dataset`.
    """
    if _is_pair(images) or hasattr(images, "shape"):
        images, labels = images if _is_pair(images) else (images, None)
        for first in range(0, len(images), batch_size):
            yield _checked(images, labels, slice(first, first + batch_size))
        return
    for batch in iterate(images):
        batch, labels = batch if _is_pair(batch) else (batch, None)
        yield _checked(batch, labels, slice(None))


def iterate(images) -> Iterator:
    """Returns an iterator over batches; that of Keras's old image generators never ends."""
    if isinstance(images, keras.utils.PyDataset) and not is_endless(images):
        return (images[index] for index in range(images.num_batches))
    return iter(images)


def check_ends(images, argument: str, name: str = "num_reference"):
    """Raises for endless images, and asks for the argument `name`, which limits their number."""
    if is_endless(images):
        raise ValueError(
            f"`{name}` must be given for endless images, such as those of `make_dataset`, "
            f"`load_tfds` and `Dataset.repeat()`. Received: {name}=None and {argument}={images!r}"
        )


def is_endless(images) -> bool:
    """Whether images never end, as far as it is known without reading them."""
    if isinstance(images, (itertools.count, itertools.cycle)):
        return True
    if isinstance(images, itertools.repeat):
        return operator.length_hint(images, -1) == -1
    if isinstance(images, keras.utils.PyDataset):
        try:
            return images.num_batches is None
        except NotImplementedError:
            return True
    # An iterator of a `tf.data.Dataset` is as long as the data set.
    images = getattr(images, "_iterator", images)
    images = getattr(images, "_dataset", images)
    if hasattr(images, "start_step"):  # Only the endless pipelines of this package have it.
        return True
    if not callable(getattr(images, "cardinality", None)):
        return False
    cardinality, kind = int(images.cardinality()), type(images).__name__
    if cardinality != UNKNOWN_CARDINALITY or "Take" in kind or not images._inputs():
        return cardinality == INFINITE_CARDINALITY
    return (any if "Concatenate" in kind else all)(map(is_endless, images._inputs()))


def once(images) -> str:
    """Returns a note for messages about a generator that ended, and `""` for anything else."""
    if not inspect.isgenerator(images):
        return ""
    return (
        ". A Python generator gives its images only once: give an array, a list of batches or a "
        "tf.data.Dataset"
    )


def first_images(images, num_images: int, batch_size: int, name: str):
    """Returns the first images of a source as for `batches_of`, which may be endless.

    Of an iterable they are an iterable that knows its `num_images`, and raises `ValueError` at its
    end if there are fewer. `name` is the argument of `num_images`, for messages.
    """
    if _is_pair(images):
        pair = images[0], np.asarray(images[1])
        return tuple(first_images(x, num_images, batch_size, name) for x in pair)
    if hasattr(images, "shape"):
        if len(images) < num_images:
            raise _too_few(name, num_images, len(images))
        return images[:num_images]
    return _FirstImages(images, num_images, batch_size, name)


class _FirstImages:
    def __init__(self, images, num_images, batch_size, name):
        self.images, self.num_images = images, num_images
        self.batch_size, self.name = batch_size, name
        self.files_sha256 = getattr(images, "files_sha256", None)

    def __iter__(self):
        done = 0
        for images, labels in batches_of(self.images, self.batch_size):
            part = slice(self.num_images - done)
            done += len(images[part])
            yield images[part] if labels is None else (images[part], labels[part])
            if done == self.num_images:
                return
        raise _too_few(self.name, self.num_images, done, once(self.images))


def _too_few(name, num_images, count, note=""):
    return ValueError(
        f"`{name}` must be at most the number of images. Received: {name}={num_images}, {count} "
        f"images{note}"
    )


def length_of(images) -> int | None:
    """Returns the number of images, or `None` if it is unknown without reading them."""
    if hasattr(images, "num_images"):
        return images.num_images
    if isinstance(images, (tuple, list)) and len(images) and hasattr(images[0], "shape"):
        return len(images[0]) if np.ndim(images[-1]) == 1 else sum(len(x) for x in images)
    return len(images) if hasattr(images, "shape") else None


def peek(images):
    """Returns images, to be read once, the shape of one as a list, and whether they have labels.

    The first batch of an iterable is read; it comes with the images that are returned.
    """
    if _is_pair(images) or hasattr(images, "shape"):
        first = images[0] if _is_pair(images) else images
        return images, [int(x) for x in first.shape[1:]], _is_pair(images)
    iterator = iterate(images)
    first = list(itertools.islice(iterator, 1))
    if not first:
        return images, None, False
    return itertools.chain(first, iterator), *peek(first[0])[1:]


def noise_images(count: int, image_shape: tuple, seed: int, batch_size: int) -> Iterator:
    """Yields batches of uniform uint8 noise, the same images whatever the batch size."""
    for first in range(0, count, batch_size):
        rngs = (np.random.default_rng([seed, i]) for i in range(first, count)[:batch_size])
        yield np.stack([rng.integers(0, 256, image_shape, dtype="uint8") for rng in rngs])


class GeneratedImages:
    """A model's images, each determined by the seed and its number.

    Latents and labels are drawn for all images at once: they don't depend on the batch size.

    Args:
        model: A `SAGAN`, or anything with its `generate()`, `latent_dim` and `num_classes`; or a
            Keras model from latents, or from [latents, labels], to images in [-1, 1].
        num_images: How many images.
        labels: `"uniform"`, `"reference"`, or an integer array of shape (num_images,).
        class_counts: Array of shape (num_classes,), the reference's images by class, or `None`.
        seed, batch_size: Integers.
        use_ema: Whether to use the averaged generator if there is one.
        truncation: `None`, or the positive float at which latents are truncated.
        strategy: `tf.distribute.Strategy` whose replicas share each batch of a Keras network.

    Raises:
        ValueError: If an argument is invalid, or the class frequencies aren't known.
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
        strategy=None,
    ):
        self.model, self.batch_size, self.num_images = model, batch_size, num_images
        self._is_averaged = use_ema and getattr(model, "ema_generator", None) is not None
        self.network = model.ema_generator if self._is_averaged else model
        if not self._is_averaged and isinstance(getattr(model, "generator", None), keras.Model):
            self.network = model.generator
        latent_dim, num_classes = _sizes(model, class_counts)
        rng = np.random.default_rng(seed)
        self.latents = sample_latents(num_images, latent_dim, rng, truncation)
        self.labels, kind = None, "none"
        if num_classes is not None:
            rng = np.random.default_rng([seed, 1])
            self.labels, kind = _labels(labels, num_images, num_classes, class_counts, rng)
        advice = "the model must use all of [-1, 1], or every score is wrong"
        self._filled = FilledRange("the images of `model`", advice)
        # Replicas share a Keras network, even if the model has a `generate()` that calls it.
        has_generate = hasattr(model, "generate")
        has_network = isinstance(self.network, keras.Model)
        if not has_network or (has_generate and self.network is model):
            strategy = None
        self._call = self._call_packed
        if strategy is not None:
            self._call = share_among_replicas(self._call, strategy, "model")
        self._calls_generate = has_generate and self._call == self._call_packed
        self.protocol = {
            "weights": "averaged (EMA)" if self._is_averaged else "raw",
            "labels": kind,
            "truncation": truncation,
            "seed": seed,
            "batch_statistics": "moving",
        }

    @property
    def name(self) -> str:
        """The model's name, and a digest of the generator's weights and of its inputs.

        Without a Keras network, the first two images represent the weights.
        """
        digest = hashlib.sha256(self.latents.tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        if isinstance(self.network, keras.Model):
            digest.update(weights_sha256(self.network).encode())
        else:
            digest.update(self._generate(slice(2))[0].tobytes())
        own = getattr(self.model, "name", type(self.model).__name__)
        return f"{own} sha256:{digest.hexdigest()}"

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yields (uint8 images, labels or `None`)."""
        for first in range(0, self.num_images, self.batch_size):
            yield self._generate(slice(first, first + self.batch_size))

    def standing_batches(self, passes: int, seed: int, progress: Callable) -> Iterator:
        """Yields the generator's inputs for standing statistics, drawn apart from the images."""
        rng = np.random.default_rng([seed, 2])
        for done in range(passes):
            progress(done * STANDING_BATCH)
            latents = sample_latents(STANDING_BATCH, self.latents.shape[1], rng)
            latents = keras.ops.convert_to_tensor(latents)
            if self.labels is None:
                yield latents
            else:
                chosen = rng.choice(self.labels, STANDING_BATCH).astype("int32")
                yield [latents, keras.ops.convert_to_tensor(chosen)]

    def _call_packed(self, packed, names):
        """Returns images by name, from latents whose last column is the label, if there is one."""
        inputs = packed = keras.ops.convert_to_tensor(packed)
        if self.labels is not None:
            inputs = [packed[:, :-1], keras.ops.cast(packed[:, -1], "int32")]
        return {names[0]: self.network(inputs, training=False)}

    def _generate(self, part):
        """Returns the uint8 images of a slice, and their labels or `None`."""
        latents = self.latents[part]
        labels = None if self.labels is None else self.labels[part]
        if self._calls_generate:
            settings = {"batch_size": self.batch_size, "use_ema": self._is_averaged}
            images = self.model.generate(len(latents), labels=labels, latents=latents, **settings)
            return images, labels
        packed = latents if labels is None else np.column_stack([latents, labels])
        images = self._call(np.float32(packed), ("images",))["images"]
        images = to_numpy(images, "model").astype("float32")
        if not (np.isfinite(images).all() and np.abs(images).max() <= 1.001):
            raise ValueError(
                "`model` must generate finite images in [-1, 1]. Received: images in "
                f"[{images.min():g}, {images.max():g}]"
            )
        if not hasattr(self.model, "generate"):  # One in training may begin with gray images.
            self._filled(images, -1.0, 1.0)
        return np.clip(np.round((images + 1.0) * 127.5), 0, 255).astype("uint8"), labels


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
            "doesn't say how many classes it has. Received: a reference without labels"
        )
    return inputs[0].shape[1], None if len(inputs) == 1 else len(class_counts)


def _labels(labels, count, num_classes, class_counts, rng):
    """Returns labels of shape (count,), and what a protocol calls them."""
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


def _is_pair(value):
    return isinstance(value, (tuple, list)) and len(value) == 2 and np.ndim(value[1]) == 1


def _checked(images, labels, part):
    images = to_numpy(images, "images")[part]
    return images, labels if labels is None else check_batch_labels(labels[part], len(images))
