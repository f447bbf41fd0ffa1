"""One run of the command line over three backends, killed twice: the files of one run."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from on_backends import SETTINGS

ROOT = Path(__file__).parents[2]
STEPS, EPOCHS = 2, 2
# The backends in turn, and the checkpoint after which each is killed.
LIVES = (("tensorflow", 1), ("jax", 3), ("torch", None))


# The command line with networks of few layers. It kills itself once a checkpoint is written.
COMMAND = """
import os
import signal
import sys
import time
from pathlib import Path
import pytest
import short_runs
from keras_sagan.callbacks import TrainingCheckpoint
from keras_sagan.cli import main
backend, manifest, output, *options = sys.argv[1:]

def save_and_wait(*given, **logs):
    save(*given, **logs)
    while f"step-{given[0].model.steps.numpy()}" in manifest:
        if Path(manifest).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)

short_runs.build_little(pytest.MonkeyPatch())
save, TrainingCheckpoint.on_train_batch_end = TrainingCheckpoint.on_train_batch_end, save_and_wait
for words in (["train", "--output", output, *options], ["evaluate", output, "--num-images", "16"]):
    assert main([*words, "--backend", backend]) == 0
"""


@pytest.mark.slow
def test_a_run_over_three_backends_is_one_run(tmp_path):
    for backend, _ in LIVES:
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed")
    output = tmp_path / "run"
    options = ["--base-filters", 4, "--batch-size", 4, "--epochs", EPOCHS, "--save-every", 1]
    options += ["--steps-per-epoch", STEPS, "--fid-images", 16, "--fid-every", EPOCHS]
    for backend, step in LIVES:
        manifest = output / "checkpoints" / f"step-{step}" / "manifest.json"
        words = [sys.executable, "-c", COMMAND, backend, manifest, output, *options]
        done = subprocess.run(
            [*map(str, words)],
            env={
                **os.environ,
                **SETTINGS,
                "KERAS_BACKEND": backend,
                "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == (-signal.SIGKILL if step else 0), done.stdout[-3000:]
        assert (output / "model.keras").exists() == (step is None)

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
    report = json.loads((output / "report.json").read_text())
    assert report["protocol"]["num_generated"] == 16 and report["values"]["fid"] > 0
