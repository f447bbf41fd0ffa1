"""Draws the attention figure of the SAGAN paper: images with the attention maps of a few points."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_sagan.checks import check_list, check_path, check_string, check_tuple, require
from keras_sagan.visualization.grid import as_rgb, check_images
from keras_sagan.visualization.names import drawable_names
from keras_sagan.visualization.optional import DPI, new_figure, saved
from keras_sagan.visualization.query_points import MAX_IMAGES, MAX_POINTS, check_count, check_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colors that everyone can tell apart, from "Color Universal Design" (Okabe and Ito, 2008).
DOT_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442")
COLOR_MAP = "inferno"
PANEL_PIXELS = 224  # The shorter side of a panel has about this many pixels, so that captions fit.
# The space in pixels around the figure, between panels, below each row and for the color bar.
MARGIN, GAP, CAPTION, BAR = 28, 22, 66, 138


def attention_overlay(scores_row: np.ndarray, image_size: int | Sequence[int]) -> np.ndarray:
    """Upsamples the attention scores of one query to the size of the image.

    Each key cell covers exactly the pixels that it was pooled from, without blending: with a 16 ×
    16 key grid and a 32 × 32 image, each score fills a block of 2 × 2 pixels.

    Args:
        scores_row: Float array of shape `(key_h, key_w)`: the scores of one query.
        image_size: The image size in pixels: an integer, or a pair of integers `(height, width)`.

    Returns:
        float32 array of shape `(height, width)`: the score of each pixel's key cell.

    Raises:
        ValueError: If `scores_row` isn't a matrix, or its shape doesn't divide the image size.

    Example:
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
    height, width = check_tuple("image_size", image_size, 2, expected=expected)
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
    """Draws the attention maps of a few points of each image, and returns the figure.

    Each row shows one image with colored dots and one map for each dot. The frame of each map
    matches the color of its dot. A map shows the scores of the query under the dot, drawn over the
    gray image. All maps share one color scale, in multiples of uniform attention,
    `1 / (key_h * key_w)`. The scale ends at the median of the maps' maxima, or at 4 if that is
    larger, so that nearly uniform attention stays dark. The caption of each map shows the maximum
    score, and the entropy as a share of `log(key_h * key_w)`.

    Args:
        images: uint8 array in [0, 255] of shape `(batch, height, width, channels)` with 1 or 3
            channels. The batch has at most 50 images.
        scores: Float array of shape `(batch, h, w, key_h, key_w)`: the scores of each query
            location, which must sum to 1 over all keys. The query grid and the key grid must divide
            the image size.
        query_points: Integer array of (row, column) positions in image pixels. The shape is
            `(points, 2)` for the same points in all images, or `(batch, points, 2)`. By default,
            `choose_query_points` chooses the points.
        num_points: Integer in [1, 32]. The number of points to choose in each image.
        path: The path of the PNG, PDF or SVG to write. If `None`, no file is written.
        title: The title of the figure.
        row_labels: The name of each image, drawn on its left.

    Raises:
        ValueError: If an argument has the wrong shape, dtype or range, or scores don't sum to 1.
        ImportError: If matplotlib isn't installed.

    Example:
    ```python
    images, maps = model.attention_maps(latents[:4], labels[:4])
    plot_attention(images, maps["self_attention"], path="runs/attention.png")
    ```

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), figures 1 and 5.
    """
    num_points = check_count("num_points", num_points, MAX_POINTS)
    path = check_path("path", path, optional=True)
    title = check_string("title", title, optional=True)
    row_labels = check_list("row_labels", row_labels, optional=True)
    images = check_images(images)
    scores = check_scores(scores, images)
    check_count("len(images)", len(images), MAX_IMAGES)
    points = check_points(query_points, images, num_points)
    if row_labels is not None and len(row_labels) != len(images):
        raise ValueError(
            f"`row_labels` must name each of the {len(images)} images. "
            f"Received: row_labels={row_labels!r}"
        )
    row_labels = drawable_names(row_labels, "row_labels", "row")
    cells = points * scores.shape[1:3] // images.shape[1:3]  # The query location of each point.
    rows = scores[np.arange(len(scores))[:, None], cells[..., 0], cells[..., 1]]
    limit = color_limit(rows)
    left, top, panel_height, panel_width = layout(images.shape, title, row_labels)
    right = left + panel_width + points.shape[1] * (panel_width + GAP)
    width, height = right + BAR, top + len(images) * (panel_height + CAPTION) + 10
    figure = new_figure(width / DPI, height / DPI)
    grid = {"left": left / width, "right": right / width, "top": 1 - top / height}
    grid |= {"bottom": (CAPTION + 10) / height, "wspace": GAP / panel_width}
    grid["hspace"] = CAPTION / panel_height
    shape = (len(images), points.shape[1] + 1)
    panels = figure.subplots(*shape, squeeze=False, gridspec_kw=grid)
    colors = [DOT_COLORS[i % len(DOT_COLORS)] for i in range(points.shape[1])]
    for image, image_points, image_rows, axes in zip(images, points, rows, panels):
        draw_panel(axes[0], as_rgb(image), image_points, colors, "#B0B0B0")
        for i, scores_row in enumerate(image_rows):
            overlay, point = blend_overlay(image, scores_row, limit), image_points[i : i + 1]
            draw_panel(axes[i + 1], overlay, point, colors[i:], colors[i], is_map=True)
            axes[i + 1].set_xlabel(caption(scores_row), fontsize=6, labelpad=4, linespacing=1.25)
    for i, axes in enumerate(panels[0]):
        axes.set_title(f"query {i}" if i else "image and queries", fontsize=7, pad=4)
    for axes, label in zip(panels[:, 0], row_labels or ()):
        size = fitted_size(label, 7, panel_height + CAPTION)
        axes.set_ylabel(label, fontsize=size, labelpad=5, parse_math=False)
    if title is not None:
        style = {"fontsize": fitted_size(title, 8.5, right - left), "parse_math": False}
        place = left / width, 1 - MARGIN / height
        figure.text(*place, title, fontweight="bold", va="top", **style)
    place = [right + 30, height - top - panel_height, 16, panel_height]
    axes = figure.add_axes(np.divide(place, [width, height, width, height]))
    draw_color_bar(axes, limit)
    return saved(figure, path)


def layout(images_shape, title, row_labels):
    """Returns the left, top, height and width of the first panel, in figure pixels."""
    scale = max(1, round(PANEL_PIXELS / min(images_shape[1:3])))
    left = MARGIN + 34 * (row_labels is not None)
    top = MARGIN + 32 + 44 * (title is not None)
    return left, top, images_shape[1] * scale, images_shape[2] * scale


def draw_panel(axes, picture, points, colors, frame, is_map=False):
    """Draws an image or one of its maps, with dots at query points."""
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(edgecolor=frame, linewidth=2.0 if is_map else 0.5)
    # Smaller dots hide less of a map. Their white rings are visible on any image.
    size = min(axes.get_window_extent().size) * 72 / DPI
    style = {"markersize": (0.05 if is_map else 0.075) * size, "markeredgecolor": "white"}
    style["markeredgewidth"] = 0.6 if is_map else 0.8
    for (y, x), color in zip(points, colors):
        axes.plot(x, y, marker="o", markerfacecolor=color, zorder=3, **style)


def draw_color_bar(axes, limit):
    """Draws the color scale that all maps share."""
    ramp = np.linspace(1.0, 0.0, 256)[:, None]
    axes.imshow(ramp, cmap=COLOR_MAP, aspect="auto", extent=(0, 1, 0, limit), vmin=0, vmax=1)
    ticks = {0: "0", limit: f"≥ {short_number(limit)}"}
    if limit <= 12:  # For larger limits, the labels 0 and 1 would overlap.
        ticks[1] = "1"
    axes.set_xticks([])
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=6)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("attention (× uniform)", fontsize=6, labelpad=-4)
    axes.tick_params(length=2, width=0.5, pad=2)
    axes.spines[:].set_linewidth(0.5)


def check_scores(scores, images):
    """Returns float32 scores; raises an error if they don't fit the images or don't sum to 1."""
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
    # The tolerance of 1e-2 allows for scores that were rounded to half precision.
    if scores.min() < 0 or not np.all(np.abs(sums - 1.0) < 1e-2):
        raise ValueError(
            "`scores` must not be negative and must sum to 1 over the last two axes. Received: "
            f"scores from {scores.min():.3g}, with sums from {sums.min():.3g} to {sums.max():.3g}"
        )
    return scores


def color_limit(rows):
    """Returns the end of the color scale as a multiple (at least 4) of uniform attention."""
    keys = rows.shape[-2] * rows.shape[-1]
    return max(4.0, float(np.median(rows.max(axis=(-2, -1)))) * keys)


def caption(scores_row):
    """Returns two lines of text: the maximum and the entropy of one query's scores."""
    values = np.asarray(scores_row, "float64").ravel()
    positive = values[values > 0]
    entropy = abs(float((positive * np.log(positive)).sum()))  # Use `abs` to avoid "-0 %".
    uniform = math.log(values.size)
    share = f"{100 * entropy / uniform:.1f} % of uniform" if uniform else "0, one key"
    maximum = values.max()
    return f"max {maximum:.2g} = {short_number(maximum * values.size)} × uniform\nentropy {share}"


def short_number(value):
    """Formats a number with two digits, or as an integer if it is at least 100."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def fitted_size(text, font_size, pixels):
    """Returns a font size in points, reduced if the text would be wider than `pixels`."""
    letter_width = 0.68 * DPI / 72  # The width of an average letter, in pixels per point.
    return min(font_size, pixels / (letter_width * max(len(text), 1)))


def blend_overlay(image, scores_row, limit):
    """Colors a gray image by attention; returns floats in [0, 1] of shape `(height, width, 3)`."""
    overlay = attention_overlay(scores_row, image.shape[:2])
    overlay = np.minimum(overlay * np.size(scores_row) / limit, 1.0)
    colors = require("matplotlib").colormaps[COLOR_MAP](overlay)[..., :3]
    gray = image.mean(axis=-1, keepdims=True) / 255.0
    # Use a screen blend: black pixels keep the exact color of the scale, gray pixels lighten it.
    return 1.0 - (1.0 - colors) * (1.0 - 0.4 * gray)
