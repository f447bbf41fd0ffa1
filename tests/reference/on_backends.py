"""Runs files of tests on another backend, in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# A program that runs once; PyTorch's threads wait for each other beside other tests.
SETTINGS = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "OMP_NUM_THREADS": "1"}


def devices(count):
    """The environment for a number of devices of JAX's."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}"}


def run_on(backend, paths):
    """Asserts that files of tests pass on a backend, except tests marked `any_backend`."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0"]
    command += ["-m", "not any_backend"]
    result = subprocess.run(
        [*command, *map(str, paths)],
        env={**os.environ, **SETTINGS, **devices(2), "KERAS_BACKEND": backend},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout
