"""One run of the command line over three backends, killed twice: the files of one run."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from on_backends import SETTINGS

ROOT = Path(__file__).parents[2]
STEPS, EPOCHS = 4, 2
# The backends in turn, and the checkpoint after which each is killed.
LIVES = (("tensorflow", 5), ("jax", 7), ("torch", None))


# The command line with networks of few layers. It waits after each step, to be killed before the
# next one is saved.
COMMAND = """
import sys
import time
import pytest
import short_runs
from keras_sagan.callbacks import TrainingCheckpoint
from keras_sagan.cli import main
short_runs.build_little(pytest.MonkeyPatch())
save = TrainingCheckpoint.on_train_batch_end
TrainingCheckpoint.on_train_batch_end = lambda *x, **y: [save(*x, **y), time.sleep(1.5)][0]
sys.exit(main(sys.argv[1:]))
"""


def start(backend, *arguments):
    path = os.pathsep.join([str(ROOT), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments), "--backend", backend],
        env={**os.environ, "PYTHONPATH": path, **SETTINGS, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_after(process, checkpoint):
    """Waits for a checkpoint, and kills the process that wrote it."""
    try:
        for _ in range(3000):
            if (checkpoint / "manifest.json").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()[0][-3000:]
    finally:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


@pytest.mark.slow
def test_a_run_over_three_backends_is_one_run(tmp_path):
    for backend, _ in LIVES:
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed")
    output = tmp_path / "run"
    options = ["--output", output, "--base-filters", 4, "--batch-size", 4, "--epochs", EPOCHS]
    options += ["--steps-per-epoch", STEPS, "--save-every", 1, "--fid-images", 16]
    options += ["--fid-every", EPOCHS]
    for backend, killed in LIVES:
        process = start(backend, "train", *options)
        if killed is not None:
            kill_after(process, output / "checkpoints" / f"step-{killed}")
            assert not (output / "model.keras").exists()
            continue
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]

    record = json.loads((output / "run.json").read_text())
    assert record["steps"] == STEPS * EPOCHS and record["settings"]["backend"] == "torch"
    assert record["finished"] == {"epochs": EPOCHS, "step": STEPS * EPOCHS}
    epochs = [*range(1, EPOCHS + 1)]
    history = json.loads((output / "history.json").read_text())["history"]
    assert [epoch for epoch, _ in history["d_loss"]] == epochs
    assert [epoch for epoch, _ in history["fid_16"]] == [0, EPOCHS]
    assert record["fid"]["by_epoch"] == history["fid_16"]
    log = (output / "keras_sagan.log").read_text()
    for text in (*(f"epoch {epoch}: " for epoch in epochs), *(f"backend {b} " for b, _ in LIVES)):
        assert text in log, text
    for epoch in (0, *epochs):
        assert (output / f"samples_epoch_{epoch:03d}.png").exists(), epoch
    for name in ("curves.png", "samples.gif", f"attention_epoch_{EPOCHS:03d}.png"):
        assert (output / name).stat().st_size > 1000, name

    scores = start("torch", "evaluate", output, "--num-images", 16)
    said, _ = scores.communicate(timeout=200)
    assert scores.returncode == 0, said[-3000:]
    report = json.loads((output / "report.json").read_text())
    assert report["protocol"]["num_generated"] == 16 and report["values"]["fid"] > 0
