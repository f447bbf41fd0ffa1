import io
import types

import numpy as np
import pytest

from keras_sagan.visualization import plot_curves
from keras_sagan.visualization.curves import group_panels, read_series

pytest.importorskip("matplotlib")

HISTORY = {
    "g_loss": [0.5, 0.4, 0.3],
    "d_loss": [1.9, 1.8, 1.7],
    "val_d_loss": [1.9, 1.9, 1.9],
    "real_logits": [0.5, 0.6, 0.7],
    "fake_logits": [-0.5, -0.6, -0.7],
    "real_accuracy": [0.8, 0.8, 0.9],
    "gamma/generator/self_attention": [0.0, -0.01, -0.02],
    "gamma/discriminator/self_attention": [0.0, 0.1, 0.2],
    "fid_1k": [(0, 300.0), (2, 90.0), (3, 40.0)],
    "learning_rate": [1e-4, 1e-4, 1e-4],
}


def drawn(figure):
    """The panels that show something, by title."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.axison}


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_each_kind_has_its_panel(tmp_path):
    panels = drawn(plot_curves(HISTORY, path=tmp_path / "new" / "curves.png", title="Title"))
    assert list(panels) == [
        "Loss",
        "Logits",
        "Discriminator accuracy",
        "Attention γ",
        "FID",
        "Learning rate",
    ]
    assert (tmp_path / "new" / "curves.png").stat().st_size > 10_000
    assert legend_texts(panels["Loss"]) == ["G  0.3", "D  1.7", "val. D  1.9"]
    assert legend_texts(panels["Attention γ"]) == [
        "G · self attention  −0.02",
        "D · self attention  0.2",
    ]
    assert legend_texts(panels["FID"]) == ["1k samples  40"]
    assert {axes.get_xlabel() for axes in panels.values()} == {"epoch"}


def test_learning_rates_are_drawn_if_they_change():
    rates = {"g_learning_rate": [1e-4, 1e-4], "d_learning_rate": [4e-4, 4e-4]}
    history = {"g_loss": [0.5, 0.4], **rates, "learning_rate": rates["g_learning_rate"]}
    assert list(drawn(plot_curves(history))) == ["Loss"]
    assert list(drawn(plot_curves(rates))) == ["Learning rate"]  # There is nothing else to draw.
    history["d_learning_rate"] = [4e-4, 2e-4]
    panels = drawn(plot_curves(history))
    assert list(panels) == ["Loss", "Learning rate"]
    assert legend_texts(panels["Learning rate"]) == ["G  0.0001", "D  0.0002"]


def test_lists_start_at_epoch_1_and_pairs_say_theirs():
    panels = drawn(plot_curves(HISTORY))
    np.testing.assert_array_equal(panels["Loss"].lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(panels["FID"].lines[0].get_xdata(), [0, 2, 3])
    np.testing.assert_array_equal(panels["FID"].lines[0].get_ydata(), [300, 90, 40])


def test_validation_is_dashed_in_the_same_colour():
    lines = drawn(plot_curves(HISTORY))["Loss"].lines
    assert lines[1].get_color() == lines[2].get_color() != lines[0].get_color()
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--"]


def test_a_history_object_of_a_resumed_training_keeps_its_epochs():
    history = types.SimpleNamespace(history={"g_loss": [0.2, 0.1]}, epoch=[5, 6])
    np.testing.assert_array_equal(read_series(history)["g_loss"][0], [6, 7])


def test_the_epoch_column_of_a_log_is_no_curve():
    series = read_series({"epoch": np.array([3, 4]), "g_loss": np.array([0.2, 0.1])})
    assert list(series) == ["g_loss"]
    np.testing.assert_array_equal(series["g_loss"], [[4, 5], [0.2, 0.1]])


def test_values_that_are_not_finite_leave_a_gap():
    panels = drawn(plot_curves({"g_loss": [1.0, np.nan, np.inf, 2.0], "fid_500": [np.nan] * 4}))
    shown = panels["Loss"].lines[0].get_ydata()
    np.testing.assert_array_equal(np.isnan(shown), [False, True, True, False])
    assert [text.get_text() for text in panels["FID"].texts] == ["no finite value"]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_any_number_of_panels_fits_the_figure(count):
    figure = plot_curves({f"measure_{index}": [1.0, 2.0] for index in range(count)})
    assert len(drawn(figure)) == count
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_legends_hide_no_curve():
    figure = plot_curves(HISTORY)
    figure.canvas.draw()
    for title, axes in drawn(figure).items():
        legend = axes.get_legend().get_window_extent()
        heading = axes._left_title.get_window_extent()
        assert legend.y0 >= axes.get_window_extent().y1, title
        assert legend.y1 <= heading.y0 + 6, title  # the letters' descent may touch


def test_panel_order_does_not_follow_the_keys():
    assert list(group_panels({"fid_1k": 0, "speed": 0, "g_loss": 0})) == ["Loss", "FID", "Speed"]


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"`history\['fid_1k'\]`.*3 epochs.*of length 1"):
        plot_curves({"g_loss": [1.0, 2.0, 3.0], "fid_1k": [9.0]})


@pytest.mark.parametrize("history", [{}, {"g_loss": []}, {"epoch": [0, 1]}])
def test_an_empty_history_is_refused(history):
    with pytest.raises(ValueError, match="`history` must hold at least one value"):
        plot_curves(history)


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="`history` must be .*Received: history of type list"):
        plot_curves([1.0, 2.0])


def test_monitors_have_their_panels_and_many_curves_are_counted():
    sigmas = {f"sigma/generator/conv_{i}": [(1, 1.0), (2, 1.1)] for i in range(5)}
    sigmas |= {f"sigma/discriminator/{x}": [(1, 2.0), (2, 2.1)] for x in ("a", "b", "logits")}
    figures = {
        "real_in_margin": [0.9, 0.8],
        "fake_in_margin": [1.0, 0.9],
        "attention_entropy/generator/attention_16": [0.99, 0.98],
        "gamma/generator/attention_16": [0.0, 0.1],
    }
    panels = drawn(plot_curves({**figures, **sigmas}))
    assert list(panels) == [
        "Inside the hinge margin",
        "Attention γ",
        "Attention entropy",
        "Largest singular value σ",
    ]
    assert legend_texts(panels["Inside the hinge margin"]) == ["real  0.8", "fake  0.9"]
    assert legend_texts(panels["Attention entropy"]) == ["G · attention 16  0.98"]
    sigma = panels["Largest singular value σ"]
    assert legend_texts(sigma) == ["G  5 curves", "D  3 curves"]
    assert len(sigma.lines) == 8
    assert len({line.get_color() for line in sigma.lines}) == 2


def test_a_notebook_shows_the_figure():
    """By itself a notebook knows the figures of pyplot alone, and would print `<Figure …>`."""
    figure = plot_curves({"d_loss": [1.0, 2.0]})
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(figure._repr_png_()))
    assert image.size == tuple(int(x * figure.dpi) for x in figure.get_size_inches())
