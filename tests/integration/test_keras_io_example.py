"""The example in the form of keras.io, in miniature; `test_backends.py` runs it on each backend."""

import ast
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
import matplotlib.pyplot as plt
from short_runs import load_few, train_briefly

PATH = Path(__file__).parents[2] / "examples" / "keras_io" / "sagan.py"
SMALL = {
    "EPOCHS = 6": "EPOCHS = 1",
    "NUM_FID_IMAGES = 5000": "NUM_FID_IMAGES = 20",
    "FILTERS = 16": "FILTERS = 8",
    "BATCH_SIZE = 64": "BATCH_SIZE = 2",
    "d_steps=2": "d_steps=1",
    "images = pad_to_32(images)": "images, labels = pad_to_32(images)[:20], labels[:20]",
    "steps_per_epoch = len(images) // BATCH_SIZE": "steps_per_epoch = 1",
    # One block in each network: JAX compiles three for a minute.
    "(4 * 4 * 4 * FILTERS)": "(16 * 16 * FILTERS)",
    "(4, 4, 4 * FILTERS)": "(16, 16, FILTERS)",
    "upsampling_block(x, labels, 4 * FILTERS)": "x",
    "upsampling_block(x, labels, 2 * FILTERS)": "x",
    "downsampling_block(x, 2 * FILTERS)": "x",
    "downsampling_block(x, 4 * FILTERS)": "x",
    "4 * FILTERS)(labels)": "FILTERS)(labels)",
}


def test_it_has_the_form_of_keras_io():
    source = PATH.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300
    header = ast.get_docstring(ast.parse(source)).splitlines()
    names = "Title", "Author", "Date created", "Last modified", "Description", "Accelerator"
    assert tuple(line.partition(":")[0] for line in header) == names


@pytest.mark.slow
def test_it_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    train_briefly(monkeypatch)
    load_few(monkeypatch)
    source = PATH.read_text(encoding="utf-8")
    for full, small in SMALL.items():
        assert source.count(full) == 1, full
        source = source.replace(full, small)
    try:
        exec(compile(source, str(PATH), "exec"), {"__name__": "__main__"})
        assert len(plt.get_fignums()) == 1 and Path("attention.png").exists()
    finally:
        plt.close("all")
    output = capsys.readouterr().out
    assert "The output equals the input: True" in output and "sum to 1.0000" in output
    assert float(re.search(r"distance of 20 images: ([\d.]+)", output)[1]) > 0
