"""The planted sets and their scores, by values that a person can count."""

import numpy as np
import planted
import pytest


def test_pairs_agree_at_their_distance():
    images, labels = planted.pairs(60, seed=0)
    assert images.shape == (60, 32, 32, 3) and images.dtype == np.uint8
    assert set(labels) == {0, 1, 2} and labels.dtype == np.int32
    for image, label in zip(images, labels):
        columns = np.flatnonzero(image.any(axis=(0, 2)))
        assert columns[-1] - columns[0] + 1 == planted.DISTANCES[label] + 8
    for score in planted.score_pairs(images, labels).values():
        assert score["valid"] == score["agreement"] == score["kappa"] == 1


def test_a_pair_is_two_copies_of_a_template():
    images, labels = planted.pairs(20, seed=1)
    which = np.flatnonzero(labels == 2)[0]
    image = images[which]
    np.testing.assert_array_equal(image[12:20, :8], image[12:20, 24:])
    assert any(np.array_equal(image[12:20, :8], patch) for patch in planted.PATCHES)
    assert not image[:12].any() and not image[20:].any() and not image[:, 8:24].any()


def test_agreement_beyond_chance_by_hand():
    left, right = planted.PATCHES[[0, 0, 1, 1]], planted.PATCHES[[0, 1, 1, 1]]
    found = planted.agreement(left, right, planted.PATCHES)
    # Left: half of each kind. Right: a quarter and three quarters. 0.5 * 0.25 + 0.5 * 0.75 = 0.5.
    assert found["left"][:2] == [0.5, 0.5] and found["right"][:2] == [0.25, 0.75]
    assert [found[key] for key in ("valid", "agreement", "chance", "kappa")] == [1, 0.75, 0.5, 0.5]


def test_a_collapse_shows_in_kappa_and_no_valid_patch_scores_0():
    same = planted.PATCHES[[3] * 5]
    found = planted.agreement(same, same, planted.PATCHES)
    assert found["agreement"] == found["chance"] == 1 and found["kappa"] == 0
    gray = np.full((5, 8, 8, 3), 128, "uint8")
    found = planted.agreement(same, gray, planted.PATCHES)
    assert found["valid"] == found["agreement"] == found["kappa"] == 0


def test_a_patch_is_valid_if_no_other_template_can_be_as_near():
    first, second = planted.PATCHES[[0, 4]].astype("float64")  # A red ring and a red plus.
    # They differ in 32 pixels of one channel, and no two templates are nearer.
    assert np.linalg.norm(first - second) == pytest.approx(255 * np.sqrt(32))
    patches = [0.6 * first + 0.4 * second, 0.5 * first + 0.5 * second, 0.4 * first + 0.6 * second]
    kinds, valid = planted.read(patches, planted.PATCHES)
    assert kinds[0] == 0 and kinds[2] == 4 and valid.tolist() == [True, False, True]


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
