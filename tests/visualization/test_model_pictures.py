"""Walks, truncation and neighbours: what is asked of the model, and what the picture shows."""

import numpy as np
import pytest

from keras_sagan.visualization import (
    draw_interpolation,
    draw_neighbours,
    draw_truncation,
    nearest_neighbours,
)
from keras_sagan.visualization.grid import read_image

Image = pytest.importorskip("PIL.Image")


class Stub:
    """Answers with flat grey images whose value counts the images asked for."""

    def __init__(self, num_classes=4):
        self.num_classes, self.calls = num_classes, []

    def flat(self, *counts):
        values = np.arange(np.prod(counts), dtype="uint8").reshape(*counts, 1, 1, 1) * 7
        return np.broadcast_to(values, (*counts, 64, 64, 1)).copy()

    def interpolate(self, rows, steps, **kwargs):
        self.calls.append(kwargs)
        return self.flat(rows, steps)

    def generate(self, num_images, labels=None, seed=None, truncation=None):
        self.calls.append({"labels": labels, "seed": seed, "truncation": truncation})
        return self.flat(num_images) + np.uint8(len(self.calls))


def test_a_walk_has_a_row_each_with_its_classes(tmp_path):
    stub = Stub()
    path = draw_interpolation(
        stub, tmp_path / "a.png", 2, 3, [0, 1], 1, class_names=["a", "b", "c", "d"], seed=4
    )
    assert stub.calls[0]["seed"] == 4 and stub.calls[0]["to_labels"] == 1
    picture = read_image(path)
    assert picture.shape[0] == 2 * 66 + 2 and picture.shape[1] > 3 * 66 + 2  # room for the names
    for row in range(2):
        for column in range(3):
            left = picture.shape[1] - (3 - column) * 66
            assert picture[row * 66 + 34, left + 30, 0] == 7 * (3 * row + column)


def test_a_gif_goes_there_and_back(tmp_path):
    path = draw_interpolation(Stub(None), tmp_path / "a.gif", rows=1, steps=4)
    with Image.open(path) as picture:
        seen = []
        for index in range(picture.n_frames):
            picture.seek(index)
            seen.append(np.asarray(picture.convert("L"))[30, 30])
    assert seen == [0, 7, 14, 21, 14, 7]


def test_classes_of_a_walk_are_spread(tmp_path):
    stub = Stub()
    draw_interpolation(stub, tmp_path / "a.png", rows=2, steps=2)
    assert stub.calls[0]["labels"].tolist() == [0, 2]


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`path` must end in .png or .gif. Received: path=.*a.jpg"):
        draw_interpolation(Stub(), tmp_path / "a.jpg")


def test_each_truncation_has_a_row_of_the_same_seed_and_classes(tmp_path):
    stub = Stub()
    path = draw_truncation(stub, tmp_path / "a.png", (0.5, None), columns=4, seed=2)
    assert [call["truncation"] for call in stub.calls] == [0.5, None]
    assert {call["seed"] for call in stub.calls} == {2}
    assert [call["labels"].tolist() for call in stub.calls] == [[0, 1, 2, 3]] * 2
    assert read_image(path).shape[0] == 2 * 66 + 2


def test_bad_truncations(tmp_path):
    with pytest.raises(ValueError, match="`truncations` must hold at least one"):
        draw_truncation(Stub(), tmp_path / "a.png", ())
    with pytest.raises(ValueError, match="`columns` must be an integer of at least 1"):
        draw_truncation(Stub(), tmp_path / "a.png", columns=0)


def test_neighbours_against_all_distances():
    rng = np.random.default_rng(0)
    images, real = (rng.integers(0, 256, (n, 4, 4, 1), "uint8") for n in (3, 20))
    project = rng.standard_normal((16, 5))
    indices, distances = nearest_neighbours(
        images, real, lambda x: np.asarray(x).reshape(len(x), -1) @ project, 4
    )
    flat = [(x.reshape(len(x), -1) / 127.5 - 1.0) @ project for x in (images, real)]
    expected = np.linalg.norm(flat[0][:, None] - flat[1][None], axis=-1)
    np.testing.assert_array_equal(indices, np.argsort(expected, axis=1)[:, :4])
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :4], rtol=1e-5)


def test_a_copy_is_at_distance_0_and_beside_itself(tmp_path):
    real = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 1), "uint8")
    new = np.full((1, 64, 64, 1), 128, "uint8")
    path, multiples = draw_neighbours(
        np.concatenate([real[7:8], new]), real, tmp_path / "a.png", num_neighbours=2
    )
    assert multiples[0] == 0.0 and 0.3 < multiples[1] < 1.0
    picture = read_image(path)
    left = picture.shape[1] - 2 * 66  # Two neighbours, at the right.
    cell = picture[-2 * 66 : -66 - 2, left : left + 64, :1]
    np.testing.assert_array_equal(cell, real[7])


def test_bad_neighbours(tmp_path):
    images = np.zeros((2, 4, 4, 1), "uint8")
    for count in (0, 3):
        with pytest.raises(ValueError, match="`num_neighbours` must be an integer from 1 to 2"):
            nearest_neighbours(images, images, num_neighbours=count)
    with pytest.raises(ValueError, match="`real_images` must hold at least 2 images"):
        draw_neighbours(images, images[:1], tmp_path / "a.png", num_neighbours=1)
