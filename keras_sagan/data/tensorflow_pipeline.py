"""The `tf.data` pipelines of the TensorFlow backend."""

import atexit
import functools
import time

from keras_sagan.lazy import tf


def make_tensorflow(batches, repeat):
    """Returns a function that takes a step and returns the dataset starting at this step."""
    _end_reading_at_exit()
    types, shapes = [tf.uint8], [(batches.batch_size, *batches.images.shape[1:])]
    if batches.labels is not None:
        types, shapes = [*types, tf.int32], [*shapes, (batches.batch_size,)]

    def read(step):
        parts = tf.numpy_function(lambda step: batches(int(step)), [step], types)
        parts = [tf.ensure_shape(part, shape) for part, shape in zip(parts, shapes)]
        return tuple(parts) if len(parts) > 1 else parts[0]

    def make(start_step):
        count, end = tf.data.INFINITE_CARDINALITY, 2**62
        if not repeat:
            end = (start_step // batches.steps + 1) * batches.steps
            count = end - start_step
        dataset = tf.data.Dataset.range(start_step, end).map(read)
        return finish(dataset.apply(tf.data.experimental.assert_cardinality(count)))

    return make


@functools.cache
def _end_reading_at_exit():
    # At exit, wait until TensorFlow's threads have filled the tf.data buffers. A thread that still
    # calls Python after the interpreter has stopped could block the process forever.
    atexit.register(time.sleep, 0.2)


def finish(dataset):
    """Adds prefetching, and sharding for several workers."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    # In TensorFlow 2.21, deleting an iterator may wait for its tuning thread, which can sleep for
    # as long as the iterator has existed. Without tuning, `AUTOTUNE` runs one call per core.
    options.autotune.enabled = False
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
