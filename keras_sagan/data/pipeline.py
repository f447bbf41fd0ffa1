"""Makes batches that depend only on the seed and the step."""

import concurrent.futures
import functools
from collections.abc import Iterable

import keras
import numpy as np

from keras_sagan.checks import check_boolean, check_choice, check_integer
from keras_sagan.data.folder import StreamedImages
from keras_sagan.data.order import ORDERS, is_flipped, permutation
from keras_sagan.data.position import check_step, positioned
from keras_sagan.data.tensorflow_pipeline import make_tensorflow


def pad_to_32(images: np.ndarray) -> np.ndarray:
    """Pads 28 × 28 images to 32 × 32 with black; the networks need sizes that are powers of two.

    Args:
        images: Array of shape `(batch, 28, 28, channels)`, uint8 in [0, 255] (padded with 0) or
            floats in [-1, 1] (padded with -1). Other arrays raise a `ValueError`.

    Returns:
        Array of shape `(batch, 32, 32, channels)` with the dtype of `images`.

    Example:
    >>> pad_to_32(np.ones((1, 28, 28, 1), "uint8"))[0, :4, 16, 0]
    array([0, 0, 1, 1], dtype=uint8)
    """
    images = np.asarray(images)
    is_uint8, is_float = images.dtype == np.uint8, np.issubdtype(images.dtype, np.floating)
    if images.ndim != 4 or images.shape[1:3] != (28, 28) or not (is_uint8 or is_float):
        raise ValueError(
            "`images` must have shape (batch, 28, 28, channels), as uint8 in [0, 255] or floats in "
            f"[-1, 1]. Received: images.shape={images.shape} of dtype {images.dtype}"
        )
    black = 0 if is_uint8 else -1
    return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=black)


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Returns the number of full batches in a dataset of `num_images` images.

    Raises:
        ValueError: If `batch_size` isn't positive, or the images don't fill one batch.

    Example:
    >>> steps_per_epoch(10_000, 64)
    156
    """
    num_images = check_integer("num_images", num_images, 0)
    batch_size = check_integer("batch_size", batch_size)
    if num_images < batch_size:
        raise ValueError(
            "`batch_size` must be at most the number of images, or the dataset yields nothing. "
            f"Received: batch_size={batch_size} for {num_images} images"
        )
    return num_images // batch_size


def spread_indices(count: int, num_images: int) -> np.ndarray:
    """Returns `count` evenly spaced indices, for choosing images from a dataset sorted by class.

    The result is an ascending int64 array without repeats, and has at most `num_images` elements.
    If an argument isn't positive, a `ValueError` is raised.

    Example:
    >>> spread_indices(3, 11)
    array([ 0,  5, 10])
    """
    count = check_integer("count", count)
    num_images = check_integer("num_images", num_images)
    return np.linspace(0, num_images - 1, min(count, num_images)).astype("int64")


def make_dataset(
    images: np.ndarray | StreamedImages,
    labels: np.ndarray | None = None,
    batch_size: int = 64,
    seed: int = 0,
    shuffle: bool = True,
    start_step: int = 0,
    repeat: bool = True,
    order: str = "splitmix64",
    flip: bool = False,
) -> Iterable:
    """Makes batches from arrays; each batch depends only on `(seed, step)`.

    The dataset is endless: pass `steps_per_epoch` to `fit`. The images are shuffled again for each
    epoch, and their order is the same on every backend. The last images of an epoch are skipped if
    they don't fill a batch. With `start_step=n` or `dataset.at_step(n)`, a run that stopped after
    `n` steps resumes exactly, without reading the earlier batches again. The array of images isn't
    copied, so don't change it while the dataset is in use.

    On JAX and PyTorch, TensorFlow isn't imported, because it would take up GPU memory.

    Args:
        images: uint8 array in [0, 255] of shape `(num_images, height, width, channels)`, which may
            be a `numpy.memmap`, or the `StreamedImages` of `load_image_folder`.
        labels: Integer array of shape `(num_images,)`. If `None`, batches contain only images.
        batch_size: The number of images in each batch.
        seed: Integer in [0, 2**31), the seed for shuffling.
        shuffle: Whether to shuffle the images in every epoch.
        start_step: The global step of the first batch.
        repeat: If `False`, the dataset ends after the epoch that contains `start_step`, and
            iterating again yields the same epoch.
        order: `"splitmix64"`, or `"index_shuffle"` to resume runs of older versions on TensorFlow.
        flip: Whether to mirror approximately half of the images horizontally in each epoch. The
            choice depends on the seed, the epoch and the index of the image.

    Returns:
        A `tf.data.Dataset` on the TensorFlow backend, and a `keras.utils.PyDataset` on JAX and
        PyTorch. Batches are uint8 images of shape `(batch_size, height, width, channels)`, or pairs
        of such images and int32 labels of shape `(batch_size,)`. The method `at_step(step)` returns
        the same dataset starting at a different step. An endless dataset has an attribute
        `start_step`, which the `tf.data` methods `map`, `prefetch` and `with_options` preserve.

    Raises:
        ValueError: If an array has the wrong rank, dtype or length, the images don't fill a batch,
            or an argument is out of range.

    Example:
    >>> images = np.arange(6, dtype="uint8").reshape(6, 1, 1, 1)
    >>> dataset = make_dataset(images, np.arange(6), batch_size=2, shuffle=False, start_step=4)
    >>> next(iter(dataset))[1].numpy()
    array([2, 3], dtype=int32)
    """
    if not isinstance(images, StreamedImages):
        images = np.asarray(images)
    if len(images.shape) != 4 or images.dtype != np.uint8:
        raise ValueError(
            "`images` must be uint8 in [0, 255] of shape (num_images, height, width, channels). "
            f"Received: images.shape={images.shape} of dtype {images.dtype}"
        )
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"`labels` must be integers of shape ({len(images)},), one for each image. "
                f"Received: labels.shape={labels.shape} of dtype {labels.dtype}"
            )
        labels = labels.astype(np.int32)
    batch_size = check_integer("batch_size", batch_size)
    steps_per_epoch(len(images), batch_size)  # Check that the images fill a batch.
    start_step = check_step(start_step, "start_step")
    seed = check_integer("seed", seed, 0, 2**31 - 1)
    shuffle, repeat = check_boolean("shuffle", shuffle), check_boolean("repeat", repeat)
    order, flip = check_choice("order", order, ORDERS), check_boolean("flip", flip)
    backend = keras.backend.backend()
    if order != ORDERS[0] and backend != "tensorflow":
        raise ValueError(f'`order` must be "{ORDERS[0]}" on {backend}. Received: order={order!r}')
    batches = _Batches(images, labels, batch_size, seed, shuffle, order, flip)
    if backend == "tensorflow":
        return positioned(make_tensorflow(batches, repeat), start_step)
    return _Dataset(batches, start_step, repeat)


class _Batches:
    """Computes the batch of a step; the datasets of all backends use this class."""

    def __init__(self, images, labels, batch_size, seed, shuffle, order, flip):
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.steps = len(images) // batch_size
        self._seed, self._shuffle, self._order, self._flip = seed, shuffle, order, flip
        self._permutation = functools.lru_cache(2)(permutation)

    def __call__(self, step):
        epoch, position = divmod(step, self.steps)
        indices = position * self.batch_size + rows_of_process(self.batch_size)
        if self._shuffle:
            order = self._permutation(self._seed, epoch, len(self.images), self._order)
            indices = order[indices]
        images = self.images[indices]
        if self._flip:
            mirrored = is_flipped(self._seed, epoch, indices)
            images[mirrored] = images[mirrored, :, ::-1]
        return images if self.labels is None else (images, self.labels[indices])


class _Dataset(keras.utils.PyDataset):
    """The dataset that `make_dataset` returns on JAX and PyTorch."""

    def __init__(self, batches, start_step, repeat):
        super().__init__()
        self._batches, self._start, self._repeat = batches, start_step, repeat
        if repeat:
            self.start_step = start_step
        self._next = {}
        self._reader = concurrent.futures.ThreadPoolExecutor(1)

    @property
    def num_batches(self):
        """The number of batches, or `None` for an endless dataset."""
        steps = self._batches.steps
        return None if self._repeat else steps - self._start % steps

    def at_step(self, step):
        """Returns the same dataset starting at a different step."""
        return _Dataset(self._batches, check_step(step), self._repeat)

    def __getitem__(self, index):
        step = self._start + index
        if not isinstance(self._batches.images, StreamedImages):
            return self._batches(step)
        # Read the next batch from disk while the model trains on the current batch.
        batch = self._next.pop(step, None) or self._reader.submit(self._batches, step)
        self._next = {step + 1: self._reader.submit(self._batches, step + 1)}
        return batch.result()


def rows_of_process(batch_size):
    """Returns the sorted indices of the global batch's rows that this process feeds to its devices.

    A process feeds all rows, unless `keras.distribution` splits them among several JAX processes.
    """
    rows = np.arange(batch_size)
    distribution = keras.distribution.distribution()
    if keras.backend.backend() != "jax" or distribution is None:
        return rows
    sharding = distribution.get_data_layout(rows.shape).backend_layout
    if sharding.is_fully_addressable:  # A single process needs the rows of all devices.
        return rows
    shares = sharding.addressable_devices_indices_map(rows.shape).values()
    return np.unique(np.concatenate([rows[share] for share in shares]))
