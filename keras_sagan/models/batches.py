"""What a batch of training data may look like, and its way to model space."""

import itertools
import types
import warnings

import keras
import numpy as np
from keras import backend, ops

from keras_sagan.ops.filled_range import FilledRange
from keras_sagan.ops.labels import check_labels

REFUSED = -1  # In place of its size, for a batch that a worker found bad.


def unpack(data, num_classes):
    """Splits what a data set yields into images and labels, and checks what is static.

    Args:
        data: Images, `(images,)`, `(images, labels)`, or either with `None` behind.
        num_classes: Integer, or `None` for a model without classes.

    Returns:
        Tuple of the images and the labels; `None` for the labels of a model without classes.

    Raises:
        ValueError: For images that aren't of rank 4 or of dtype uint8 or float, missing or
            superfluous labels, or labels that aren't integers of shape `(batch,)`.
    """
    if isinstance(data, (tuple, list)):
        parts = [None if is_absent(part) else part for part in data]
    else:
        parts = [data]
    images, labels, sample_weight = (parts + [None] * 3)[:3]
    if sample_weight is not None or len(parts) > 3:
        raise ValueError(
            "A data set for SAGAN must yield images or (images, labels); `sample_weight` has no "
            f"meaning here. Received: {len(parts)} parts"
        )
    if images is None or isinstance(images, (dict, tuple, list)):
        found = "nothing" if images is None else f"a {type(images).__name__}"
        raise ValueError(
            "A data set for SAGAN must yield images or (images, labels). "
            f"Received: {found} in place of the images"
        )
    check_dense(images=images, labels=labels)
    check_images(images)
    if num_classes is None and labels is not None:
        raise ValueError(
            "`labels` must not be given, as the model has num_classes=None. "
            f"Received: labels of shape {tuple(labels.shape)}"
        )
    if num_classes is not None:
        if labels is None:
            raise ValueError(
                f"`labels` must be given, as the model has num_classes={num_classes}: make the "
                "data set yield (images, labels). Received: images alone"
            )
        check_labels(labels, num_classes)
    return images, labels


def check_given(x, y=None):
    """Raises for an `x` or `y` of `fit` or `evaluate` that Keras can't make batches of."""
    if x is None:
        raise ValueError("`x` must be given: images, or a data set of them. Received: x=None")
    if isinstance(x, dict):
        raise ValueError(
            "`x` must be images, and `y` their labels; a data set for SAGAN must yield images or "
            f"(images, labels). Received: x=a dict with the keys {list(x)}"
        )
    check_dense(x=x, y=y)


def without_none(data):
    """Removes each `None` at the end of batches, which Keras can't always pass on.

    Args:
        data: What `fit` or `evaluate` was given. A generator or a `keras.utils.PyDataset` is
            wrapped; anything else is returned as it is.
    """
    if isinstance(data, keras.utils.PyDataset):
        return _WithoutNone(data)
    is_generator = isinstance(data, types.GeneratorType)
    return (_shortened(batch) for batch in data) if is_generator else data


class _WithoutNone(keras.utils.PyDataset):
    def __init__(self, data):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data = data

    def __getitem__(self, index):
        return _shortened(self._data[index])

    @property
    def num_batches(self):
        return self._data.num_batches

    def on_epoch_begin(self):
        self._data.on_epoch_begin()

    def on_epoch_end(self):
        self._data.on_epoch_end()


def _shortened(batch):
    if not isinstance(batch, (tuple, list)):
        return batch
    batch = tuple(batch)
    while len(batch) > 1 and batch[-1] is None:
        batch = batch[:-1]
    return batch


def check_shares(argument, count, batch_size, replicas, steps=None, advice=None):
    """Raises for an array whose batches the replicas couldn't share equally.

    Args:
        argument: String, the argument that the array came in.
        count: Integer, its images.
        batch_size: Integer, as given to `fit`, or `None` for Keras's 32.
        replicas: Integer.
        steps: Integer, the batches that are taken in all, or `None` for all there are.
        advice: String, what to do. Defaults to the slice to take.

    Raises:
        ValueError: If there is a batch that `replicas` doesn't divide.
    """
    batch_size = min(batch_size or 32, count)
    if not batch_size:
        return
    is_last_needed = steps is None or steps > count // batch_size
    left = count % batch_size if is_last_needed else 0
    if batch_size % replicas == 0 and left % replicas == 0:
        return
    size = max(batch_size - batch_size % replicas, replicas)
    most = count - count % size % replicas
    advice = advice or f"take `{argument}[:{most}]`, labels too, with batch_size={size}"
    last = f", the last one of {left}" if left else ""
    raise ValueError(
        f"`{argument}` must yield batches that the {replicas} replicas divide: {advice}. "
        f"Received: {argument} of {count} images in batches of {batch_size}{last}"
    )


