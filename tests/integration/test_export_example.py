"""The export example: files of every format, compared by their own runtimes."""

import subprocess
import sys
from pathlib import Path

import keras_sagan
from keras_sagan.models import FORMATS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "export_generator.py"


def test_export_of_a_saved_model(tmp_path):
    model = keras_sagan.SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4)
    model.save(tmp_path / "model.keras")
    command = [sys.executable, SCRIPT, "--model", tmp_path / "model.keras"]
    command += ["--output", tmp_path / "export"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if "largest difference" in line]
    assert [line.split()[0] for line in lines] == ["keras", *FORMATS]
    assert all(float(line.split()[-1]) < 1e-5 for line in lines)
    assert (tmp_path / "export" / "generator.keras").exists()
