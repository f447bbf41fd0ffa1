"""The forms for TensorFlow on CPUs are a folder that can be deleted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keras_sagan

TESTS = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_ops_layers_and_step_pass_without_the_folder(tmp_path):
    package = tmp_path / "keras_sagan"
    ignored = shutil.ignore_patterns("__pycache__", "fashion_mnist_t10k")
    shutil.copytree(Path(keras_sagan.__file__).parent, package, ignore=ignored)
    shutil.rmtree(package / "ops" / "cpu")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    # What convolves, pools or attends by blocks, eagerly and in a graph.
    names = "two_steps or gradients or flip or sequential or oracle or plain_layer or kind_equal"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", names]
    files = ("ops/test_resampling", "ops/test_attention", "training/test_step")
    layers = ("spectral_norm_layers", "sn_convolutions", "self_attention2d")
    files += tuple(f"layers/test_{name}" for name in layers)
    command += [f"--rootdir={TESTS.parent}", *(str(TESTS / f"{name}.py") for name in files)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