def check_dense(**values):
    """Raises for what isn't one dense array, by the name of the argument."""
    for name, value in values.items():
        kind = type(value).__name__
        if isinstance(value, (list, tuple)):
            advice = "`np.asarray` makes one of equally large parts"
            kind = f"a {kind} of {len(value)}"
        elif isinstance(value, dict):
            kind, advice = f"a dict with the keys {list(value)}", "give the array in it"
        elif "Ragged" in kind:
            advice = "make it dense with `to_tensor()`"
        elif "Sparse" in kind or type(value).__module__.startswith("scipy.sparse"):
            advice = "make it dense, as with `tf.sparse.to_dense`"
        elif str(getattr(value, "dtype", "")) == "object":
            kind, advice = "an array of objects", "give all its parts one shape and a plain dtype"
        else:
            continue
        raise ValueError(
            f"`{name}` must be one dense array or tensor: {advice}. Received: {name}={kind}"
        )


def is_absent(part):
    """Whether a part of a batch is missing, such as the labels in `(images, None)`."""
    # Keras stands a tf.experimental.Optional in for a None that a generator yields.
    return part is None or type(part).__name__.startswith(("Optional", "_Optional"))


def to_model_space(images):
    """Converts uint8 images in [0, 255] to float32 in [-1, 1]; floats are taken as they are."""
    if backend.standardize_dtype(images.dtype) == "uint8":
        return ops.cast(images, "float32") / 127.5 - 1.0
    return ops.cast(images, "float32")


def to_user_space(images):
    """Converts float images in [-1, 1] to uint8 in [0, 255], rounded."""
    pixels = ops.clip(ops.round((ops.cast(images, "float32") + 1.0) * 127.5), 0.0, 255.0)
    return ops.cast(pixels, "uint8")


def check_images(images, argument="images"):
    """Raises unless images are of rank 4 and of dtype uint8 or float."""
    dtype = backend.standardize_dtype(images.dtype)
    if len(images.shape) != 4:
        raise ValueError(
            f"`{argument}` must have shape (batch, height, width, channels). "
            f"Received: {argument} of shape {tuple(images.shape)}"
        )
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(
            f"`{argument}` must be uint8 in [0, 255] or float in [-1, 1]. "
            f"Received: {argument} of dtype {dtype}"
        )


