"""The examples with networks of one's own, in miniature."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("PIL.Image")
ROOT = Path(__file__).parents[2]


def run(name, *arguments):
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def test_a_dcgan_with_and_without(tmp_path):
    small = ["--steps", 4, "--batch_size", 8, "--fid_images", 150, "--workdir", tmp_path]
    output = run("add_attention_to_dcgan.py", *small)
    scores = re.findall(r"FID of 150 images, (.*): ([\d.]+)", output)
    assert [name for name, _ in scores] == ["plain DCGAN", "with SNConv2D and SelfAttention2D"]
    assert all(float(score) > 0 for _, score in scores)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attention.png", "plain.png"]


def test_custom_networks(tmp_path):
    small = ["--epochs", 1, "--steps_per_epoch", 2, "--fid_images", 150, "--workdir", tmp_path]
    output = run("custom_networks.py", *small)
    assert len(re.findall(r"fid_150 after \d epochs: [\d.]+", output)) == 2
    assert (tmp_path / "samples_epoch_001.png").exists() and "loads to the same images" in output
