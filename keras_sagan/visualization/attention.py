"""The figure of the SAGAN paper: where a layer looks when it draws a point."""

import math

import numpy as np

from keras_sagan.checks import (
    check_list,
    check_pair,
    check_path,
    check_string,
    require,
)
from keras_sagan.visualization.fonts import drawable_names
from keras_sagan.visualization.grid import check_images
from keras_sagan.visualization.optional import new_figure, parent_made
from keras_sagan.visualization.query_points import (
    check_images_count,
    check_points,
    check_points_count,
)

# Colours that people with any colour vision tell apart: orange, sky blue and bluish green first.
# Okabe and Ito, "Color Universal Design", 2008, without black, and yellow last.
DOT_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442")
COLOR_MAP = "inferno"
PANEL_PIXELS = 224
DPI = 200
# The colour scale reaches at least so many times uniform attention.
LEAST_LIMIT = 4.0


def attention_overlay(scores_row, image_size):
    """Lays one row of attention scores over the image it belongs to.

    Key cell (i, j) covers exactly the image pixels that it was pooled from, so nothing is blended:
    with a 16 × 16 key grid and 32 × 32 pixels each score fills a block of 2 × 2.

    Args:
        scores_row: Float array of shape `(key_h, key_w)`: one query's scores, on the key grid.
        image_size: Integer, or a pair of integers `(height, width)`. The image in pixels.

    Returns:
        float32 array of shape `(height, width)`: at each pixel the score of its key cell.

    Raises:
        ValueError: If `scores_row` isn't a matrix, or the image isn't a whole number of key cells.

    Example:

    >>> import numpy as np
    >>> attention_overlay(np.array([[0.7, 0.1], [0.1, 0.1]]), 4)[:, 0].tolist()
    [0.699999988079071, 0.699999988079071, 0.10000000149011612, 0.10000000149011612]
    """
    scores_row = np.asarray(scores_row, "float32")
    if scores_row.ndim != 2 or scores_row.size == 0:
        raise ValueError(
            "`scores_row` must have shape (key_h, key_w). "
            f"Received: scores_row of shape={scores_row.shape}"
        )
    key_h, key_w = scores_row.shape
    expected = f"a multiple of the key grid, {key_h} × {key_w}"
    size = check_pair("image_size", image_size, expected)
    if size[0] % key_h or size[1] % key_w:
        raise ValueError(f"`image_size` must be {expected}. Received: image_size={image_size!r}")
    return scores_row.repeat(size[0] // key_h, axis=0).repeat(size[1] // key_w, axis=1)


def plot_attention(
    images,
    scores,
    query_points=None,
    num_points=3,
    path=None,
    title=None,
    row_labels=None,
):
    """Draws where attention looks from a few points of each image.

    Each row is one image with coloured dots, then one map for each dot, framed in its colour: the
    scores of the query under the dot, on the key grid, over the greyed image. One colour scale
    holds for all maps: multiples of uniform attention, `1 / (key_h * key_w)`, up to the median of
    the maps' maxima and at least 4, so that attention that looks nowhere in particular stays dark.
    Captions give each maximum, and the entropy as a share of `log(key_h * key_w)`.

    Args:
        images: uint8 array in [0, 255] of shape `(batch, height, width, channels)` with 1 or 3
            channels, at most 50.
        scores: Float array of shape `(batch, h, w, key_h, key_w)`: for each query location the
            scores over the keys, which sum to 1. The image must be a whole number of cells of
            both grids.
        query_points: Integer array of shape `(points, 2)`, for every image, or
            `(batch, points, 2)`: (row, column) in image pixels. Defaults to `None`: chosen by
            `choose_query_points`.
        num_points: Integer. How many points to choose where none are given, at most 32. Defaults to
            `3`.
        path: String or path. Where to write the figure, as PNG, PDF or SVG. Defaults to `None`:
            not written.
        title: String. Written above the figure. Defaults to `None`.
        row_labels: List of strings, one for each image, written to its left. Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If a shape, dtype or point isn't as above, or scores don't sum to 1.
        ImportError: If matplotlib isn't installed.

    Example:

    ```python
    images, maps = model.attention_maps(latents[:4], labels[:4])
    plot_attention(images, maps["self_attention"], path="runs/attention.png")
    ```

    Reference:

    - [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), figures 1 and 5.
    """
    num_points = check_points_count(num_points)
    path = check_path("path", path, optional=True)
    title = check_string("title", title, optional=True)
    row_labels = check_list("row_labels", row_labels, optional=True)
    images = check_images(images)
    scores = check_scores(scores, images)
    check_images_count(len(images), "images")
    points = check_points(query_points, images, num_points)
    if row_labels is not None and len(row_labels) != len(images):
        raise ValueError(
            f"`row_labels` must name each of the {len(images)} images. "
            f"Received: row_labels={row_labels!r}"
        )
    row_labels = drawable_names(row_labels, "row_labels", "row")
    rows = scores_under_points(scores, points, images.shape)
    limit = color_limit(rows)
    layout = Layout(images.shape, points.shape[1], title, row_labels)
    figure = new_figure(layout.width / DPI, layout.height / DPI, DPI)
    if title is not None:
        figure.text(
            layout.left / layout.width,
            1 - layout.margin / layout.height,
            title,
            fontsize=fitted_size(title, 8.5, layout.panels_right - layout.left),
            fontweight="bold",
            va="top",
            parse_math=False,
        )
    for index, image in enumerate(images):
        axes = add_panel(figure, layout, index, 0, as_rgb(image))
        draw_dots(axes, points[index], layout)
        if row_labels is not None:
            label = row_labels[index]
            size = fitted_size(label, 7, layout.row_step)
            axes.set_ylabel(label, fontsize=size, labelpad=5, parse_math=False)
        if index == 0:
            axes.set_title("image and queries", fontsize=7, pad=4)
        for number, scores_row in enumerate(rows[index]):
            color = DOT_COLORS[number % len(DOT_COLORS)]
            overlay = blend_overlay(image, scores_row, limit)
            axes = add_panel(figure, layout, index, number + 1, overlay, color)
            draw_dots(axes, points[index, number : number + 1], layout, color)
            axes.set_xlabel(caption(scores_row), fontsize=6, labelpad=4, linespacing=1.25)
            if index == 0:
                axes.set_title(f"query {number + 1}", fontsize=7, pad=4)
    add_color_bar(figure, layout, limit)
    if path is not None:
        figure.savefig(parent_made(path), dpi=DPI)
    return figure


def check_scores(scores, images):
    """Returns the scores as float32, or says what is wrong.

    Args:
        scores: Float array of shape `(batch, h, w, key_h, key_w)`.
        images: uint8 array of shape `(batch, height, width, channels)`.

    Returns:
        float32 array.

    Raises:
        ValueError: If the shape doesn't fit the images, or scores don't sum to 1.
    """
    scores = np.asarray(scores, "float32")
    if scores.ndim != 5 or len(scores) != len(images) or scores.size == 0:
        raise ValueError(
            "`scores` must have shape (batch, h, w, key_h, key_w), with the batch of `images`. "
            f"Received: scores of shape={scores.shape}, images of shape={images.shape}"
        )
    height, width = images.shape[1:3]
    _, h, w, key_h, key_w = scores.shape
    if height % h or width % w or height % key_h or width % key_w:
        raise ValueError(
            "`images` must be a whole number of query and key cells high and wide. "
            f"Received: scores of shape={scores.shape}, images of shape={images.shape}"
        )
    sums = scores.sum(axis=(-2, -1))
    # 1e-2 leaves room for scores that were rounded to half precision.
    if scores.min() < 0 or not np.all(np.abs(sums - 1.0) < 1e-2):
        raise ValueError(
            "`scores` must not be negative and must sum to 1 over the last two axes. Received: "
            f"scores from {scores.min():.3g}, with sums from {sums.min():.3g} to {sums.max():.3g}"
        )
    return scores


def scores_under_points(scores, points, images_shape):
    """Picks the scores of the query cell that each point lies in.

    Args:
        scores: Float array of shape `(batch, h, w, key_h, key_w)`.
        points: Integer array of shape `(batch, points, 2)`: (row, column) in image pixels.
        images_shape: The shape of the images, `(batch, height, width, channels)`.

    Returns:
        Float array of shape `(batch, points, key_h, key_w)`.
    """
    rows = points[..., 0] * scores.shape[1] // images_shape[1]
    columns = points[..., 1] * scores.shape[2] // images_shape[2]
    return scores[np.arange(len(scores))[:, None], rows, columns]


def color_limit(rows):
    """Chooses where the colour scale ends.

    Args:
        rows: Float array of shape `(batch, points, key_h, key_w)`.

    Returns:
        A float, in multiples of uniform attention.
    """
    keys = rows.shape[-2] * rows.shape[-1]
    return max(LEAST_LIMIT, float(np.median(rows.max(axis=(-2, -1)))) * keys)


def caption(scores_row):
    """Says in two lines how sharp one row of scores is.

    Args:
        scores_row: Float array of shape `(key_h, key_w)` that sums to 1.

    Returns:
        A string: the maximum, and the entropy as a share of that of uniform scores.
    """
    values = np.asarray(scores_row, "float64").ravel()
    positive = values[values > 0]
    entropy = abs(float((positive * np.log(positive)).sum()))  # abs: no "-0 %"
    uniform = math.log(values.size)
    share = f"{100 * entropy / uniform:.1f} % of uniform" if uniform else "0, one key"
    maximum = values.max()
    return f"max {maximum:.2g} = {short_number(maximum * values.size)} × uniform\nentropy {share}"


def short_number(value):
    """Writes a number with two digits, or all that stand before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def fitted_size(text, font_size, pixels):
    """Returns a font size in points at which one line of text is at most so many pixels long."""
    wide_letter = 0.68 * DPI / 72  # pixels of an average letter, per point
    return min(font_size, pixels / (wide_letter * max(len(text), 1)))


def as_rgb(image):
    """Returns an image of 1 or 3 channels as one of 3."""
    return image if image.shape[-1] == 3 else image.repeat(3, axis=-1)


def blend_overlay(image, scores_row, limit):
    """Colours a greyed image by attention.

    Args:
        image: uint8 array of shape `(height, width, channels)`.
        scores_row: Float array of shape `(key_h, key_w)`.
        limit: Float. Where the colour scale ends, in multiples of uniform attention.

    Returns:
        Float array in [0, 1] of shape `(height, width, 3)`.
    """
    overlay = attention_overlay(scores_row, image.shape[:2])
    overlay = np.minimum(overlay * np.size(scores_row) / limit, 1.0)
    colors = require("matplotlib").colormaps[COLOR_MAP](overlay)[..., :3]
    grey = image.mean(axis=-1, keepdims=True) / 255.0
    # A screen blend: black leaves the colours as the scale shows them, lighter greys show through.
    return 1.0 - (1.0 - colors) * (1.0 - 0.4 * grey)


class Layout:
    """Where each panel of the figure lies, in pixels.

    Panels are whole multiples of the image, so that every image pixel is drawn equally large.

    Args:
        images_shape: The shape of the images, `(batch, height, width, channels)`.
        num_points: Integer. Query points of each image.
        title: String or `None`.
        row_labels: List of strings or `None`.
    """

    def __init__(self, images_shape, num_points, title, row_labels):
        self.num_images, image_height, image_width, _ = images_shape
        self.scale = max(1, round(PANEL_PIXELS / image_height))
        self.panel_height = image_height * self.scale
        self.panel_width = image_width * self.scale
        self.margin, self.gap = 28, 22
        self.caption = 66
        self.left = self.margin + (34 if row_labels is not None else 0)
        self.top = self.margin + 32 + (44 if title is not None else 0)
        self.row_step = self.panel_height + self.caption
        self.bar_gap, self.bar_width, self.bar_text = 30, 16, 92
        panels = num_points + 1
        self.panels_right = self.left + panels * self.panel_width + num_points * self.gap
        self.width = self.panels_right + self.bar_gap + self.bar_width + self.bar_text
        self.height = self.top + self.num_images * self.row_step + 10

    def box(self, row, column):
        """Returns a panel's (left, bottom, width, height) as fractions of the figure."""
        left = self.left + column * (self.panel_width + self.gap)
        bottom = self.height - self.top - row * self.row_step - self.panel_height
        return (
            left / self.width,
            bottom / self.height,
            self.panel_width / self.width,
            self.panel_height / self.height,
        )


def add_panel(figure, layout, row, column, picture, color="#B0B0B0"):
    """Draws one picture, unblended, in its frame.

    Args:
        figure: The figure.
        layout: A `Layout`.
        row: Integer. Which image.
        column: Integer. Which panel of it.
        picture: Array of shape `(height, width, 3)`.
        color: String. Colour of the frame.

    Returns:
        The panel's axes.
    """
    axes = figure.add_axes(layout.box(row, column))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_edgecolor(color)
        spine.set_linewidth(0.5 if column == 0 else 2.0)
    return axes


def draw_dots(axes, points, layout, color=None):
    """Marks query points with coloured dots, ringed in white so that they show on any image.

    A single dot is drawn smaller, to hide less of the map beneath it.

    Args:
        axes: Where to draw.
        points: Integer array of shape `(points, 2)`: (row, column) in image pixels.
        layout: A `Layout`.
        color: String. The colour of every dot. Defaults to one colour for each.
    """
    diameter = (
        (0.075 if color is None else 0.05) * min(layout.panel_height, layout.panel_width) * 72 / DPI
    )
    for number, (row, column) in enumerate(points):
        axes.plot(
            column,
            row,
            marker="o",
            markersize=diameter,
            markerfacecolor=color or DOT_COLORS[number % len(DOT_COLORS)],
            markeredgecolor="white",
            markeredgewidth=0.8 if color is None else 0.6,
            zorder=3,
        )


def add_color_bar(figure, layout, limit):
    """Draws the scale that all maps share, beside the first row.

    Args:
        figure: The figure.
        layout: A `Layout`.
        limit: Float. Where the scale ends, in multiples of uniform attention.
    """
    _, bottom, _, height = layout.box(0, 0)
    left = (layout.panels_right + layout.bar_gap) / layout.width
    axes = figure.add_axes((left, bottom, layout.bar_width / layout.width, height))
    ramp = np.linspace(1.0, 0.0, 256)[:, None]
    axes.imshow(ramp, cmap=COLOR_MAP, aspect="auto", extent=(0, 1, 0, limit), vmin=0, vmax=1)
    axes.set_xticks([])
    axes.yaxis.tick_right()
    ends = {0: "0", limit: f"≥ {short_number(limit)}"}
    # Above that, uniform attention is too near 0 for a label of its own.
    ticks = {1: "1", **ends} if limit <= 12 else ends
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=6)
    axes.tick_params(length=2, width=0.5, pad=2)
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("attention (× uniform)", fontsize=6, labelpad=-4)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
