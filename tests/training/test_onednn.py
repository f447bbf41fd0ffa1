"""The setting without which convolutions are slow on some processors."""

import os
import subprocess
import sys
import warnings

import pytest
import tensorflow as tf

from keras_sagan.training import tensorflow as backend

WARNING = "Import `keras_sagan` before TensorFlow"


@pytest.mark.parametrize(
    "flags, expected",
    [
        ("sse4_2 avx avx2 fma", True),
        ("avx2 avx512f avx512bw", True),
        ("avx2 avx512f avx512_vnni", False),
        ("avx2 avx_vnni", False),
        ("avx2 amx_tile amx_int8 amx_bf16", False),
        ("asimd", False),
        ("", False),
    ],
)
def test_processors_that_need_it(flags, expected):
    assert backend.needs_onednn_setting(set(flags.split())) is expected


@pytest.mark.parametrize("setting", [None, "0", "1"])
@pytest.mark.parametrize("gpus", [[], ["gpu"]])
def test_the_first_step_warns_once_where_nothing_is_set(setting, gpus, monkeypatch):
    monkeypatch.setattr(backend, "processor_flags", lambda: {"avx2"})
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: gpus)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if setting is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", setting)
    backend.warn_of_slow_convolutions.cache_clear()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(3):
            backend.warn_of_slow_convolutions()
    expected = 1 if setting is None and not gpus else 0
    assert [WARNING in str(x.message) for x in found] == [True] * expected


NO_TENSORFLOW = """
import os, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            raise ModuleNotFoundError

sys.meta_path.insert(0, Missing())
if IS_LOADED:
    sys.modules["tensorflow"] = None
try:
    import keras_sagan
except ImportError:
    print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_loaded, expected", [(False, "1"), (True, "None")])
def test_the_import_sets_it_where_that_is_in_time(is_loaded, expected):
    """What is set where the package is about to import TensorFlow, which takes seconds."""
    code = NO_TENSORFLOW.replace("IS_LOADED", str(is_loaded))
    env = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr
