"""Batches that are a pure function of the seed and the step."""

import concurrent.futures
import functools

import keras
import numpy as np

from keras_sagan.checks import check_boolean, check_choice, check_integer
from keras_sagan.data.folder import StreamedImages
from keras_sagan.data.order import ORDERS, permutation
from keras_sagan.data.position import check_step, positioned
from keras_sagan.data.tensorflow_pipeline import make_tensorflow


def pad_to_32(images):
    """Frames 28 pixel images with 2 pixels of black on each side.

    32 is a power of two, which the networks need. uint8 images are framed with 0, floats with -1.

    Args:
        images: Array of shape (batch, 28, 28, channels), uint8 in [0, 255] or floats in [-1, 1].

    Returns:
        Array of shape (batch, 32, 32, channels) and the same dtype.

    Raises:
        ValueError: If the images have another shape, or are neither uint8 nor floats.

    Example:

    >>> import numpy as np
    >>> pad_to_32(np.ones((1, 28, 28, 1), "uint8"))[0, :4, 16, 0]
    array([0, 0, 1, 1], dtype=uint8)
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:3] != (28, 28):
        raise ValueError(
            "`images` must have shape (batch, 28, 28, channels). "
            f"Received: images.shape={images.shape}"
        )
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            "`images` must be uint8 in [0, 255] or floats in [-1, 1]. "
            f"Received: images of dtype {images.dtype}"
        )
    black = 0 if images.dtype == np.uint8 else -1
    return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=black)


def steps_per_epoch(num_images, batch_size):
    """Returns the number of full batches in `num_images`; the rest waits for another epoch.

    Args:
        num_images: Integer, images in the set.
        batch_size: Integer, images in a batch.

    Returns:
        Integer, at least 1.

    Raises:
        ValueError: If `batch_size` isn't positive, or the set doesn't fill one batch.

    Example:

    >>> steps_per_epoch(10_000, 64)
    156
    """
    num_images = check_integer("num_images", num_images, 0)
    batch_size = check_integer("batch_size", batch_size)
    if num_images < batch_size:
        raise ValueError(
            "`batch_size` must be at most the number of images, or the data set yields nothing. "
            f"Received: batch_size={batch_size} for {num_images} images"
        )
    return num_images // batch_size


def spread_indices(count, num_images):
    """Chooses images that lie evenly over a whole set, which may stand class by class.

    Args:
        count: Integer, how many to choose; of a smaller set all are.
        num_images: Integer, images in the set.

    Returns:
        int64 array, ascending and without repeats.

    Raises:
        ValueError: If either isn't positive.

    Example:

    >>> spread_indices(3, 11)
    array([ 0,  5, 10])
    """
    count = check_integer("count", count)
    num_images = check_integer("num_images", num_images)
    return np.linspace(0, num_images - 1, min(count, num_images)).astype("int64")


def make_dataset(
    images,
    labels=None,
    batch_size=64,
    seed=0,
    shuffle=True,
    start_step=0,
    repeat=True,
    order="splitmix64",
):
    """Makes batches from arrays so that batch number `step` depends on `(seed, step)` alone.

    The data set is endless: give `fit` its `steps_per_epoch`. Each epoch is a new permutation of
    all images, the same on every backend; what doesn't fill a batch is left out of that epoch. A
    run that stopped after `n` steps goes on exactly with `start_step=n`, or with
    `dataset.at_step(n)`, at no cost, which a shuffle buffer can't do. The images are read from the
    array that you give, and never copied as a whole: don't change it while the data set is in use.

    On JAX and PyTorch TensorFlow isn't imported, even where it is installed: it would take the
    memory of the GPU.

    Args:
        images: uint8 array in [0, 255] of shape (num_images, height, width, channels), which may
            be a `numpy.memmap`, or the `StreamedImages` of `load_image_folder`.
        labels: Optional integer array of shape (num_images,). Defaults to `None`.
        batch_size: Integer, images in every batch. Defaults to `64`.
        seed: Integer in [0, 2**31), names the order. Defaults to `0`.
        shuffle: Boolean. `False` gives the order of the arrays in every epoch. Defaults to `True`.
        start_step: Integer, global number of the first batch. Defaults to `0`.
        repeat: Boolean. `False` ends at the end of the epoch in which `start_step` lies; then
            every iteration gives the same epoch again. Defaults to `True`.
        order: `"splitmix64"`, or `"index_shuffle"` for runs that began before there was a choice,
            on the TensorFlow backend only. Defaults to `"splitmix64"`.

    Returns:
        A `tf.data.Dataset` on the TensorFlow backend, and a `keras.utils.PyDataset` on JAX and
        PyTorch. It gives uint8 (batch_size, height, width, channels), or pairs with int32 labels
        (batch_size,). Its method `at_step(step)` returns the same data set from another step on.
        An endless one has an attribute `start_step`, which `map`, `prefetch` and `with_options`
        of `tf.data` keep.

    Raises:
        ValueError: If an array has the wrong rank, dtype or length, the images don't fill a batch,
            or an argument is out of range.

    Example:

    >>> import numpy as np
    >>> images = np.arange(6, dtype="uint8").reshape(6, 1, 1, 1)
    >>> dataset = make_dataset(images, np.arange(6), batch_size=2, shuffle=False, start_step=4)
    >>> next(iter(dataset))[1].numpy()
    array([2, 3], dtype=int32)
    """
    images, labels = _checked_arrays(images, labels)
    batch_size = check_integer("batch_size", batch_size)
    steps_per_epoch(len(images), batch_size)  # Raises if they fill no batch.
    seed, start_step = check_position(seed, start_step)
    shuffle, repeat = check_boolean("shuffle", shuffle), check_boolean("repeat", repeat)
    order = check_order(order)
    if keras.backend.backend() != "tensorflow":
        if order != ORDERS[0]:
            raise ValueError(
                f'`order` must be "{ORDERS[0]}" on {keras.backend.backend()}. '
                f"Received: order={order!r}"
            )
        return _Batches(images, labels, batch_size, seed, shuffle, start_step, repeat)
    make = make_tensorflow(images, labels, batch_size, seed, shuffle, repeat, order)
    return positioned(make, start_step)


class _Batches(keras.utils.PyDataset):
    """The batches of `make_dataset` for JAX and PyTorch; the arguments are checked there."""

    def __init__(self, images, labels, batch_size, seed, shuffle, start_step, repeat):
        super().__init__()  # With one worker, Keras reads batch after batch in its own thread.
        self._arguments = images, labels, batch_size, seed, shuffle
        self._start, self._repeat = start_step, repeat
        if repeat:
            self.start_step = start_step
        self._steps = len(images) // batch_size
        self._next = {}
        self._permutation = functools.lru_cache(2)(permutation)
        self._reader = concurrent.futures.ThreadPoolExecutor(1)

    @property
    def num_batches(self):
        """Integer, or `None` for an endless data set."""
        return None if self._repeat else self._steps - self._start % self._steps

    def at_step(self, step):
        """Returns the same data set from another step on."""
        return _Batches(*self._arguments, check_step(step), self._repeat)

    def __getitem__(self, index):
        step = self._start + index
        if not isinstance(self._arguments[0], StreamedImages):
            return self._batch(step)
        # The next batch is read from disk while this one is trained on.
        batch = self._next.pop(step, None) or self._reader.submit(self._batch, step)
        self._next = {step + 1: self._reader.submit(self._batch, step + 1)}
        return batch.result()

    def _batch(self, step):
        images, labels, batch_size, seed, shuffle = self._arguments
        epoch, position = divmod(step, self._steps)
        indices = position * batch_size + rows_of_process(batch_size)
        if shuffle:
            indices = self._permutation(seed, epoch, len(images))[indices]
        return images[indices] if labels is None else (images[indices], labels[indices])


def rows_of_process(batch_size):
    """Returns the rows of a global batch that this process feeds to its devices.

    All of them, except with several processes of JAX under `keras.distribution`, to which each
    process gives the rows of its own devices.

    Args:
        batch_size: Integer, the images of the global batch.

    Returns:
        int64 array, ascending.
    """
    rows = np.arange(batch_size)
    distribution = keras.distribution.distribution()
    if keras.backend.backend() != "jax" or distribution is None:
        return rows
    sharding = distribution.get_data_layout(rows.shape).backend_layout
    if sharding.is_fully_addressable:  # There is one process.
        return rows
    shares = sharding.addressable_devices_indices_map(rows.shape).values()
    return np.unique(np.concatenate([rows[share] for share in shares]))


def _checked_arrays(images, labels):
    """uint8 images and int32 labels or `None`."""
    if not isinstance(images, StreamedImages):
        images = np.asarray(images)
    if len(images.shape) != 4 or images.dtype != np.uint8:
        raise ValueError(
            "`images` must be uint8 in [0, 255] of shape (num_images, height, width, channels). "
            f"Received: images.shape={images.shape} of dtype {images.dtype}"
        )
    if labels is None:
        return images, None
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`labels` must be integers of shape ({len(images)},), one for each image. "
            f"Received: labels.shape={labels.shape} of dtype {labels.dtype}"
        )
    return images, labels.astype(np.int32)


def check_position(seed, start_step):
    """Returns both, if they are integers that the pipeline can count with."""
    start_step = check_integer("start_step", start_step, 0, 2**62 - 1)
    return check_integer("seed", seed, 0, 2**31 - 1), start_step


def check_order(order):
    """Returns `order`, if there is such an order."""
    return check_choice("order", order, ORDERS)
