import sys

import numpy as np
import pytest

from keras_sagan.visualization import attention_overlay, choose_query_points, plot_attention
from keras_sagan.visualization.attention import DOT_COLORS, blend_overlay, caption, color_limit

matplotlib = pytest.importorskip("matplotlib")


def random_images(count, size=32, channels=1):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), "uint8")


def uniform_scores(count, query_size, key_size):
    shape = (count, query_size, query_size, key_size, key_size)
    return np.full(shape, 1 / key_size**2, "float32")


# (image size, query grid, pool): pool 1 has a key for each query, pool 2 one for each 2 × 2.
@pytest.mark.parametrize(
    "size, query_size, pool", [(32, 8, 1), (32, 16, 2), (32, 32, 2), (64, 8, 2)]
)
def test_a_planted_delta_covers_exactly_its_pixels(size, query_size, pool):
    key_size = query_size // pool
    block = size // key_size
    for row, column in [(0, 0), (key_size - 1, 0), (1, key_size - 2)]:
        scores_row = np.zeros((key_size, key_size), "float32")
        scores_row[row, column] = 1.0
        expected = np.zeros((size, size), "float32")
        expected[row * block : (row + 1) * block, column * block : (column + 1) * block] = 1.0
        np.testing.assert_array_equal(attention_overlay(scores_row, size), expected)


def test_overlay_of_an_oblong_image():
    overlay = attention_overlay([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], (4, 6))
    assert overlay.shape == (4, 6) and overlay.dtype == np.float32
    assert overlay[:, ::2].tolist() == [[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]]


@pytest.mark.parametrize("image_size", [30, 4, (32, 30), (32, 32, 3), 0])
def test_image_sizes_that_are_no_multiple_are_refused(image_size):
    with pytest.raises(ValueError, match="`image_size` must be a multiple of the key grid, 8 × 8"):
        attention_overlay(np.zeros((8, 8)), image_size)


@pytest.mark.parametrize("shape", [(8,), (1, 8, 8), (0, 8)])
def test_scores_rows_of_another_rank_are_refused(shape):
    with pytest.raises(ValueError, match=r"`scores_row` must have shape \(key_h, key_w\)"):
        attention_overlay(np.zeros(shape), 32)


def test_points_lie_on_contrast_and_apart():
    image = np.full((32, 32, 3), 10, "uint8")
    image[4:8, 4:8] = 255
    image[22:26, 22:26] = 255
    points = choose_query_points(image, 2)
    near = sorted(
        min(np.hypot(*(point - corner)) for point in points) for corner in [(6, 6), (24, 24)]
    )
    assert points.shape == (2, 2) and near[1] < 5


def test_points_of_a_flat_image_spread_out():
    points = choose_query_points(np.zeros((32, 32, 1), "uint8"), 4)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert distances[np.triu_indices(4, 1)].min() > 10


def test_points_of_tiny_images_lie_inside():
    points = choose_query_points(random_images(1, size=4)[0], 3)
    assert points.min() >= 0 and points.max() < 4


def test_points_need_a_count_and_an_image():
    with pytest.raises(ValueError, match="`num_points` must be.*Received: num_points=0"):
        choose_query_points(random_images(1)[0], 0)
    with pytest.raises(ValueError, match="`image` must be uint8"):
        choose_query_points(np.zeros((8, 8, 1)), 1)


def test_caption_of_uniform_and_of_one_hot_scores():
    assert caption(np.full((4, 4), 1 / 16)) == "max 0.062 = 1 × uniform\nentropy 100.0 % of uniform"
    one_hot = np.zeros((4, 4))
    one_hot[1, 2] = 1.0
    assert caption(one_hot) == "max 1 = 16 × uniform\nentropy 0.0 % of uniform"
    assert caption(np.ones((1, 1))) == "max 1 = 1 × uniform\nentropy 0, one key"


def test_black_images_show_the_colours_of_the_scale():
    blended = blend_overlay(np.zeros((4, 4, 1), "uint8"), np.array([[0.8, 0.1], [0.1, 0.0]]), 3.2)
    scale = matplotlib.colormaps["inferno"]
    np.testing.assert_allclose(blended[0, 0], scale(1.0)[:3])
    np.testing.assert_allclose(blended[3, 3], scale(0.0)[:3])
    np.testing.assert_allclose(blended[0, 3], scale(0.125)[:3])


def test_the_scale_ends_at_the_median_maximum_and_not_below_four():
    assert color_limit(np.full((1, 3, 4, 4), 1 / 16)) == 4.0
    sharp = np.zeros((1, 3, 4, 4))
    for point, maximum in enumerate([1.0, 0.5, 0.25]):
        sharp[0, point, 0, 0] = maximum
    assert color_limit(sharp) == 8.0


def panels(figure, rows, columns):
    """The axes of the panels, without the colour bar."""
    return np.array(figure.axes[: rows * columns]).reshape(rows, columns)


