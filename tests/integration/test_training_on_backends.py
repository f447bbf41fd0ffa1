"""A training step is the same on TensorFlow, JAX and PyTorch, and so are files."""

import importlib.util
import os
import subprocess
import sys

import backend_target
import keras
import numpy as np
import pytest
import tiny_networks as tiny
from on_backends import SETTINGS, devices

from keras_sagan import callbacks
from keras_sagan.training import backend as backend_in_use

pytestmark = pytest.mark.slow
SHARES = {"mixed_bfloat16": 5e-2, "mixed_float16": 5e-2}  # Of the length of a change; or 1e-4.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What TensorFlow makes of every setting, and a model in the middle of its training."""
    folder = tmp_path_factory.mktemp("backends")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend_in_use, "draw_noise", backend_in_use.draw_noise)  # Put back later.
        backend_target.main(folder)
        keras.utils.set_random_seed(0)
        model = tiny.build_small_sagan(ema_momentum=0.9)
        model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(4e-3))
        backend_target.train(model, 0, 3)
        model.save(folder / "saved.keras")
        before = backend_target.state(model)
        backend_target.write(
            folder / "continued-tensorflow.npz", before, backend_target.train(model, 3, 3)
        )
        model, size = backend_target.build_half(), backend_target.BATCH
        checkpoint = callbacks.TrainingCheckpoint(folder / "half")
        images, labels = tiny.images(3 * size), tiny.labels(3 * size)
        model.fit(images, labels, size, shuffle=False, verbose=0, callbacks=[checkpoint])
        before = backend_target.state(model)
        backend_target.write(
            folder / "half-tensorflow.npz", before, backend_target.train(model, 3, 3)
        )
    return folder


def run(backend, folder, *arguments, **environment):
    result = subprocess.run(
        [sys.executable, backend_target.__file__, str(folder), *arguments],
        env={**os.environ, **SETTINGS, "KERAS_BACKEND": backend, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_equals_tensorflow(backend, folder):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run(backend, folder)
    for setting in backend_target.SETTINGS:
        own = folder / f"{setting}-{backend}.npz"
        backend_target.assert_close(
            folder / f"{setting}-tensorflow.npz", own, SHARES.get(setting, 1e-4)
        )
    # A file of TensorFlow's goes on, with the optimizers' slots, and comes back as it was.
    own = folder / f"continued-{backend}.npz"
    backend_target.assert_close(folder / "continued-tensorflow.npz", own, 1e-3, moves=False)
    model = keras.saving.load_model(folder / f"saved-{backend}.keras")
    ended = dict(np.load(own))
    for name, value in backend_target.state(model).items():
        if name != "logits":
            np.testing.assert_array_equal(value, ended[name], err_msg=name)
    backend_target.train(model, 6, 1)
    # So does a run in mixed_float16, with the same loss scales.
    paths = [folder / f"half-{name}.npz" for name in ("tensorflow", backend)]
    backend_target.assert_close(*paths, SHARES["mixed_float16"], moves=False)
    expected, found = (dict(np.load(path)) for path in paths)
    scales = [name for name in found if name.endswith("dynamic_scale")]
    assert [found[name] for name in scales] == 2 * [128.0] + 2 * [512.0]
    for name in [x for x in found if x in scales or x.startswith("before ") and "logits" not in x]:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_devices_of_jax_equal_one(folder):
    pytest.importorskip("jax")
    if not (folder / "conditional-jax.npz").exists():
        run("jax", folder)
    run("jax", folder, "2", **devices(2))
    for setting in backend_target.SHARED:
        own = folder / f"{setting}-jax-2.npz"
        share = SHARES.get(setting, 1e-5)
        backend_target.assert_close(folder / f"{setting}-jax.npz", own, share)
