"""Where the images of an evaluation come from: a model, arrays, batches."""

import hashlib
import inspect
import itertools
import operator
import warnings

import keras
import numpy as np

from keras_sagan.checks import FilledRange, check_labels
from keras_sagan.metrics.features import to_numpy
from keras_sagan.metrics.report import weights_sha256
from keras_sagan.ops.labels import apportion_labels
from keras_sagan.ops.latent import sample_latents

# What `tf.data.Dataset.cardinality` returns where it is no number of batches.
INFINITE_CARDINALITY, UNKNOWN_CARDINALITY = -1, -2
STANDING_BATCH = 64  # images in a pass for standing statistics, whatever the batch size


def batches_of(images, batch_size):
    """Yields pairs of images and labels (or `None`) as numpy arrays.

    Args:
        images: An array of images, a pair of arrays (images, labels), or an iterable of batches of
            either, such as a finite `tf.data.Dataset`.
        batch_size: Integer, the images in a batch of an array.

    Yields:
        Array of shape (batch, height, width, channels), and integer array of shape (batch,) or
        `None`.
    """
    if _is_pair(images) or hasattr(images, "shape"):
        images, labels = images if _is_pair(images) else (images, None)
        for first in range(0, len(images), batch_size):
            yield _checked(images, labels, slice(first, first + batch_size))
        return
    for batch in iterate(images):
        batch, labels = batch if _is_pair(batch) else (batch, None)
        yield _checked(batch, labels, slice(None))


def iterate(images):
    """Returns an iterator over batches; that of Keras's old image generators would never end."""
    if isinstance(images, keras.utils.PyDataset) and not is_endless(images):
        return (images[index] for index in range(images.num_batches))
    return iter(images)


def check_ends(images, argument, name="num_reference"):
    """Raises for images without end, as far as that can be told without reading them.

    Args:
        images: As for `batches_of`.
        argument: String, the argument of `images`, for messages.
        name: String, the argument that says how many of them to take. Defaults to
            `"num_reference"`.

    Raises:
        ValueError: For an endless iterable.
    """
    if is_endless(images):
        raise ValueError(
            f"`{name}` must be given for endless images, such as those of `make_dataset`, "
            f"`load_tfds` and `Dataset.repeat()`. Received: {name}=None and {argument}={images!r}"
        )


def is_endless(images):
    """Whether images never end, as far as that can be told without reading them."""
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


def once(images):
    """Returns a note for messages about a generator that ended, and `""` for anything else."""
    if not inspect.isgenerator(images):
        return ""
    return (
        ". A Python generator gives its images only once: give an array, a list of batches or a "
        "tf.data.Dataset"
    )


def first_images(images, num_images, batch_size, name):
    """Returns the first images of a source, which may be endless.

    Args:
        images: As for `batches_of`.
        num_images: Integer.
        batch_size: Integer, the images in a batch of an array.
        name: String, the argument of `num_images`, for messages.

    Returns:
        An iterable of batches that knows its `num_images`, or arrays where `images` are.

    Raises:
        ValueError: If there are fewer, which an iterable says only at its end.
    """
    if _is_pair(images):
        pair = images[0], np.asarray(images[1])
        return tuple(first_images(x, num_images, batch_size, name) for x in pair)
    if hasattr(images, "shape"):
        if len(images) < num_images:
            raise ValueError(_too_few(name, num_images, len(images)))
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
        raise ValueError(_too_few(self.name, self.num_images, done) + once(self.images))


def _too_few(name, num_images, count):
    return f"`{name}` must be no more than there are images. Received: {name}={num_images}, " + (
        f"{count} images"
    )


def length_of(images):
    """The number of images, or `None` where it can't be told without reading them."""
    if hasattr(images, "num_images"):
        return images.num_images
    if isinstance(images, (tuple, list)) and len(images) and hasattr(images[0], "shape"):
        return len(images[0]) if np.ndim(images[-1]) == 1 else sum(len(x) for x in images)
    return len(images) if hasattr(images, "shape") else None