@pytest.mark.parametrize("query_size, key_size", [(16, 8), (8, 8), (32, 16)])
def test_the_figure_shows_the_row_under_the_dot(query_size, key_size):
    scores = uniform_scores(1, query_size, key_size)
    row, column = 20, 9
    cell = (row * query_size // 32, column * query_size // 32)
    scores[0, cell[0], cell[1]] = 0.0
    scores[0, cell[0], cell[1], 1, key_size - 2] = 1.0
    images = np.zeros((1, 32, 32, 1), "uint8")
    figure = plot_attention(images, scores, query_points=[(row, column)])
    picture, overlay = panels(figure, 1, 2)[0]
    shown = np.asarray(overlay.images[0].get_array()).sum(axis=-1)
    block = 32 // key_size
    expected = np.zeros((32, 32), bool)
    expected[block : 2 * block, (key_size - 2) * block : (key_size - 1) * block] = True
    np.testing.assert_array_equal(shown > 1.0, expected)
    for axes in (picture, overlay):
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[column, row]])
        assert axes.lines[0].get_markerfacecolor() == DOT_COLORS[0]
    assert overlay.get_xlabel() == f"max 1 = {key_size**2} × uniform\nentropy 0.0 % of uniform"


def test_the_row_under_the_dot_of_an_image_that_is_no_square():
    scores = np.full((1, 2, 2, 2, 2), 0.25, "float32")
    scores[0, 1, 0] = [[0.0, 1.0], [0.0, 0.0]]
    figure = plot_attention(np.zeros((1, 16, 32, 1), "uint8"), scores, query_points=[(9, 12)])
    overlay = panels(figure, 1, 2)[0, 1]
    assert overlay.get_xlabel() == "max 1 = 4 × uniform\nentropy 0.0 % of uniform"


def test_points_for_each_image_and_a_file_with_whole_pixels(tmp_path):
    path = tmp_path / "new" / "attention.png"
    points = np.array([[(0, 0), (31, 31)], [(5, 6), (7, 8)]])
    figure = plot_attention(
        random_images(2, channels=3),
        uniform_scores(2, 8, 4),
        points,
        path=path,
        title="Title",
        row_labels=["one", "two"],
    )
    grid = panels(figure, 2, 3)
    np.testing.assert_array_equal(grid[1, 2].lines[0].get_xydata(), [[8, 7]])
    assert grid[1, 0].get_ylabel() == "two"
    for number in (0, 1):  # The frame of each overlay has the colour of its dot.
        frames = {spine.get_edgecolor() for spine in grid[1, 1 + number].spines.values()}
        assert frames == {matplotlib.colors.to_rgba(DOT_COLORS[number])}
        assert grid[1, 0].lines[number].get_markerfacecolor() == DOT_COLORS[number]
    pixels = np.asarray(pytest.importorskip("PIL.Image").open(path))
    # Each image pixel is drawn 7 × 7: the middle of the first panel shows it, unblended.
    box = grid[0, 0].get_position()
    left, top = round(box.x0 * pixels.shape[1]), round((1 - box.y1) * pixels.shape[0])
    seen = pixels[top + 3 : top + 224 : 7, left + 3 : left + 224 : 7, :3]
    np.testing.assert_array_equal(seen[8:24, 8:24], random_images(2, channels=3)[0, 8:24, 8:24])


def test_nothing_is_drawn_outside_the_figure():
    figure = plot_attention(
        random_images(2),
        uniform_scores(2, 8, 4),
        num_points=1,
        title="A long title " * 9,
        row_labels=["a name that is much longer than the image is high", "x"],
    )
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_more_points_than_colours():
    assert len(plot_attention(random_images(1), uniform_scores(1, 4, 2), num_points=9).axes) == 11


@pytest.mark.parametrize("shape", [(2, 8, 8, 4, 4), (1, 8, 8, 16), (0, 8, 8, 4, 4)])
def test_scores_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="`scores` must have shape.*Received: scores of shape"):
        plot_attention(random_images(1), np.zeros(shape))


@pytest.mark.parametrize("query_size, key_size", [(7, 4), (8, 3), (64, 32)])
def test_grids_that_do_not_divide_the_image_are_refused(query_size, key_size):
    with pytest.raises(ValueError, match="`images` must be a whole number of query and key cells"):
        plot_attention(random_images(1), uniform_scores(1, query_size, key_size))


@pytest.mark.parametrize("factor", [0.5, -1.0, np.nan])
def test_scores_that_are_no_distribution_are_refused(factor):
    with pytest.raises(ValueError, match="`scores` must not be negative and must sum to 1"):
        plot_attention(random_images(1), uniform_scores(1, 8, 4) * factor)


@pytest.mark.parametrize("points", [[1, 2], [[1.0, 2.0]], [[1, 2, 3]], [[[1, 2]]] * 3, []])
def test_points_of_another_shape_are_refused(points):
    with pytest.raises(ValueError, match="`query_points` must be integers of shape"):
        plot_attention(random_images(1), uniform_scores(1, 8, 4), points)


@pytest.mark.parametrize("points", [[(32, 0)], [(0, 32)], [(-1, 0)]])
def test_points_outside_the_image_are_refused(points):
    with pytest.raises(ValueError, match="`query_points` must be .* inside the image, 32 × 32"):
        plot_attention(random_images(1), uniform_scores(1, 8, 4), points)


def test_each_image_needs_its_label():
    with pytest.raises(ValueError, match="`row_labels` must name each of the 1 images"):
        plot_attention(random_images(1), uniform_scores(1, 8, 4), row_labels=["a", "b"])


def test_without_matplotlib_the_pip_line_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match='matplotlib(.|\n)*\npip install "\\.\\[plot\\]"$'):
        plot_attention(random_images(1), uniform_scores(1, 8, 4))


def test_pyplot_is_not_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now raises
    assert len(plot_attention(random_images(1), uniform_scores(1, 8, 4)).axes) == 5
