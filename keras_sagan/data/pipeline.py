"""`tf.data` pipelines whose every element is a pure function of the seed and the step."""

import concurrent.futures
import ctypes
import math

import numpy as np

from keras_sagan.checks import check_boolean, check_integer
from keras_sagan.lazy import tf

_ALIGNMENT = 64  # bytes, of every tensor of TensorFlow's


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
    images, labels=None, batch_size=64, seed=0, shuffle=True, start_step=0, repeat=True
):
    """Makes batches from arrays so that batch number `step` depends on `(seed, step)` alone.

    The data set is endless: give `fit` its `steps_per_epoch`. Each epoch is a new permutation of
    all images, computed by `index_shuffle` without a buffer; what doesn't fill a batch is left
    out of that epoch. A run that stopped after `n` steps goes on exactly with `start_step=n`, at
    no cost, which a shuffle buffer can't do. The images are read from the array that you give, and
    never copied as a whole: don't change it while the data set is in use.

    Args:
        images: uint8 array in [0, 255] of shape (num_images, height, width, channels), which may
            be a `numpy.memmap`.
        labels: Optional integer array of shape (num_images,). Defaults to `None`.
        batch_size: Integer, images in every batch. Defaults to `64`.
        seed: Integer in [0, 2**31), names the order. Defaults to `0`.
        shuffle: Boolean. `False` gives the order of the arrays in every epoch. Defaults to `True`.
        start_step: Integer, global number of the first batch. Defaults to `0`.
        repeat: Boolean. `False` ends at the end of the epoch in which `start_step` lies; then
            every iteration gives the same epoch again. Defaults to `True`.

    Returns:
        A `tf.data.Dataset` of uint8 (batch_size, height, width, channels), or of pairs with int32
        labels (batch_size,).

    Raises:
        ValueError: If an array has the wrong rank, dtype or length, the images don't fill a batch,
            or an argument is out of range.
        ImportError: If TensorFlow isn't installed.

    Example:

    >>> import numpy as np
    >>> images = np.arange(6, dtype="uint8").reshape(6, 1, 1, 1)
    >>> dataset = make_dataset(images, np.arange(6), batch_size=2, shuffle=False, start_step=4)
    >>> next(iter(dataset))[1].numpy()
    array([2, 3], dtype=int32)
    """
    images, labels = _checked_arrays(images, labels)
    batch_size = check_integer("batch_size", batch_size)
    steps = steps_per_epoch(len(images), batch_size)
    seed, start_step = check_position(seed, start_step)
    shuffle, repeat = check_boolean("shuffle", shuffle), check_boolean("repeat", repeat)
    num_images = len(images)
    labels = None if labels is None else tf.constant(labels)

    gather = _gatherer(images)

    def batch_of(step):
        epoch, position = step // steps, step % steps
        indices = position * batch_size + tf.range(batch_size, dtype=tf.int64)
        if shuffle:
            key = tf.stack([tf.constant(seed, tf.int64), epoch])
            indices = tf.random.experimental.index_shuffle(
                indices, tf.cast(key, tf.uint32), tf.constant(num_images - 1, tf.int64)
            )
        batch = tf.ensure_shape(gather(indices), (batch_size, *images.shape[1:]))
        if labels is None:
            return batch
        return batch, tf.ensure_shape(tf.gather(labels, indices), (batch_size,))

    if repeat:
        dataset = tf.data.Dataset.counter(start=start_step, dtype=tf.int64)
    else:
        dataset = tf.data.Dataset.range(start_step, (start_step // steps + 1) * steps)
    dataset = dataset.map(batch_of, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return finish(dataset, start_step if repeat else None)


def aligned_empty(shape):
    """Returns an uninitialized uint8 array that `make_dataset` reads fastest.

    Args:
        shape: Tuple of integers.
    """
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, "uint8")
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].reshape(shape)


def _gatherer(images):
    """Returns a function from indices to the images at them, which needs no copy of all images.

    `tf.constant` copies an array. A tensor that shares the memory of the array must begin at a
    multiple of 64 bytes, where the first image may begin at none. So each row of the tensor
    begins a few bytes into an image, and those bytes of each image are copied.
    """
    images = np.ascontiguousarray(images)
    (count, *shape), size = images.shape, images[0].size
    skipped = -images.ctypes.data % _ALIGNMENT
    if size <= skipped or count < 2:  # Small enough to be copied.
        tensor = tf.constant(images)
        return lambda indices: tf.gather(tensor, indices)
    rows = _shared(images, skipped, (count - 1 if skipped else count, size))
    if not skipped:
        return lambda indices: tf.reshape(tf.gather(rows.read_value(), indices), (-1, *shape))
    first_bytes = tf.constant(images.reshape(count, size)[:, :skipped])
    last = tf.constant(images[-1:].reshape(1, size))

    def gather(indices):
        found = tf.gather(rows.read_value(), tf.minimum(indices, count - 2))
        found = tf.concat([tf.gather(first_bytes, indices), found], axis=1)[:, :size]
        # The tensor has no row for the last image.
        is_last = indices[:, None] == count - 1
        found = tf.cond(
            tf.reduce_any(is_last), lambda: tf.where(is_last, last, found), lambda: found
        )
        return tf.reshape(found, (-1, *shape))

    return gather


def _shared(images, start, shape):
    """Returns a variable of some shape that shares the memory of an array from a byte on."""
    # Through ctypes, as numpy lends no memory that is read-only.
    memory = (ctypes.c_uint8 * math.prod(shape)).from_address(images.ctypes.data + start)
    memory.owner = images  # Lives as long as what shares its memory.
    tensor = tf.experimental.dlpack.from_dlpack(np.frombuffer(memory, "uint8").__dlpack__())

    def make():
        # A tensor that a function of tf.data uses is copied into graphs, and a variable isn't.
        with tf.device("CPU:0"):
            return tf.Variable(tf.reshape(tensor, shape), trainable=False)

    # In a thread of its own, outside of the scope of any strategy, which would make copies.
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(make).result()


def _checked_arrays(images, labels):
    """uint8 images and int32 labels or `None`."""
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8:
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


def finish(dataset, start_step):
    """Prefetching, the sharding that suits several workers, and where an endless set begins."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    # In TensorFlow 2.21 the end of an iterator often waits for the thread that tunes it, which by
    # then sleeps as long as the iterator has lived. Untuned, as many calls run as there are cores.
    options.autotune.enabled = False
    dataset = dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
    if start_step is not None:
        dataset.start_step = start_step  # For `TrainingCheckpoint`, which skips to its own step.
    return dataset
