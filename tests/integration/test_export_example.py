"""The export example: files of every format, compared by their own runtimes."""

import pytest
import tiny_networks as tiny
from example_scripts import load_example

from keras_sagan.models import FORMATS


@pytest.mark.slow
def test_export_of_a_saved_model(tmp_path, capsys):
    model = tiny.build_sagan_of_pictures()
    model.save(tmp_path / "model.keras")
    folders = ["--model", str(tmp_path / "model.keras"), "--output", str(tmp_path / "export")]
    load_example("export_generator").main(folders)
    output = capsys.readouterr().out
    lines = [line for line in output.splitlines() if "largest difference" in line]
    assert [line.split()[0] for line in lines] == ["keras", *FORMATS]
    assert all(float(line.split()[-1]) < 1e-5 for line in lines)
    assert (tmp_path / "export" / "generator.keras").exists()
