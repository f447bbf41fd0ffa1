"""Names beside pictures: read in every alphabet that a font has, and as they are."""

import warnings

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image, ImageFont

from keras_sagan.callbacks import AttentionFigure, SampleGrid
from keras_sagan.visualization import plot_attention, plot_curves, sample_grid, save_gif
from keras_sagan.visualization.names import names_of

IMAGES = np.full((2, 64, 64, 1), 128, "uint8")
WIDTH = 64 + 2 * 2  # of the images beside the names
NO_FONT = r"`class_names` has characters that the fonts.*'猫' as class 1"


def margin(name):
    return sample_grid(IMAGES[:1], [name])[:, :-WIDTH]


def test_signs_are_not_boxes():
    """A missing sign is a box, and all boxes are alike."""
    signs = "éżßΩЖñ→"
    assert all(margin(sign).min() < 128 for sign in signs)
    assert len({margin(sign).tobytes() for sign in signs}) == len(signs)


def test_names_keep_their_letters_apart():
    drawn = {margin(name).tobytes() for name in ("Кошка", "Мышка", "Żółw", "Größe", "Ωμέγα")}
    assert len(drawn) == 5


def test_ascii_names_are_drawn_in_pillows_own_font():
    mask = ImageFont.load_default(size=(64 + 2) * 0.24).getmask("cat")
    ink = 255 - margin("cat")[..., 0].astype(int)
    rows, columns = np.nonzero(ink)
    assert abs(np.ptp(columns) + 1 - mask.size[0]) <= 1
    assert abs(np.ptp(rows) + 1 - mask.size[1]) <= 1


def test_a_name_on_several_lines_is_written_on_one():
    np.testing.assert_array_equal(margin("a\nb\tc"), margin("a b c"))


def test_a_name_without_a_font_is_replaced_and_warned_of():
    with pytest.warns(UserWarning, match=NO_FONT):
        assert names_of([1, 0], ["Кошка", "猫"], 2) == ["class 1", "Кошка"]
    with pytest.warns(UserWarning, match="`row_labels` has characters.*'日本' as row 0"):
        drawn = sample_grid(IMAGES, ["日本", "b"], rows=2)
    np.testing.assert_array_equal(drawn, sample_grid(IMAGES, ["row 0", "b"], rows=2))


def test_a_name_that_is_not_valid_utf8_is_replaced():
    with pytest.warns(UserWarning, match="`class_names` has characters.*caf.*as class 0"):
        assert names_of([0, 1], [b"caf\xe9".decode(errors="surrogateescape"), "b"], 2) == [
            "class 0",
            "b",
        ]


@pytest.mark.parametrize("callback", [SampleGrid, AttentionFigure])
def test_callbacks_warn_once(callback, tmp_path):
    with pytest.warns(UserWarning, match=NO_FONT):
        made = callback(tmp_path, class_names=["Кошка", "猫"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names_of([0, 1], made.class_names, 2) == ["Кошка", "class 1"]


def test_a_gif_has_the_signs(tmp_path):
    frame = sample_grid(IMAGES, ["Кошка", "Żółw"], rows=2)
    save_gif(tmp_path / "a.gif", [frame, frame])
    with Image.open(tmp_path / "a.gif") as picture:
        found = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(found - frame).max() < 32


BAD_TEX = ("$", "$x_{", "5$ or 6$", "\\frac$a$", "$\\nothing$", "a_b^c")


@pytest.mark.parametrize("name", BAD_TEX)
def test_dollars_are_no_formulas(name, tmp_path):
    scores = np.full((2, 8, 8, 4, 4), 1 / 16, "float32")
    row_labels = [name, "b"]
    figure = plot_attention(
        IMAGES, scores, num_points=1, path=tmp_path / "a.png", title=name, row_labels=row_labels
    )
    texts = [x for x in figure.findobj(Text) if x.get_text() == name]
    assert len(texts) == 2 and not any(x.get_parse_math() for x in texts)
    history = {f"loss {name}": [1.0, 2.0], name: [3.0, 4.0]}
    figure = plot_curves(history, path=tmp_path / "b.png", title=name)
    starts = name, name.replace("_", " "), "loss "
    texts = [x for x in figure.findobj(Text) if x.get_text().lower().startswith(starts)]
    # The title, two curves and their panels, of which one is called Loss.
    assert len(texts) == 4
    assert not any(x.get_parse_math() for x in texts)
