"""The planted sets and their scores, by values that a person can count."""

import numpy as np
import planted
import pytest


def test_pairs_have_one_color_at_their_distances():
    images = planted.pairs(200, seed=0)
    assert images.shape == (200, 32, 32, 3) and images.dtype == np.uint8
    assert images.min() == 64 and images.max() == 192
    for rows, distance in ((slice(12, 20), 8), (slice(24, 32), 16), (slice(0, 8), 24)):
        columns = np.flatnonzero((images[0, rows] != 128).any(axis=(0, 2)))
        assert columns[-1] - columns[0] + 1 == distance + 8
    assert np.all(images[:, 8:12] == 128) and np.all(images[:, 20:24] == 128)
    np.testing.assert_array_equal(images[:, :8, :8], images[:, :8, 24:])
    for score in planted.score_pairs(images).values():
        assert score["agreement"] == 1 and score["spread"] == pytest.approx([1, 1], abs=0.1)
    # Pairs are independent of each other, and so are the halves of different images.
    images[:, :, 16:] = np.roll(images[:, :, 16:], 1, axis=0)
    assert all(abs(score["agreement"]) < 0.2 for score in planted.score_pairs(images).values())


def test_agreement_by_hand():
    left, right = np.array([[0.0], [2.0], [4.0]]), np.array([[1.0], [3.0], [8.0]])
    # The means are 2 and 4, the variances 8 / 3 and 26 / 3.
    # (0 - 2)(1 - 4) + (2 - 2)(3 - 4) + (4 - 2)(8 - 4) = 14, so the covariance is 14 / 3.
    # 2 * 14 / 3 / (8 / 3 + 26 / 3 + 4) = 28 / 46.
    assert planted.agreement(left, right)["agreement"] == pytest.approx(28 / 46)
    assert planted.agreement(left, left) == planted.agreement(left, left) | {"agreement": 1.0}


def test_a_collapse_has_no_agreement_and_no_spread():
    same = np.full((5, 3), 100.0)
    assert planted.agreement(same, same) == {"agreement": 0.0, "spread": [0.0, 0.0]}
    varied = np.arange(15.0).reshape(5, 3)
    assert planted.agreement(same, varied)["agreement"] == 0


def test_a_place_is_read_in_its_middle():
    images = np.zeros((1, 32, 32, 3), "uint8")
    images[0, 2:6, 26:30] = [10, 20, 30]
    images[0, 2, 26] = [26, 20, 30]  # One of sixteen pixels: 10 + 16 / 16.
    np.testing.assert_allclose(planted.read(images, (0, 24)), [[11, 20, 30]])


def test_figures_are_equal_to_their_mirror_images():
    images = planted.figures(100, seed=0)
    assert images.shape == (100, 32, 32, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images, images[:, :, ::-1])
    scores = planted.score_figures(images)
    assert scores.keys() == {"8", "24"}
    assert all(score["agreement"] == 1 for score in scores.values())
    assert planted.asymmetry(images) == 0
    images[:, :, 16:] = np.roll(images[:, :, 16:], 1, axis=0)
    assert all(abs(score["agreement"]) < 0.2 for score in planted.score_figures(images).values())


def test_asymmetry_by_hand():
    images = np.zeros((2, 1, 2, 1))
    images[0, 0, 1] = 10
    # The first differs from its mirror image by 10, the second by 0: 5 on average. The first and
    # the mirror image of the second, and the reverse, differ in one pixel of two: 5 too.
    assert planted.asymmetry(images) == 1
    assert planted.asymmetry(np.zeros((2, 1, 2, 1))) == 1
