"""Draws training curves, with one panel for each kind of value."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_sagan.checks import check_path, check_string, require
from keras_sagan.visualization.optional import new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The colors are from Okabe and Ito, "Color Universal Design", 2008.
LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
GRAY = "#555555"
MOST_NAMED = 6  # A legend with more curves than this shows only how many there are.
RATES = ("g_learning_rate", "d_learning_rate")
LEGEND_LINE = 7.5  # The distance between the lines of a legend, in points.
# Maps panel titles, in reading order, to functions that select a panel's curves by name.
PANELS = {
    "Loss": lambda name: "loss" in name,
    "Logits": lambda name: name.endswith("logits") and "/" not in name,
    "Discriminator accuracy": lambda name: "accuracy" in name,
    "Inside the hinge margin": lambda name: "in_margin" in name,
    "Attention γ": lambda name: "gamma" in name,
    "Attention entropy": lambda name: "entropy" in name,
    "Largest singular value σ": lambda name: name.startswith("sigma"),
    "FID": lambda name: name.startswith("fid"),
    "Learning rate": lambda name: name.endswith("learning_rate"),
}
SHARES = ("Discriminator accuracy", "Inside the hinge margin", "Attention entropy")


def plot_curves(
    history: keras.callbacks.History | dict,
    path: str | Path | None = None,
    title: str | None = None,
) -> "Figure":
    """Draws losses, logits, accuracy, γ, FIDs and other values by epoch, and returns the figure.

    Each kind of value has its own panel and scale. Curves of validation values (`val_…`) are dashed
    and match the color of the training curves. The learning rates that `fit` logs are drawn only if
    they change. A curve has gaps where values aren't finite. Legends are above the curves and show
    the last value of each curve. A panel with more than 6 curves uses thin lines, in one color for
    each network, and its legend shows only the number of curves.

    Args:
        history: The result of `fit`, its `history` dictionary, or any dictionary that maps names to
            lists. A list contains one number for each epoch, or pairs (epochs done, value) if the
            metric isn't measured in every epoch, as in `FIDEvaluator.history`. The optional key
            `"epoch"` contains the epoch of each list entry; as in Keras, the first epoch is 0.
        path: The path of the PNG, PDF or SVG to write. If `None`, no file is written.
        title: The title of the figure.

    Raises:
        ValueError: If there is nothing to draw, or the length of a list isn't the number of epochs.
        ImportError: If matplotlib isn't installed.

    Example:
    ```python
    evaluator = FIDEvaluator(metric, test_images, num_images=1000)
    history = model.fit(dataset, epochs=20, callbacks=[AttentionMonitor(), evaluator])
    plot_curves({**history.history, "fid_1k": evaluator.history}, path="runs/curves.png")
    ```
    """
    path = check_path("path", path, optional=True)
    title = check_string("title", title, optional=True)
    series = without_constant_rates(read_series(history))
    panels = group_panels(series)
    columns = {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    legend_height = LEGEND_LINE * max(legend_shape(members)[0] for members in panels.values())
    height = (1.75 + legend_height / 72) * rows + 0.32 * bool(title)
    figure = new_figure(2.35 * columns, height)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06, wspace=0.04, hspace=0.06)
    if title:
        figure.suptitle(title, fontsize=9, fontweight="bold", parse_math=False)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    epochs = np.concatenate([epochs for epochs, _ in series.values()])
    first, last = epochs.min(), max(epochs.max(), epochs.min() + 1)
    for panel, (name, members) in zip(axes, panels.items()):
        draw_panel(panel, name, members, legend_height)
        panel.set_xlim(first - 0.04 * (last - first), last + 0.04 * (last - first))
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    return saved(figure, path)


def read_series(history):
    """Returns a dictionary that maps names to arrays of shape (2, num_points): epochs, values."""
    table = getattr(history, "history", history)
    if not isinstance(table, dict):
        raise ValueError(
            "`history` must be the result of `fit`, or a dictionary of lists. "
            f"Received: history of type {type(history).__name__}"
        )
    table = {name: list(values) for name, values in table.items() if len(values)}
    epochs = table.pop("epoch", None) or list(getattr(history, "epoch", None) or [])
    if not table:
        raise ValueError("`history` must hold at least one value. Received: an empty history.")
    lengths = {name: len(values) for name, values in table.items() if np.ndim(values[0]) == 0}
    count = len(epochs) or max(lengths.values(), default=0)
    numbers = np.asarray(epochs or range(count), "float64") + 1  # `fit` counts epochs from 0.
    for name, length in lengths.items():
        if length != count:
            raise ValueError(
                f"`history[{name!r}]` must have a value for each of the {count} epochs, or be "
                f"(epoch, value) pairs. Received: history[{name!r}] of length {length}"
            )
        table[name] = np.column_stack([numbers, table[name]])
    return {name: np.asarray(pairs, "float64").T for name, pairs in table.items()}


def without_constant_rates(series):
    """Removes learning rates that never change, and the duplicate that Keras callbacks add."""
    rates = [series[name][1] for name in RATES if name in series]
    is_constant = all((values == values[0]).all() for values in rates)
    unwanted = {"learning_rate", *(RATES if is_constant else ())} if rates else set()
    return {name: pair for name, pair in series.items() if name not in unwanted} or series


def group_panels(series):
    """Returns a dictionary that maps panel titles to dictionaries of series, in reading order."""
    panels = {title: {} for title in PANELS}
    for name in sorted(series, key=is_second):
        base = name.removeprefix("val_")
        other = base.replace("_", " ").capitalize()
        title = next((title for title, fits in PANELS.items() if fits(base)), other)
        panels.setdefault(title, {})[name] = series[name]
    return {title: members for title, members in panels.items() if members}


def is_second(name):
    """Returns a sort key that puts G before D, real before fake, and validation last.

    This order gives each color the same meaning in all panels.
    """
    base = name.removeprefix("val_")
    return name != base, base.startswith(("d_", "fake_")) or "discriminator" in base


def short_name(name):
    """Returns a name for the legend, without the words that are already in the panel's title."""
    for start in ("val_", "gamma/", "attention_entropy/", "sigma/"):
        name = name.removeprefix(start)
    for ending in ("_loss", "_logits", "_accuracy", "_in_margin", "_learning_rate"):
        name = name.removesuffix(ending)
    if name.startswith("fid_"):
        return f"{name.removeprefix('fid_')} samples"
    name = {"g": "G", "d": "D", "generator": "G", "discriminator": "D"}.get(name, name)
    return name.replace("generator/", "G · ").replace("discriminator/", "D · ").replace("_", " ")


