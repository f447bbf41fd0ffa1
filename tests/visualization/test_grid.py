import errno
import sys

import numpy as np
import pytest

from keras_sagan.visualization import image_grid, sample_grid, save_image
from keras_sagan.visualization.grid import grid_shape


def numbered_images(count, height=4, width=5, channels=3):
    """Images whose pixels are all 10 × their index, plus 1."""
    values = np.arange(count, dtype="uint8").reshape(-1, 1, 1, 1) * 10 + 1
    return np.broadcast_to(values, (count, height, width, channels)).copy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 3])
def test_every_image_lies_in_its_cell_on_white(channels, scale):
    grid = image_grid(numbered_images(5, channels=channels), columns=3, padding=2, scale=scale)
    step_y, step_x = 4 * scale + 2, 5 * scale + 2
    assert grid.shape == (2 * step_y + 2, 3 * step_x + 2, channels)
    assert grid.dtype == np.uint8
    painted = np.full_like(grid, 255)
    for index in range(5):
        top, left = index // 3 * step_y + 2, index % 3 * step_x + 2
        painted[top : top + 4 * scale, left : left + 5 * scale] = index * 10 + 1
    np.testing.assert_array_equal(grid, painted)


def test_enlarging_repeats_pixels():
    image = np.arange(12, dtype="uint8").reshape(1, 3, 4, 1)
    grid = image_grid(image, padding=0, scale=2)
    np.testing.assert_array_equal(grid[::2, ::2], image[0])
    np.testing.assert_array_equal(grid[1::2, 1::2], image[0])


def test_images_without_a_channel_axis():
    assert image_grid(np.zeros((4, 8, 8), "uint8"), padding=0).shape == (16, 16, 1)


@pytest.mark.parametrize(
    "count, rows, columns, expected",
    [
        (1, None, None, (1, 1)),
        (10, None, None, (3, 4)),
        (100, None, None, (10, 10)),
        (9, 2, None, (2, 5)),
        (7, None, 3, (3, 3)),
        (4, 3, 3, (3, 3)),
    ],
)
def test_grid_shape(count, rows, columns, expected):
    assert grid_shape(count, rows, columns) == expected


def test_too_few_cells_are_refused():
    with pytest.raises(ValueError, match="`rows` and `columns`.*Received: rows=2, columns=2"):
        image_grid(numbered_images(5), rows=2, columns=2)


@pytest.mark.parametrize("name, value", [("padding", -1), ("scale", 0), ("rows", 0)])
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be.*Received: {name}={value}"):
        image_grid(numbered_images(2), **{name: value})


@pytest.mark.parametrize("value", [1.5, True, "2"])
def test_numbers_that_are_not_integers_are_refused(value):
    with pytest.raises(ValueError, match="`scale` must be an integer"):
        image_grid(numbered_images(2), scale=value)


def test_float_images_are_refused():
    with pytest.raises(ValueError, match=r"`images` must be uint8 in \[0, 255\].*float32"):
        image_grid(np.zeros((2, 4, 4, 3), "float32"))


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4, 2), (0, 4, 4, 3), (1, 2, 4, 4, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="`images` must hold at least one image"):
        image_grid(np.zeros(shape, "uint8"))


def test_sample_grid_enlarges_small_images_and_leaves_large_ones():
    assert sample_grid(np.zeros((1, 32, 32, 3), "uint8")).shape == (68, 68, 3)
    assert sample_grid(np.zeros((1, 128, 128, 3), "uint8")).shape == (132, 132, 3)


def test_row_labels_stand_beside_an_unchanged_grid():
    images = numbered_images(6, 32, 32, 1)
    plain = sample_grid(images, columns=3)
    labelled = sample_grid(images, ["T-shirt/top", "Bag"])
    assert labelled.shape[0] == plain.shape[0] and labelled.shape[2] == 3
    np.testing.assert_array_equal(labelled[:, -plain.shape[1] :], plain.repeat(3, axis=-1))
    margin = labelled[:, : -plain.shape[1]]
    assert margin[:68].min() < 128 and margin[68:].min() < 128  # each row has ink
    assert margin[:, :3].min() == 255 and margin[:, -3:].min() == 255  # and none is cut off


def test_each_row_needs_its_label():
    with pytest.raises(ValueError, match="`row_labels` must name each of the 2 rows"):
        sample_grid(numbered_images(6), ["one", "two", "three"], columns=3)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3)])
def test_saved_pixels_are_read_back(tmp_path, shape):
    pillow = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    save_image(tmp_path / "new" / "image.png", image)
    read = np.asarray(pillow.open(tmp_path / "new" / "image.png"))
    np.testing.assert_array_equal(read, image[..., 0] if shape[-1] == 1 else image)
    save_image(tmp_path / "half.png", image[::-1, ::2])  # Not contiguous.
    np.testing.assert_array_equal(np.asarray(pillow.open(tmp_path / "half.png")), read[::-1, ::2])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4)), "be uint8.*Received: image of dtype=float64"),
        (np.zeros((4, 4, 4), "uint8"), "hold at least one image.*Received: a batch of shape"),
        (np.zeros((1, 4, 4, 3), "uint8"), "hold at least one image.*Received: a batch of shape"),
        (np.zeros(4, "uint8"), "hold at least one image.*Received: a batch of shape"),
        (np.zeros((0, 4), "uint8"), "hold at least one image.*Received: a batch of shape"),
    ],
)
def test_images_that_cannot_be_saved_are_refused(tmp_path, image, message):
    with pytest.raises(ValueError, match=f"`image` must {message}"):
        save_image(tmp_path / "image.png", image)


def test_without_pillow_the_pip_line_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match='pillow(.|\n)*\npip install "\\.\\[plot\\]"$'):
        save_image(tmp_path / "image.png", np.zeros((4, 4), "uint8"))


def test_an_error_of_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def save(image, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", save)
    with pytest.raises(OSError, match="No space left on device.*new/one.png") as caught:
        save_image(tmp_path / "new" / "one.png", np.zeros((2, 2), "uint8"))
    assert caught.value.errno == errno.ENOSPC
