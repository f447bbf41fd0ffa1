"""The `tf.data` pipelines of the TensorFlow backend."""

import atexit
import concurrent.futures
import ctypes
import functools
import math
import time

import numpy as np

from keras_sagan.data.folder import StreamedImages
from keras_sagan.data.order import is_flipped_tensor, permutation_tensor
from keras_sagan.lazy import tf

_ALIGNMENT = 64  # Bytes. TensorFlow aligns every tensor.


def make_tensorflow(images, labels, batch_size, seed, shuffle, repeat, order, flip):
    """Returns a function from a step to the `tf.data.Dataset` from there on."""
    steps = len(images) // batch_size
    labels = None if labels is None else tf.constant(labels)
    is_streamed = isinstance(images, StreamedImages)
    gather = _reader(images) if is_streamed else _gatherer(images)
    shape = (batch_size, *images.shape[1:])

    def elements_of(epoch):
        indices = tf.range(len(images), dtype=tf.int64)
        if shuffle:
            indices = permutation_tensor(seed, epoch, len(images), order)
        indices = tf.reshape(indices[: steps * batch_size], (steps, batch_size))
        return (indices, is_flipped_tensor(seed, epoch, indices)) if flip else (indices,)

    def batch_of(indices, is_flipped=None):
        batch = tf.ensure_shape(gather(indices), shape)
        if flip:
            is_flipped = is_flipped[:, None, None, None]
            batch = tf.where(is_flipped, tf.reverse(batch, [2]), batch)
        return batch if labels is None else (batch, tf.gather(labels, indices))

    def make(start_step):
        epoch, skipped = divmod(start_step, steps)
        count, end = tf.data.INFINITE_CARDINALITY, 2**62
        if not repeat:
            count, end = steps - skipped, epoch + 1
        # The order of the next epoch is computed in the background.
        dataset = tf.data.Dataset.range(epoch, end).map(elements_of).prefetch(1)
        dataset = dataset.flat_map(lambda *x: tf.data.Dataset.from_tensor_slices(x)).skip(skipped)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
        calls = 1 if is_streamed else tf.data.AUTOTUNE
        return finish(dataset.map(batch_of, num_parallel_calls=calls, deterministic=True))

    return make


@functools.cache
def _end_reading_at_exit():
    # At exit the threads of `StreamedImages` end, and each read fails at once. While the process
    # waits here, the buffers of tf.data fill with errors. Otherwise a thread of TensorFlow could
    # call Python later and block the process forever.
    atexit.register(time.sleep, 0.2)


def _reader(images):
    """Returns a function from indices to the images at them, which Python reads from disk."""
    _end_reading_at_exit()
    return lambda indices: tf.numpy_function(images.__getitem__, [indices], tf.uint8)


def _gatherer(images):
    """Returns a function from indices to the images at them, without a copy of all images.

    `tf.constant` would copy the array. A tensor that shares its memory must begin at a multiple of
    64 bytes, and the first image may not. So each row of the tensor begins a few bytes into an
    image, and only those first bytes of each image are copied.
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
        is_last = indices[:, None] == count - 1  # The tensor has no row for the last image.
        found = tf.cond(
            tf.reduce_any(is_last), lambda: tf.where(is_last, last, found), lambda: found
        )
        return tf.reshape(found, (-1, *shape))

    return gather


def _shared(images, start, shape):
    """Returns a variable that shares the memory of an array from a byte on."""
    # Through ctypes, because numpy doesn't export read-only memory.
    memory = (ctypes.c_uint8 * math.prod(shape)).from_address(images.ctypes.data + start)
    memory.owner = images  # Lives as long as the memory is shared.
    tensor = tf.experimental.dlpack.from_dlpack(np.frombuffer(memory, "uint8").__dlpack__())

    def make():
        # tf.data copies the tensors that its functions use into graphs, but not variables.
        with tf.device("CPU:0"):
            return tf.Variable(tf.reshape(tensor, shape), trainable=False)

    # In another thread, outside the scope of any strategy, which would make copies.
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(make).result()


def finish(dataset):
    """Adds prefetching, and sharding for several workers."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    # In TensorFlow 2.21 the end of an iterator often waits for its tuning thread, which sleeps as
    # long as the iterator has lived. Without tuning, one call runs per core.
    options.autotune.enabled = False
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