def peek(images):
    """Looks at the first images of a source.

    Args:
        images: As for `batches_of`; an iterable is begun.

    Returns:
        The same images, to be read once; the shape of one as a list; and whether labels come with
        them.
    """
    if not (_is_pair(images) or hasattr(images, "shape")):
        iterator = iterate(images)
        first = list(itertools.islice(iterator, 1))
        if not first:
            return images, None, False
        return itertools.chain(first, iterator), *peek(first[0])[1:]
    first = images[0] if _is_pair(images) else images
    return images, [int(x) for x in first.shape[1:]], _is_pair(images)


def noise_images(count, image_shape, seed, batch_size):
    """Yields batches of uniform uint8 noise, the same images whatever the batch size."""
    for first in range(0, count, batch_size):
        yield np.stack(
            [
                np.random.default_rng([seed, i]).integers(0, 256, image_shape, dtype="uint8")
                for i in range(first, min(first + batch_size, count))
            ]
        )


class GeneratedImages:
    """A model's images, each determined by the seed and its number.

    Latents and labels are made for all images at once, so that the batch size doesn't change them.

    Args:
        model: A `SAGAN`, or anything with its `generate()`, `latent_dim` and `num_classes`; or a
            Keras model from latents, or from [latents, labels], to images in [-1, 1].
        num_images: Integer.
        labels: `"uniform"`, `"reference"`, or an integer array of shape (num_images,).
        class_counts: Array of shape (num_classes,), the reference's images by class, or `None`.
        seed: Integer.
        batch_size: Integer.
        use_ema: Boolean, whether to use the averaged generator if there is one.
        truncation: `None`, or the positive float that latents are truncated at.
        strategy: `tf.distribute.Strategy` whose replicas share each batch of a Keras network.

    Raises:
        ValueError: If an argument is invalid, or the class frequencies aren't known.
    """

    def __init__(
        self,
        model,
        num_images,
        labels="uniform",
        class_counts=None,
        seed=0,
        batch_size=64,
        use_ema=True,
        truncation=None,
        strategy=None,
    ):
        self.model, self.batch_size, self.num_images = model, batch_size, num_images
        self.is_averaged = use_ema and getattr(model, "ema_generator", None) is not None
        self.network = model.ema_generator if self.is_averaged else model
        if not self.is_averaged and isinstance(getattr(model, "generator", None), keras.Model):
            self.network = model.generator
        latent_dim, num_classes = _sizes(model, class_counts)
        rng = np.random.default_rng(seed)
        self.latents = sample_latents(num_images, latent_dim, rng, truncation)
        self.labels, self.labels_are = None, "none"
        if num_classes is not None:
            rng = np.random.default_rng([seed, 1])
            self.labels, self.labels_are = _labels(
                labels, num_images, num_classes, class_counts, rng
            )
        self._filled = FilledRange(
            "the images of `model`", "it must make them in [-1, 1], or every score is wrong"
        )
        self._shared = None
        if strategy is not None and strategy.num_replicas_in_sync > 1 and self._has_network:
            from keras_sagan.metrics.replicas import share_among_replicas

            self._shared = share_among_replicas(self._call_packed, strategy, "model")
        self.protocol = {
            "weights": "averaged (EMA)" if self.is_averaged else "raw",
            "labels": self.labels_are,
            "truncation": truncation,
            "seed": seed,
            "batch_statistics": "moving",
        }

    @property
    def _has_network(self):
        """Whether images come from calling `network`, also where `generate()` is there to do it."""
        is_generate = hasattr(self.model, "generate") and self.network is self.model
        return isinstance(self.network, keras.Model) and not is_generate

    @property
    def name(self):
        return f"{getattr(self.model, 'name', type(self.model).__name__)} sha256:{self.sha256}"

    @property
    def sha256(self):
        """String, the digest of the generator's weights and of the inputs to it.

        Of what isn't a Keras model the first images stand for the weights.
        """
        digest = hashlib.sha256(self.latents.tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        if isinstance(self.network, keras.Model):
            digest.update(weights_sha256(self.network).encode())
        else:
            few = None if self.labels is None else self.labels[:2]
            digest.update(self._generate(self.latents[:2], few).tobytes())
        return digest.hexdigest()

    def batches(self):
        """Yields (uint8 images, labels or `None`)."""
        for first in range(0, self.num_images, self.batch_size):
            part = slice(first, min(first + self.batch_size, self.num_images))
            labels = None if self.labels is None else self.labels[part]
            yield self._generate(self.latents[part], labels), labels

    def standing_batches(self, passes, seed, progress):
        """Yields inputs to the generator for standing statistics, drawn apart from the images."""
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
        """The network's images by name, from latents with the label behind them, if any."""
        inputs = packed = keras.ops.convert_to_tensor(packed)
        if self.labels is not None:
            inputs = [packed[:, :-1], keras.ops.cast(packed[:, -1], "int32")]
        return {names[0]: self.network(inputs, training=False)}

    def _generate(self, latents, labels):
        if self._shared is not None:
            packed = latents if labels is None else np.column_stack([latents, labels])
            return self._to_user_space(self._shared(np.float32(packed), ("images",))["images"])
        if hasattr(self.model, "generate"):
            return self.model.generate(
                len(latents),
                labels=labels,
                latents=latents,
                batch_size=self.batch_size,
                use_ema=self.is_averaged,
            )
        inputs = latents if labels is None else [latents, labels]
        return self._to_user_space(to_numpy(self.model(inputs, training=False), "model"))

    def _to_user_space(self, images):
        images = images.astype("float32")
        if not (np.isfinite(images).all() and np.abs(images).max() <= 1.001):
            raise ValueError(
                "`model` must make finite images in [-1, 1]. Received: images in "
                f"[{images.min():g}, {images.max():g}]"
            )
        if not hasattr(self.model, "generate"):  # One in training may well begin with grey images.
            self._filled(images, -1.0, 1.0)
        return np.clip(np.round((images + 1.0) * 127.5), 0, 255).astype("uint8")


def _sizes(model, class_counts):
    """The latent dimension and the number of classes of a model."""
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
    """Labels of shape (count,) and what they are called in a protocol."""
    if isinstance(labels, str) and labels == "uniform":
        if class_counts is not None and np.count_nonzero(class_counts) < num_classes:
            warnings.warn(
                f'`labels="uniform"` draws {num_classes} classes, and the reference has images of '
                f"{np.count_nonzero(class_counts)} of them: the scores count the others as wrong. "
                'Use labels="reference" for the classes of the reference.',
                stacklevel=4,
            )
        return (np.arange(count) % num_classes).astype("int32"), "uniform, in turn"
    if isinstance(labels, str) and labels == "reference":
        if class_counts is None or len(class_counts) > num_classes:
            known = "no labels" if class_counts is None else f"{len(class_counts)} classes"
            raise ValueError(
                'With `labels="reference"` the reference must come with labels of the '
                f"{num_classes} classes of the model. Received: a reference with {known}"
            )
        weights = np.pad(class_counts, (0, num_classes - len(class_counts)))
        return apportion_labels(weights, count, rng), "the reference's frequencies"
    if isinstance(labels, str) or np.shape(labels) != (count,):
        shown = labels if isinstance(labels, str) else f"labels of shape {np.shape(labels)}"
        raise ValueError(
            f'`labels` must be "uniform", "reference" or an array of shape ({count},). '
            f"Received: {shown}"
        )
    check_labels(labels, num_classes)
    labels = np.asarray(labels, dtype="int32")
    return labels, f"given, sha256:{hashlib.sha256(labels.tobytes()).hexdigest()}"


def _is_pair(value):
    return isinstance(value, (tuple, list)) and len(value) == 2 and np.ndim(value[1]) == 1


def _checked(images, labels, part):
    images = to_numpy(images, "images")[part]
    if labels is None:
        return images, None
    labels = to_numpy(labels, "labels")[part]
    if len(labels) != len(images) or labels.dtype.kind not in "iu":
        raise ValueError(
            "`labels` must be integers, one for each image. Received: labels of shape "
            f"{labels.shape} and dtype {labels.dtype.name} for {len(images)} images"
        )
    return images, labels
