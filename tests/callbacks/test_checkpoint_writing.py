"""Checkpoints in a bucket, and those that a thread writes."""

import builtins
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import keras
import numpy as np
import pytest
import scalar_gan

from keras_sagan.callbacks import RunHistory, TrainingCheckpoint, checkpoint_files

STEPS = 3  # An epoch's.


def build():
    return scalar_gan.compiled(0.1, 0.1, run_eagerly=True)


def fit(model, callbacks, epochs=1):
    images, arguments = scalar_gan.IMAGES[: 2 * STEPS], {"shuffle": False, "verbose": 0}
    return model.fit(images, batch_size=2, epochs=epochs, callbacks=callbacks, **arguments)


def weights(model):
    return [keras.ops.convert_to_numpy(x) for x in [*model.variables, *model.optimizer.variables]]


def assert_same(one, two):
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def bucket():
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/bucket", recursive=True)


def files_in(bucket):
    return sorted(x.removeprefix("/bucket/run/") for x in bucket.find("/bucket/run"))


def test_a_bucket(bucket):
    bucket.pipe_file("/bucket/run/step-2/users.txt", b"mine")
    model, callback = build(), TrainingCheckpoint("memory://bucket/run", every_steps=1, keep=1)
    fit(model, [callback])
    expected = ["step-2/users.txt", "step-3/manifest.json", "step-3/state.npz"]
    assert files_in(bucket) == expected
    other = build()
    assert TrainingCheckpoint("memory://bucket/run").restore_latest(other) == STEPS
    assert_same(model, other)
    resumed = build()
    fit(resumed, [TrainingCheckpoint("memory://bucket/run", keep=1, monitor="g_loss")], epochs=2)
    fit(model, [])
    assert_same(model, resumed)
    assert files_in(bucket)[:2] == ["best/step-6/manifest.json", "best/step-6/state.npz"]


def test_a_step_without_its_manifest_does_not_count(bucket):
    fit(build(), [TrainingCheckpoint("memory://bucket/run", every_steps=1, keep=3)])
    bucket.rm_file("/bucket/run/step-3/manifest.json")
    callback = TrainingCheckpoint("memory://bucket/run")
    assert callback.restore_latest(build()) == 2
    bucket.pipe_file("/bucket/run/step-2/state.npz", b"other")
    with pytest.warns(UserWarning, match="step 2 is damaged .*memory://bucket/run/step-2/state"):
        assert callback.restore_latest(build()) == 1


def test_the_manifest_is_written_last(bucket, monkeypatch):
    opened, make = [], type(bucket).open

    def open_file(self, path, mode):
        opened.append((path, mode))
        return make(self, path, mode)

    monkeypatch.setattr(type(bucket), "open", open_file)
    fit(build(), [TrainingCheckpoint("memory://bucket/run")])
    written = [path for path, mode in opened if "step-3" in path and mode == "wb"]
    assert [path.rpartition("/")[2] for path in written] == ["state.npz", "manifest.json"]


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r'(?s)gs://bucket/run .*"\.\[remote\]"'):
        TrainingCheckpoint("gs://bucket/run")


def test_a_file_system_that_cannot_sync(tmp_path, monkeypatch):
    def fsync(file):
        raise OSError(number, "no sync")

    monkeypatch.setattr(os, "fsync", fsync)
    number, history = errno.EINVAL, RunHistory(tmp_path / "history.json")
    fit(build(), [history, TrainingCheckpoint(tmp_path)])
    assert TrainingCheckpoint(tmp_path).restore_latest(build()) == STEPS
    assert history.path.exists()
    number = errno.EIO
    with pytest.raises(OSError, match="no sync"):
        history.save()


# In the background


@pytest.fixture
def slow_writing(monkeypatch):
    """Writing waits until the event is set."""
    event = threading.Event()

    def slow_open(path, mode):
        if mode == "wb" and str(path).endswith("state.npz"):
            assert event.wait(60)
        return builtins.open(path, mode)

    monkeypatch.setattr(checkpoint_files.LocalFiles, "open", staticmethod(slow_open))
    return event


class At(keras.callbacks.Callback):
    def __init__(self, step, function):
        super().__init__()
        self.step, self.function = step, function

    def on_train_batch_end(self, batch, logs=None):
        if int(keras.ops.convert_to_numpy(self.model.steps)) == self.step:
            self.function()


def test_training_goes_on_meanwhile_and_the_values_are_those_of_the_step(tmp_path, slow_writing):
    """Step 2 is still being written when step 3 has changed every variable."""
    kept = []
    model = build()
    callback = TrainingCheckpoint(tmp_path, every_steps=2, every_epochs=None, use_background=True)
    fit(
        model,
        [
            callback,
            At(2, lambda: kept.append(weights(model))),
            At(3, lambda: (kept.append(list(tmp_path.glob("step-?"))), slow_writing.set())),
        ],
    )
    assert kept[1] == []
    other = build()
    (tmp_path / "step-3/manifest.json").unlink()
    assert TrainingCheckpoint(tmp_path).restore_latest(other) == 2
    for a, b in zip(weights(other), kept[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_error_is_raised_at_the_next_save(tmp_path, monkeypatch):
    def full(path, mode):
        if "step-2" in path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return builtins.open(path, mode)

    monkeypatch.setattr(checkpoint_files.LocalFiles, "open", staticmethod(full))
    model = build()
    callback = TrainingCheckpoint(tmp_path, every_steps=1, use_background=True)
    with pytest.raises(OSError, match="No space left .*step 1 is complete; run the same") as raised:
        fit(model, [callback])
    assert raised.value.errno == errno.ENOSPC
    assert int(keras.ops.convert_to_numpy(model.steps)) == 3


SCRIPT = """
import sys, time
import keras_sagan.callbacks.checkpoint_files as files
from keras_sagan.callbacks import TrainingCheckpoint
sys.path[:0] = {folders!r}
import test_checkpoint_writing as test

def slow_open(path, mode):
    time.sleep(0.3)
    return open(path, mode)

files.LocalFiles.open = staticmethod(slow_open)
callback = TrainingCheckpoint({run!r}, every_steps=2, use_background=True)
test.fit(test.build(), [callback, test.At(2, lambda: sys.exit(3))])
"""


@pytest.mark.slow
@pytest.mark.any_backend
def test_a_process_ends_when_it_is_written(tmp_path):
    here = Path(__file__).parent
    folders = [str(here), str(here.parent / "reference")]
    script = SCRIPT.format(folders=folders, run=str(tmp_path / "run"))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=300)
    assert result.returncode == 3, result.stderr.decode()[-2000:]
    assert TrainingCheckpoint(tmp_path / "run").restore_latest(build()) == 2
