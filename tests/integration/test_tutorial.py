"""The tutorial notebook runs from the first cell to the last, with smaller numbers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from short_runs import build_little, load_few, train_briefly

pytest.importorskip("matplotlib")
NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
SMALL = {"EPOCHS, STEPS": "1, 1", "FILTERS, FID_IMAGES": "4, 20"}


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_briefly(monkeypatch)
    build_little(monkeypatch)
    load_few(monkeypatch)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for names, values in SMALL.items():
        code[0], count = re.subn(
            rf"^{names} = [\d, ]+\d", f"{names} = {values}", code[0], flags=re.M
        )
        assert count == 1, names
    namespace = {}
    for number, cell in enumerate(code, start=1):
        exec(compile(cell, f"cell {number} of tutorial.ipynb", "exec"), namespace)
    assert np.isfinite(namespace["fid"].result())
    assert namespace["samples"].shape == (80, 32, 32, 1)
    # The last line of the last cell says that the file gives the same images.
    assert eval(code[-1].splitlines()[-1], namespace) is True
    for name in ("samples.gif", "neighbours.png", "model.keras"):
        assert (tmp_path / "runs" / "tutorial" / name).exists(), name


def test_a_newcomer_reads_it_in_fifteen_minutes():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    words = sum(len("".join(cell["source"]).split()) for cell in cells)
    assert words < 15 * 120  # Half the speed of plain reading: code and figures take time.