def check_values(images, image_shape, argument="images"):
    """Raises unless the images of a batch fit the model, are finite and lie in their range.

    Args:
        images: Array of shape `(batch, height, width, channels)`, uint8 or float.
        image_shape: Tuple `(height, width, channels)` that the discriminator takes; `None`
            entries fit anything.
        argument: String, the name to use in messages. Defaults to `"images"`.

    Returns:
        The images as a numpy array.

    Raises:
        ValueError: For another shape, NaN or infinite values, or floats outside [-1, 1].
    """
    images = np.asarray(ops.convert_to_numpy(images))
    check_shape(images.shape, image_shape, argument)
    if images.dtype == np.uint8 or not images.size:
        return images
    images = images.astype("float32", copy=False)
    low, high = float(images.min()), float(images.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        broken = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        raise ValueError(
            f"`{argument}` must be finite. Received: {argument} with NaN or infinite values at "
            f"{broken[:5].tolist()} of a batch"
        )
    if low < -1.001 or high > 1.001:
        raise ValueError(
            f"Float `{argument}` must lie in [-1, 1]; give uint8 for [0, 255], or rescale them. "
            f"Received: {argument} between {low:g} and {high:g} in a batch"
        )
    return images


class RangeWarning:
    """Warns once if images fill no more than half of their range, such as floats in [0, 1].

    Args:
        argument: String, the name to use in messages.
    """

    def __init__(self, argument):
        advice = "rescale floats to [-1, 1] and uint8 to [0, 255]"
        self._of_floats = FilledRange(f"Float `{argument}`", advice)
        self._of_uint8 = FilledRange(f"uint8 `{argument}`", advice)

    def __call__(self, images):
        """Looks at an array of images, uint8 or float."""
        if images.dtype == np.uint8:
            self._of_uint8(images, 0, 255)
        else:
            # Floats without a negative number are hardly ever in [-1, 1]; a few may be dark.
            self._of_floats.many = 1 if images.size and images.min() >= 0 else 4
            self._of_floats(images, -1, 1)


def check_shape(shape, image_shape, argument="images"):
    """Raises unless images of a shape `(batch, height, width, channels)` fit the model."""
    fits = all(a is None or b is None or a == b for a, b in zip(shape[1:], image_shape))
    if not fits:
        raise ValueError(
            f"`{argument}` must have shape (batch, {', '.join(map(str, image_shape))}). "
            f"Received: {argument} of shape {tuple(shape)}"
        )


class BatchCheck:
    """Checks the images and labels of batches as they pass.

    Args:
        argument: String, the name of the data in messages.
        num_classes, image_shape: Those of the model.
    """

    def __init__(self, argument, num_classes, image_shape):
        self.argument = argument
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.has_passed = True  # Whether a batch has, since `begin`.
        self._seen, self._num_seen = set(), 0  # Classes and labels, since `begin`.
        self._has_seen_all = True
        self._warn_of_range = RangeWarning("images")

    def begin(self, is_new_data=True):
        """Makes the next batch the first.

        Args:
            is_new_data: Boolean, whether a warning that was given may be given again.
        """
        if is_new_data:
            self._warn_of_range = RangeWarning("images")
        self.has_passed = False
        self._seen, self._num_seen = set(), 0
        self._has_seen_all = True

    def __call__(self, parts):
        """Raises unless the images and labels of a batch fit the model.

        Later batches are checked where that needs no copy from a device.

        Args:
            parts: List with a tuple of images, labels, … for each replica of this process.
        """
        for part in parts:
            if self.has_passed and not _is_on_host(part):
                self._has_seen_all = False
                continue
            images, labels = unpack(part, self.num_classes)
            self._warn_of_range(check_values(images, self.image_shape))
            if labels is not None:
                labels = np.asarray(ops.convert_to_numpy(labels))
                self._seen.update(labels.tolist())
                self._num_seen += len(labels)

    def warn_of_missing_classes(self, is_whole):
        """Warns of classes without an image in what was seen since `begin`.

        Args:
            is_whole: Boolean, whether all the data were seen. Of a part of them only classes that
                would be in it almost surely, if all were equally frequent, are missing.

        Returns:
            Boolean, whether it warned.
        """
        if not self._seen:
            return False
        count = self.num_classes
        is_whole = is_whole and self._has_seen_all
        is_enough = is_whole or self._num_seen > count * np.log(1000 * count)
        if len(self._seen) == count or not is_enough:
            return False
        missing = [*itertools.islice((x for x in range(count) if x not in self._seen), 11)]
        names = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        among = "" if is_whole else f" in the first {self._num_seen}"
        warnings.warn(
            f"`{self.argument}` has no image{among} of {count - len(self._seen)} of "
            f"num_classes={count} classes: {names}. They are trained as fakes alone, and "
            "`generate(labels=None)` draws them too: build the networks and SAGAN for the classes "
            "there are, numbered from 0.",
            stacklevel=3,
        )
        return True

    def check_sizes(self, sizes, per_worker):
        """Raises unless the replicas share a batch equally; then it has passed.

        Args:
            sizes: List of the images that each replica has, `REFUSED` for those of another
                worker that found its own bad.
            per_worker: Integer, how many of them are one worker's.
        """
        if REFUSED in sizes:
            bad = [worker for worker, size in enumerate(sizes[::per_worker]) if size == REFUSED]
            raise ValueError(
                f"`{self.argument}` must yield good batches on every worker: the message of the "
                "worker that refused its own says what is wrong. "
                f"Received: a bad batch on worker {', '.join(map(str, bad))}"
            )
        if len(set(sizes)) > 1:
            raise ValueError(
                f"`{self.argument}` must yield batches that the replicas divide: use "
                f"drop_remainder=True and a global batch that is a multiple of {len(sizes)}. "
                f"Received: a batch of {sum(sizes)} images, that is {sizes} on {len(sizes)} "
                "replicas"
            )
        self.has_passed = True

    def at_end(self):
        """Raises if the data ended before the first batch."""
        if not self.has_passed:
            raise ValueError(
                f"`{self.argument}` must yield at least one batch. "
                "Received: a data set that yields nothing"
            )


def _is_on_host(tensors):
    devices = [str(getattr(x, "device", "")) for x in tensors if not is_absent(x)]
    return all("cpu" in device.lower() for device in devices)
