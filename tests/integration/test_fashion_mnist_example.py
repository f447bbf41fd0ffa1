"""The main job in miniature: what it leaves, and that interrupting it loses nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_sagan  # noqa: F401  registers the classes of the saved models

ROOT = Path(__file__).parents[2]
SHORT = ["--epochs", "2", "--steps_per_epoch", "40", "--fid_images", "200"]
SMALL = ["--base_filters", "4", "--batch_size", "16"]


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "fashion_mnist.py"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(*arguments):
    process = start(*arguments)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    code, output = run(*SHORT, *SMALL, "--workdir", str(workdir))
    assert code == 0, output
    return workdir


def test_it_leaves_pictures_model_and_results(finished):
    from PIL import Image

    for name in ("samples_epoch_000", "samples_epoch_002", "attention_epoch_002", "curves"):
        with Image.open(finished / f"{name}.png") as picture:
            assert min(picture.size) > 200, name
    results = json.loads((finished / "results.json").read_text())
    assert results["steps"] == 80 and results["seed"] == 0
    assert results["fid"]["protocol"]["num_generated"] == 200
    assert "sha256" in results["fid"]["protocol"]["feature_extractor"]
    assert all(np.isfinite(results["fid"][key]) for key in ("start", "end"))
    assert all(gamma != 0.0 for gamma in results["attention_gamma"].values())
    model = keras.saving.load_model(finished / "model.keras")
    assert model.generate(3, labels=[1, 2, 3]).shape == (3, 32, 32, 1)


def test_interrupted_and_resumed_equals_uninterrupted(finished, tmp_path):
    process = start(*SHORT, *SMALL, "--workdir", str(tmp_path))
    output = ""
    while "Epoch 2/2" not in output:
        output += process.stdout.read(16)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "--resume goes on" in rest, rest[-2000:]
    code, output = run("--epochs", "2", "--resume", "--workdir", str(tmp_path))
    assert code == 0, output
    first, second = (keras.saving.load_model(d / "model.keras") for d in (finished, tmp_path))
    assert int(first.steps) == int(second.steps) == 80
    for model in (first, second):
        model.all_state = [*model.variables, *model.optimizer.variables]
        model.all_state += model.d_optimizer.variables
    for one, other in zip(first.all_state, second.all_state):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=one.path)
    results = [json.loads((d / "results.json").read_text()) for d in (finished, tmp_path)]
    assert results[0]["fid"]["end"] == results[1]["fid"]["end"]


def test_a_run_is_never_overwritten(finished, tmp_path):
    code, output = run(*SHORT, "--workdir", str(finished))
    assert code == 1 and "holds a run. Use --resume" in output
    code, output = run("--resume", "--workdir", str(tmp_path / "none"))
    assert code == 1 and "no run is in" in output
