"""The order of images: pinned, even, and the same as a tensor."""

import numpy as np
import pytest

from keras_sagan.data.order import is_flipped, is_flipped_tensor, permutation, permutation_tensor


def splitmix64(state, count):
    """The outputs of the generator as its authors wrote it, in Python's integers."""
    mask = 2**64 - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def test_the_oracle_gives_the_published_numbers():
    assert list(splitmix64(1234567, 3)) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_images_are_sorted_by_the_outputs_of_splitmix64():
    assert permutation(0, 0, 5).tolist() == [2, 4, 1, 0, 3]
    outputs = list(splitmix64(0, 99))
    assert permutation(0, 0, 99).tolist() == sorted(range(99), key=outputs.__getitem__)


def test_the_order_never_changes():
    # Pinned so that a run goes on in the same order under another release.
    assert permutation(1, 0, 8).tolist() == [1, 6, 0, 2, 7, 5, 3, 4]
    assert permutation(1, 1, 8).tolist() == [1, 4, 0, 6, 5, 3, 7, 2]
    assert permutation(2**31 - 1, 10**6, 8).tolist() == [1, 4, 5, 0, 2, 7, 6, 3]


def test_every_place_is_as_likely_for_every_image():
    count, epochs = 8, 4000
    places = np.stack([permutation(7, epoch, count) for epoch in range(epochs)])
    assert (np.sort(places, axis=1) == np.arange(count)).all()
    counts = np.stack([np.bincount(column, minlength=count) for column in places.T])
    expected = epochs / count
    # A chi-square of 49 degrees of freedom is beyond 100 once in 50,000 times.
    assert ((counts - expected) ** 2 / expected).sum() < 100
    # Neighbors in one epoch are no neighbors in the next, and seeds are independent.
    for other in (permutation(7, 1, 5000), permutation(8, 0, 5000)):
        assert abs(np.corrcoef(permutation(7, 0, 5000), other)[0, 1]) < 0.06


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_the_tensor_is_the_same(count):
    tf = pytest.importorskip("tensorflow")
    for seed, epoch in ((0, 0), (3, 1), (2**31 - 1, 2**40)):
        for result in (
            permutation_tensor(seed, epoch, count),
            tf.function(permutation_tensor)(tf.constant(seed), tf.constant(epoch, tf.int64), count),
        ):
            np.testing.assert_array_equal(result, permutation(seed, epoch, count))
        flipped = tf.function(is_flipped_tensor)(
            seed, tf.constant(epoch, tf.int64), tf.range(count)
        )
        np.testing.assert_array_equal(flipped, is_flipped(seed, epoch, np.arange(count)))
