"""The planted sets and their scores, by values that a person can count."""

import numpy as np
import planted
import pytest


def test_pairs_agree_at_their_distances():
    images = planted.pairs(60, seed=0)
    assert images.shape == (60, 32, 32, 3) and images.dtype == np.uint8
    for rows, distance in ((slice(12, 20), 8), (slice(24, 32), 16), (slice(0, 8), 24)):
        columns = np.flatnonzero((images[0, rows] == 192).any(axis=(0, 2)))
        assert columns[-1] - columns[0] + 1 == distance + 8
    assert np.all(images[:, 8:12] == 64) and np.all(images[:, 20:24] == 64)
    np.testing.assert_array_equal(images[:, :8, :8], images[:, :8, 24:])
    for patch in images[:, :8, :8]:
        assert any(np.array_equal(patch, template) for template in planted.PATCHES)
    for score in planted.score_pairs(images).values():
        assert score["valid"] == score["agreement"] == score["kappa"] == 1
    # Pairs are independent of each other.
    shifted = np.concatenate([images[:, :, :16], np.roll(images[:, :, 16:], 1, axis=0)], axis=2)
    assert all(abs(score["kappa"]) < 0.3 for score in planted.score_pairs(shifted).values())


def kinds(*values, valid=True):
    return np.array(values), np.full(len(values), valid)


def test_agreement_beyond_chance_by_hand():
    found = planted.agreement(kinds(0, 0, 1, 1), kinds(0, 1, 1, 1), 8)
    # Left: half of each kind. Right: a quarter and three quarters. 0.5 * 0.25 + 0.5 * 0.75 = 0.5.
    assert found["left"][:2] == [0.5, 0.5] and found["right"][:2] == [0.25, 0.75]
    assert [found[key] for key in ("valid", "agreement", "chance", "kappa")] == [1, 0.75, 0.5, 0.5]


def test_a_collapse_shows_in_kappa_and_no_valid_patch_scores_0():
    found = planted.agreement(kinds(3, 3, 3), kinds(3, 3, 3), 8)
    assert found["agreement"] == found["chance"] == 1 and found["kappa"] == 0
    found = planted.agreement(kinds(3, 3, 3), kinds(3, 3, 3, valid=False), 8)
    assert found["valid"] == found["agreement"] == found["kappa"] == 0


def test_a_patch_is_valid_if_no_other_template_can_be_as_near():
    first, second = planted.PATCHES[[0, 4]].astype("float32")  # A red ring and a red plus.
    # They differ in 32 pixels of one channel, and no two templates are nearer.
    assert np.linalg.norm(first - second) == pytest.approx(128 * np.sqrt(32))
    images = np.full((4, 16, 16, 3), 128, "float32")
    patches = [0.6 * first + 0.4 * second, 0.5 * first + 0.5 * second, 0.4 * first + 0.6 * second]
    images[:3, 2:10, 2:10] = patches
    images[3, 4:12, 1:9] = second  # Two rows below its place and one column to the left.
    found, valid = planted.read(images, (2, 2), planted.PATCHES)
    assert found[[0, 2, 3]].tolist() == [0, 4, 4] and valid.tolist() == [True, False, True, True]
    assert not planted.read(images, (2, 5), planted.PATCHES)[1].any()


def test_figures_are_equal_to_their_mirror_images():
    images = planted.figures(40, seed=0)
    np.testing.assert_array_equal(images, images[:, :, ::-1])
    scores = planted.score_figures(images)
    assert scores.keys() == {"8", "24"}
    assert all(score["agreement"] == score["kappa"] == 1 for score in scores.values())
    assert planted.asymmetry(images) == 0
    # If the right halves belong to other figures, the outer cells agree by chance only.
    images[:, :, 16:] = np.roll(images[:, :, 16:], 1, axis=0)
    assert planted.score_figures(images)["24"]["kappa"] < 0.3


def test_asymmetry_by_hand():
    images = np.zeros((2, 1, 2, 1))
    images[0, 0, 1] = 10
    # The first differs from its mirror image by 10, the second by 0: 5 on average. The first and
    # the mirror image of the second, and the reverse, differ in one pixel of two: 5 too.
    assert planted.asymmetry(images) == 1
    assert planted.asymmetry(np.zeros((2, 1, 2, 1))) == 1
