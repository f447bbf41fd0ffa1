"""Two replicas for the tests of a process."""

import functools


@functools.cache  # A second strategy in one process would reuse the first one's collective keys.
def two_replicas():
    """Returns a `MirroredStrategy` over the two logical CPU devices of `conftest.py`."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
