"""What runs on every backend passes its tests on the others too."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Functions of numpy's are the same everywhere.
OPS = [
    path
    for path in (TESTS / "ops").glob("test_*.py")
    if "from keras import ops" in path.read_text()
]
WHAT = (
    *sorted(OPS),
    TESTS / "layers",
    TESTS / "test_checks.py",
    TESTS / "test_penalties.py",
    *(TESTS / "models" / f"test_{name}.py" for name in ("inversion", "selection", "top_k")),
    *(TESTS / "data" / f"test_{name}.py" for name in ("batches", "folder")),
    *(
        TESTS / "callbacks" / f"test_{name}.py"
        for name in ("run_history", "sample_grid", "stop_any_model")
    ),
    *(
        TESTS / "metrics" / f"test_{name}.py"
        for name in ("every_backend", "extractors", "grey_classifier", "inception")
    ),
    *(TESTS / "callbacks" / f"test_checkpoint_{x}.py" for x in ("crashes", "writing")),
    *(TESTS / "integration" / f"{x}.py" for x in ("other_backends", "test_keras_io_example")),
)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_another_backend(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0"]
    result = subprocess.run(
        [*command, *map(str, WHAT)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # Hundreds of programs that run once.
            "OMP_NUM_THREADS": "1",  # PyTorch's threads wait for each other beside other tests.
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",  # For distributions on JAX.
        },
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout and len(OPS) >= 3
