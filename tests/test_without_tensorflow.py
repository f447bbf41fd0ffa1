"""On JAX the package works where TensorFlow isn't installed, and says what needs it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from on_backends import SETTINGS, devices

SCRIPT = """
import importlib, json, os, pathlib, pkgutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith(("tensorflow", "tf_keras")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import keras
import keras_sagan
import numpy as np

OF_OTHER_BACKENDS = ("keras_sagan.ops.cpu",)
OF_OTHER_BACKENDS += ("keras_sagan.training.tensorflow", "keras_sagan.training.torch")
for found in pkgutil.walk_packages(keras_sagan.__path__, "keras_sagan."):
    if not found.name.startswith(OF_OTHER_BACKENDS):
        importlib.import_module(found.name)

from keras_sagan import callbacks, data, distribution, metrics, models

images, labels = data.load_fashion_mnist()
images, labels = images[:8], labels[:8]
pathlib.Path("saved_model.pb").write_bytes(b"")
refused = {}
for name, call in {
    "load_tfds": lambda: data.load_tfds("mnist"),
    "tpu": lambda: distribution.make_strategy(tpu="local"),
    "processes": lambda: distribution.make_strategy("multi_worker"),
    "number": lambda: (
        os.environ.update(KERAS_DISTRIBUTION_PROCESS_ID="first"),
        distribution.make_strategy(),
    ),
    "devices": lambda: distribution.make_strategy(devices=["GPU:0"]),
    "old checkpoint": lambda: callbacks.TrainingCheckpoint(OLD).restore_best(None),
    "SampleGrid": lambda: callbacks.SampleGrid("run", log_dir="run"),
    "export_generator": lambda: models.export_generator(None, "run"),
    "TFGANInception": lambda: metrics.TFGANInception(".")(images / np.float32(255)),
    "load_tfgan_eval": metrics.load_tfgan_eval,
}.items():
    try:
        call()
    except Exception as error:
        refused[name] = [type(error).__name__, str(error)]
os.environ.pop("KERAS_DISTRIBUTION_PROCESS_ID")

fid = metrics.FrechetInceptionDistance(metrics.GreyClassifierFeatures())
fid.update_state(images[:4], real=True)
fid.update_state(images[4:], real=False)

from PIL import Image

for name, size in (("a", (5, 9)), ("b", (40, 30))):
    Image.new("RGB", size, "red").save(f"{name}.png")

works = {
    "strategies": [str(distribution.make_strategy(name)) for name in ("auto", "none")],
    "devices": str(distribution.make_strategy(devices=["CPU:1"]).device_mesh.devices),
    "is_chief": distribution.is_chief(None),
    "check_workers_agree": distribution.check_workers_agree(None, seed=1),
    "chief_decides": distribution.chief_decides(keras.distribution.distribution(), False),
    "folder": data.load_image_folder(".", image_size=8).images.tolist(),
    "batch": data.make_dataset(images, labels, batch_size=8)[0][0].shape,
    "fid": fid.result(),
}
imported = [name for name in sys.modules if name.startswith("tensorflow")]
print(json.dumps({"refused": refused, "works": works, "imported": imported}))
"""
OLD = Path(__file__).parent / "callbacks" / "old_checkpoints"
NEEDS = "needs TensorFlow. Run: pip install tensorflow"
REFUSED = {
    "load_tfds": ("ImportError", 'run: pip install ".[data]"'),
    "tpu": ("ValueError", "needs no name for a TPU on JAX"),
    "processes": ("RuntimeError", "KERAS_DISTRIBUTION_JOB_ADDRESSES to host:port of the first"),
    "number": ("RuntimeError", "Received: {'process_id': 'first'}, for which JAX says:"),
    "devices": (
        "ValueError",
        "different names among ['CPU:0', 'CPU:1']. Received: devices=['GPU:0']",
    ),
    "old checkpoint": ("ImportError", NEEDS),
    "SampleGrid": ("ImportError", NEEDS),
    "export_generator": ("RuntimeError", "under KERAS_BACKEND=tensorflow"),
    "TFGANInception": ("ImportError", NEEDS),
    "load_tfgan_eval": ("ImportError", 'run: pip install ".[metrics]"'),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    for name in ("jax", "PIL"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("OLD)", f"{str(OLD)!r})")],
        env={**os.environ, **SETTINGS, **devices(2), "KERAS_BACKEND": "jax"},
        cwd=tmp_path_factory.mktemp("without"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_nothing_imports_tensorflow(report):
    assert report["imported"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_tensorflow_says_so_in_one_line(report, name):
    kind, part = REFUSED[name]
    found, message = report["refused"][name]
    assert found == kind and part in message and "\n" not in message, message


@pytest.mark.slow
def test_all_else_works(report):
    works = report["works"]
    assert ["(2,)" in works["strategies"][0], "(1,)" in works["strategies"][1]] == [True, True]
    assert works["devices"] == "['cpu:1']"
    assert works["is_chief"] is True and works["chief_decides"] is False
    assert works["check_workers_agree"] is None
    assert works["folder"] == [[[[255, 0, 0]] * 8] * 8] * 2
    assert works["batch"] == [8, 28, 28, 1]
    assert works["fid"] > 0
