"""Shared by all tests: reference and benchmarks on the path, a known seed, the float32 policy."""

import atexit
import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the examples and benchmarks set it on import: or processes started after that round otherwise.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
TESTS = Path(__file__).parent
CHILDREN = str(TESTS / "reference" / "children")
if CHILDREN not in os.environ.get("PYTHONPATH", ""):
    os.environ["PYTHONPATH"] = os.pathsep.join([CHILDREN, os.environ.get("PYTHONPATH", "")])
sys.path[:0] = [str(TESTS / "reference"), CHILDREN]
sys.path.append(str(TESTS.parent / "benchmarks"))

KNOWN = {"tensorflow": "2.21.", "jaxlib": "0.10."}  # Others may end at a flag they don't know.


def has_known_xla():
    found = {x: list(importlib.metadata.distributions(name=x)) for x in KNOWN}
    return all(x.version.startswith(KNOWN[name]) for name in KNOWN for x in found[name])


if "XLA_FLAGS" not in os.environ and has_known_xla():
    # XLA's older code generator compiles in half the time, in a third on JAX. Programs run once or
    # twice, so they aren't optimized either.
    flags = ("use_fusion_emitters=false", "parallel_codegen_split_count=1")
    flags = [f"--xla_cpu_{flag}" for flag in flags] + ["--xla_backend_optimization_level=0"]
    os.environ["XLA_FLAGS"] = " ".join(flags)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The processes of a session share what JAX compiles, and one that builds a model anew finds it.
    PROGRAMS = tempfile.mkdtemp(prefix="keras_sagan_programs_")
    atexit.register(shutil.rmtree, PROGRAMS, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import keras
import pytest
from pipelines import untuned

if "sklearn" in sys.modules and sys.modules["sklearn"] is None:
    del sys.modules["sklearn"]  # A worker of pytest is such a process, and has the oracle.

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # Two logical devices, for the tests of two replicas; the others use the first.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    def iterate(dataset, iterate=tf.data.Dataset.__iter__):
        """Turns off autotuning: deleting a tuned iterator can block for up to a minute."""
        return iterate(untuned(dataset))

    tf.data.Dataset.__iter__ = iterate


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests go to one process: some share a run that takes a minute to make."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # It would leave the longest, of few tests, for the end.
    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True)
def known_state():
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