def legend_labels(series):
    """Returns a dictionary that maps the names of curves to their labels in the legend."""
    if len(series) > MOST_NAMED:
        groups = {}
        for name in series:
            groups.setdefault(group_of(name), []).append(name)
        return {names[0]: f"{group}  {len(names)} curves" for group, names in groups.items()}
    labels = {}
    for name, (_, values) in series.items():
        finite = values[np.isfinite(values)]
        last = f"  {finite[-1] + 0.0:.3g}".replace("-", "\N{MINUS SIGN}") if finite.size else ""
        labels[name] = "val. " * name.startswith("val_") + short_name(name) + last
    return labels


def group_of(name):
    """Returns "G" or "D" for the curves of a network, and the short name for other curves."""
    return short_name(name).partition(" · ")[0]


def legend_shape(series):
    """Returns the rows and columns of a legend (two columns if all labels are short)."""
    labels = legend_labels(series)
    columns = min(2 if max(map(len, labels.values())) <= 16 else 1, len(labels))
    return math.ceil(len(labels) / columns), columns


def draw_panel(axes, title, series, legend_height):
    """Draws one panel; the legend between title and axes is `legend_height` points high."""
    colors, labels = {}, legend_labels(series)
    has_many = len(series) > MOST_NAMED
    for name, (epochs, values) in series.items():
        base = name.removeprefix("val_")
        key = group_of(name) if has_many else base
        values = np.where(np.isfinite(values), values, np.nan)
        is_short = np.isfinite(values).sum() <= 12
        axes.plot(
            epochs,
            values,
            color=colors.setdefault(key, LINE_COLORS[len(colors) % len(LINE_COLORS)]),
            linestyle="-" if name == base else "--",
            linewidth=0.6 if has_many else 1.2,
            marker="o" if is_short and not has_many else None,
            markersize=2.4,
            label=labels.get(name, "_"),
        )
    style = {"fontsize": 7.5, "fontweight": "bold", "parse_math": False}
    axes.set_title(title, loc="left", pad=legend_height + 6, **style)
    axes.set_xlabel("epoch", fontsize=6.5, color=GRAY, labelpad=2)
    style_axes(axes, title, np.concatenate([values for _, values in series.values()]))
    shift = require("matplotlib.transforms").ScaledTranslation(
        0, (legend_height + 1.5) / 72, axes.figure.dpi_scale_trans
    )
    legend = axes.legend(
        fontsize=5.5,
        frameon=False,
        ncols=legend_shape(series)[1],
        loc="upper left",
        bbox_to_anchor=(0, 1),
        bbox_transform=axes.transAxes + shift,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.4,
        handlelength=1.6,
        handletextpad=0.5,
        labelspacing=0.25,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def style_axes(axes, title, values):
    """Styles the axes so that a narrow panel is easy to read."""
    locator = require("matplotlib.ticker").MaxNLocator
    axes.xaxis.set_major_locator(locator(nbins=6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(locator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.ticklabel_format(axis="y", scilimits=(-5, 5))
    axes.yaxis.get_offset_text().set(fontsize=5.5, color=GRAY)
    values = values[np.isfinite(values)]
    if not values.size:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", fontsize=6.5)
    elif title in SHARES:
        axes.set_ylim(-0.03, 1.03)
    elif title == "FID":
        axes.set_ylim(0, max(1.08 * values.max(), 1e-6))
    elif values.min() < 0 < values.max() or title == "Attention γ":
        axes.axhline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
    axes.tick_params(labelsize=6, length=2, width=0.5, color=GRAY, labelcolor=GRAY, pad=2)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(linewidth=0.5, color=GRAY)
