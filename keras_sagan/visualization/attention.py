"""The attention figure of the SAGAN paper: where a layer looks from a few points."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_sagan.checks import check_list, check_pair, check_path, check_string, require
from keras_sagan.visualization.fonts import drawable_names
from keras_sagan.visualization.grid import as_rgb, check_images
from keras_sagan.visualization.optional import new_figure, parent_made
from keras_sagan.visualization.query_points import (
    check_images_count,
    check_points,
    check_points_count,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008: people with any color vision tell these apart.
DOT_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442")
COLOR_MAP = "inferno"
PANEL_PIXELS = 224  # About the shorter side of a panel, which must be as wide as its caption.
DPI = 200


def attention_overlay(scores_row: np.ndarray, image_size: int | Sequence[int]) -> np.ndarray:
    """Enlarges one row of attention scores to the size of the image.

    Each key cell covers exactly the pixels that it was pooled from, without blending: on a
    16 × 16 key grid and a 32 × 32 image each score fills a block of 2 × 2.

    Args:
        scores_row: Float array of shape `(key_h, key_w)`: the scores of one query.
        image_size: Integer, or a pair of integers `(height, width)`. The image size in pixels.

    Returns:
        float32 array of shape `(height, width)`: at each pixel the score of its key cell.

    Raises:
        ValueError: If `scores_row` isn't a matrix, or its shape doesn't divide the image size.

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
    height, width = check_pair("image_size", image_size, expected)
    if height % key_h or width % key_w:
        raise ValueError(f"`image_size` must be {expected}. Received: image_size={image_size!r}")
    return scores_row.repeat(height // key_h, axis=0).repeat(width // key_w, axis=1)


def plot_attention(
    images: np.ndarray,
    scores: np.ndarray,
    query_points: np.ndarray | None = None,
    num_points: int = 3,
    path: str | Path | None = None,
    title: str | None = None,
    row_labels: Sequence[str] | None = None,
) -> "Figure":
    """Draws where attention looks from a few points of each image.

    Each row shows one image with colored dots and a map for each dot, framed in its color: the
    scores of the query under the dot, over the image in gray. All maps share one color scale, in
    multiples of uniform attention, `1 / (key_h * key_w)`. It ends at the median of the maps'
    maxima, at least at 4, so that nearly uniform attention stays dark. Captions give the maximum of
    each map, and its entropy as a share of `log(key_h * key_w)`.

    Args:
        images: uint8 array in [0, 255] of shape `(batch, height, width, channels)` with 1 or 3
            channels. At most 50 images.
        scores: Float array of shape `(batch, h, w, key_h, key_w)`: for each query location its
            scores over the keys, which sum to 1. Both grids must divide the image size.
        query_points: Integer array of shape `(points, 2)`, for every image, or
            `(batch, points, 2)`: (row, column) in image pixels. Defaults to `None`:
            `choose_query_points` chooses them.
        num_points: Integer in [1, 32]. How many points to choose in each image. Defaults to `3`.
        path: String or path of the PNG, PDF or SVG to write. Defaults to `None`: no file.
        title: String. The title of the figure. Defaults to `None`.
        row_labels: List of strings, one for each image, drawn on its left. Defaults to `None`.

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
    cells = points * scores.shape[1:3] // images.shape[1:3]  # The query cells of the points.
    rows = scores[np.arange(len(scores))[:, None], cells[..., 0], cells[..., 1]]
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
    colors = [DOT_COLORS[i % len(DOT_COLORS)] for i in range(points.shape[1])]
    for index, image in enumerate(images):
        axes = [add_panel(figure, layout, index, 0, as_rgb(image), points[index], colors)]
        for i, scores_row in enumerate(rows[index]):
            overlay, point = blend_overlay(image, scores_row, limit), points[index, i : i + 1]
            axes.append(add_panel(figure, layout, index, i + 1, overlay, point, colors[i:]))
            axes[-1].set_xlabel(caption(scores_row), fontsize=6, labelpad=4, linespacing=1.25)
        if index == 0:
            for i, panel in enumerate(axes):
                panel.set_title(f"query {i}" if i else "image and queries", fontsize=7, pad=4)
        if row_labels is not None:
            label = row_labels[index]
            size = fitted_size(label, 7, layout.row_step)
            axes[0].set_ylabel(label, fontsize=size, labelpad=5, parse_math=False)
    add_color_bar(figure, layout, limit)
    if path is not None:
        figure.savefig(parent_made(path), dpi=DPI)
    return figure


def check_scores(scores, images):
    """Returns the scores as float32, or raises if they don't fit the images or don't sum to 1."""
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


def color_limit(rows):
    """Returns where the color scale ends, in multiples of uniform attention, at least 4."""
    keys = rows.shape[-2] * rows.shape[-1]
    return max(4.0, float(np.median(rows.max(axis=(-2, -1)))) * keys)


def caption(scores_row):
    """Returns two lines: the maximum of one row of scores, and its entropy."""
    values = np.asarray(scores_row, "float64").ravel()
    positive = values[values > 0]
    entropy = abs(float((positive * np.log(positive)).sum()))  # abs avoids "-0 %".
    uniform = math.log(values.size)
    share = f"{100 * entropy / uniform:.1f} % of uniform" if uniform else "0, one key"
    maximum = values.max()
    return f"max {maximum:.2g} = {short_number(maximum * values.size)} × uniform\nentropy {share}"


def short_number(value):
    """Formats a number with two digits, or with all digits before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def fitted_size(text, font_size, pixels):
    """Returns a font size in points, reduced so that the line of text fits into the pixels."""
    letter_width = 0.68 * DPI / 72  # In pixels per point, of an average letter.
    return min(font_size, pixels / (letter_width * max(len(text), 1)))


def blend_overlay(image, scores_row, limit):
    """Colors an image in gray by attention; returns floats in [0, 1], `(height, width, 3)`."""
    overlay = attention_overlay(scores_row, image.shape[:2])
    overlay = np.minimum(overlay * np.size(scores_row) / limit, 1.0)
    colors = require("matplotlib").colormaps[COLOR_MAP](overlay)[..., :3]
    gray = image.mean(axis=-1, keepdims=True) / 255.0
    # A screen blend: black keeps the colors of the scale, and lighter grays show through.
    return 1.0 - (1.0 - colors) * (1.0 - 0.4 * gray)


class Layout:
    """The position of each panel, in pixels; each image pixel is drawn `scale` pixels wide."""

    margin, gap, caption = 28, 22, 66
    bar_gap, bar_width, bar_text = 30, 16, 92

    def __init__(self, images_shape, num_points, title, row_labels):
        num_images, image_height, image_width, _ = images_shape
        self.scale = max(1, round(PANEL_PIXELS / min(image_height, image_width)))
        self.panel_height = image_height * self.scale
        self.panel_width = image_width * self.scale
        self.column_step = self.panel_width + self.gap
        self.left = self.margin + (34 if row_labels is not None else 0)
        self.top = self.margin + 32 + (44 if title is not None else 0)
        self.row_step = self.panel_height + self.caption
        self.panels_right = self.left + self.panel_width + num_points * self.column_step
        self.width = self.panels_right + self.bar_gap + self.bar_width + self.bar_text
        self.height = self.top + num_images * self.row_step + 10

    def box(self, left, row, width):
        """Returns (left, bottom, width, height) in a row of panels, as fractions of the figure."""
        bottom = self.height - self.top - row * self.row_step - self.panel_height
        box = np.array([left, bottom, width, self.panel_height], "float64")
        return box / [self.width, self.height, self.width, self.height]


def add_panel(figure, layout, row, column, picture, points, colors):
    """Draws the image of a row, in column 0, or one of its maps, with dots at query points."""
    is_map = column > 0
    left = layout.left + column * layout.column_step
    axes = figure.add_axes(layout.box(left, row, layout.panel_width))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    frame = {"edgecolor": colors[0], "linewidth": 2.0}
    axes.spines[:].set(**(frame if is_map else {"edgecolor": "#B0B0B0", "linewidth": 0.5}))
    # The dot of a map is smaller, to hide less of it. White rings show on any image.
    diameter = 0.05 if is_map else 0.075
    for (y, x), color in zip(points, colors):
        axes.plot(
            x,
            y,
            marker="o",
            markersize=diameter * min(layout.panel_height, layout.panel_width) * 72 / DPI,
            markerfacecolor=color,
            markeredgecolor="white",
            markeredgewidth=0.6 if is_map else 0.8,
            zorder=3,
        )
    return axes


def add_color_bar(figure, layout, limit):
    """Draws the scale that all maps share, beside the first row."""
    axes = figure.add_axes(layout.box(layout.panels_right + layout.bar_gap, 0, layout.bar_width))
    ramp = np.linspace(1.0, 0.0, 256)[:, None]
    axes.imshow(ramp, cmap=COLOR_MAP, aspect="auto", extent=(0, 1, 0, limit), vmin=0, vmax=1)
    axes.set_xticks([])
    axes.yaxis.tick_right()
    ticks = {0: "0", limit: f"≥ {short_number(limit)}"}
    if limit <= 12:  # Above that, the labels of 0 and 1 would overlap.
        ticks[1] = "1"
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=6)
    axes.tick_params(length=2, width=0.5, pad=2)
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("attention (× uniform)", fontsize=6, labelpad=-4)
    axes.spines[:].set_linewidth(0.5)
