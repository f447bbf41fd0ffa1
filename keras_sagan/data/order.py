"""The order of images in an epoch, which is the same on every backend, machine and version."""

import numpy as np

from keras_sagan.lazy import tf

ORDERS = ("splitmix64", "index_shuffle")


def permutation(seed, epoch, count, order=ORDERS[0]):
    """Returns the order of images in an epoch, which depends only on the arguments.

    Images are sorted by a key. The key of image `i` is output `i` of the random generator
    SplitMix64, whose seed is a hash of `seed` and `epoch`. All keys are different, so the order is
    unique. For seed 0 and epoch 0, the generator's initial state is 0, and its first outputs are
    e220a839…, 6e789e6a…, 06c45d18…, f88bb8a8… and 1b39896a…:

    >>> permutation(seed=0, epoch=0, count=5)
    array([2, 4, 1, 0, 3])

    Reference: Steele et al., 2014, Fast Splittable Pseudorandom Number Generators.
    """
    if order != ORDERS[0]:
        return permutation_tensor(seed, epoch, count, order).numpy()
    seed, epoch = (np.array([number], "uint64") for number in (seed, epoch))
    return np.argsort(_outputs(seed, epoch, np.arange(count, dtype="uint64"))).astype("int64")


def permutation_tensor(seed, epoch, count, order="splitmix64"):
    """Returns an order as an int64 tensor, from SplitMix64 or TensorFlow's `index_shuffle`."""
    numbers = tf.range(count, dtype=tf.int64)
    if order == "index_shuffle":
        key = tf.stack([tf.cast(seed, tf.uint32), tf.cast(epoch, tf.uint32)])
        return tf.random.experimental.index_shuffle(numbers, key, tf.cast(count - 1, tf.int64))
    seed, epoch, numbers = (tf.cast(number, tf.uint64) for number in (seed, epoch, numbers))
    return tf.cast(tf.argsort(_outputs(seed, epoch, numbers)), tf.int64)


def is_flipped(seed, epoch, indices):
    """Returns whether each image is mirrored in an epoch; approximately half of the images are.

    An image is mirrored if the highest bit of its SplitMix64 output is 1. The generator's seed is
    increased by 2^31, because permutations use the seeds below 2^31.

    >>> is_flipped(seed=0, epoch=0, indices=np.arange(5)).tolist()
    [True, True, True, False, False]
    """
    seed, epoch = (np.array([number], "uint64") for number in (seed + 2**31, epoch))
    return _outputs(seed, epoch, indices.astype("uint64")) // 2**63 == 1


def is_flipped_tensor(seed, epoch, indices):
    """Returns `is_flipped` as a tensor."""
    seed, epoch, indices = (tf.cast(x, tf.uint64) for x in (seed + 2**31, epoch, indices))
    return _outputs(seed, epoch, indices) // 2**63 == 1


def _outputs(seed, epoch, numbers):
    """Returns SplitMix64's outputs at the given positions, for uint64 arrays or tensors."""
    start = _mixed(_mixed(seed) ^ epoch)
    return _mixed(start + (numbers + 1) * 0x9E3779B97F4A7C15)


def _mixed(x):
    x = (x ^ (x // 2**30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x // 2**27)) * 0x94D049BB133111EB
    return x ^ (x // 2**31)
