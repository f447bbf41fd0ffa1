"""A process that ends anywhere within a save leaves the last acknowledged step to be restored.

What a killed process leaves is what its folder holds at that moment. So a copy of the folder is
taken at each rename, removal and opening for writing, whichever function makes it, and each copy
is restored.
"""

import hashlib
import os
import shutil
import sys
import warnings

import keras
import pytest
import scalar_gan

from keras_sagan.callbacks import TrainingCheckpoint

STEPS = 3  # An epoch's.
IMAGES = scalar_gan.IMAGES[: 2 * STEPS]


def build():
    return scalar_gan.compiled(0.1, 0.1, run_eagerly=True)


class Recorder:
    """Sees what is done to the files of a folder.

    Attributes:
        events: List of pairs of an event, such as `"rename"`, and the path without the folder's.
        images: Copies of the folder, as a process that ends there would leave it, by the step
            that was acknowledged by then.
    """

    def __init__(self, directory, copies):
        self.directory, self.copies = str(directory), copies
        self.events, self.images, self.acknowledged = [], [], 0
        self._is_on = True
        self._seen = set()

    def __enter__(self):
        sys.addaudithook(self._audit)  # It can't be removed, but it can be off.
        return self

    def __exit__(self, *error):
        self._is_on = False

    def _audit(self, event, args):
        if not self._is_on or event not in ("open", "os.rename", "os.remove", "os.rmdir"):
            return
        writes = event == "open" and isinstance(args[2], int) and args[2] & os.O_ACCMODE
        if event != "open" or writes:
            self.record({"open": "write", "os.rename": "rename"}.get(event, "remove"), args[0])

    def record(self, event, path):
        path = os.path.abspath(os.fsdecode(path)) if not isinstance(path, int) else ""
        if not path.startswith(self.directory + os.sep):
            return
        path = os.path.relpath(path, self.directory)
        self.events.append((event, path))
        self._is_on = False
        self.copy()
        # A file that is written in its place is empty at first.
        if event == "write" and os.path.isfile(os.path.join(self.directory, path)):
            self.copy(empty=path)
        self._is_on = True

    def copy(self, empty=None):
        """Takes a copy, unless one with the same files was taken at the same step."""
        target = self.copies / str(len(self.images))
        shutil.copytree(self.directory, target)
        if empty is not None:
            (target / empty).write_bytes(b"")
        digest = hashlib.sha256(str(self.acknowledged).encode())
        for file in sorted(x for x in target.rglob("*") if x.is_file()):
            digest.update(file.relative_to(target).as_posix().encode() + b"\0" + file.read_bytes())
        if digest.digest() in self._seen:
            shutil.rmtree(target)
            return
        self._seen.add(digest.digest())
        self.images.append((self.acknowledged, target))


class Acknowledge(keras.callbacks.Callback):
    """Stands after the checkpoint: what it sees done is saved."""

    def __init__(self, recorder):
        super().__init__()
        self.recorder = recorder

    def on_train_batch_end(self, batch, logs=None):
        self.recorder.acknowledged = int(self.model.steps)


@pytest.fixture(scope="module", params=[1, 2])
def recorded(request, tmp_path_factory):
    """A run of two epochs that saves every step, keeps one or two, and the best."""
    run = tmp_path_factory.mktemp("run")
    with Recorder(run, tmp_path_factory.mktemp("copies")) as recorder:
        arguments = {"every_steps": 1, "keep": request.param, "monitor": "g_loss", "mode": "max"}
        callbacks = [TrainingCheckpoint(run, **arguments), Acknowledge(recorder)]
        build().fit(IMAGES, epochs=2, batch_size=2, shuffle=False, verbose=0, callbacks=callbacks)
        recorder.copy()
    return recorder


def remove_checkpoint(folder, step):
    shutil.rmtree(folder / f"step-{step}", ignore_errors=True)


@pytest.mark.slow
def test_wherever_the_process_ends_the_last_acknowledged_step_is_there(recorded, tmp_path):
    assert len(recorded.images) > 30 and recorded.acknowledged == 2 * STEPS
    model = build()
    for acknowledged, image in recorded.images:
        folder, steps = shutil.copytree(image, tmp_path / image.name), []
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # A killed process damages nothing.
            # The one before too: each that the folder says is there can be restored.
            while not steps or steps[-1]:
                model.steps.assign(0)
                steps.append(TrainingCheckpoint(folder).restore_latest(model))
                remove_checkpoint(folder, steps[-1])
            assert TrainingCheckpoint(folder).restore_best(model) <= steps[0]
        assert acknowledged <= steps[0] <= acknowledged + 1, (acknowledged, steps)


def test_the_events_of_a_save_are_seen(recorded):
    """Or the test above would say nothing of them."""
    seen = {(event, path) for event, path in recorded.events if path.startswith("step-4")}
    for file in ("state.npz", "manifest.json"):
        assert {("write", f"step-4.new/{file}"), ("remove", f"step-4/{file}")} <= seen
    assert {("rename", "step-4.new"), ("remove", "step-4")} <= seen


def test_data_reach_the_disk_before_their_manifest(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file))
    )
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda one, two: (synced.append(("rename", one)), replace(one, two))
    )
    build().fit(IMAGES, batch_size=2, verbose=0, callbacks=[TrainingCheckpoint(tmp_path)])
    new = str(tmp_path / "step-3.new")
    place = synced.index(("rename", new))
    assert {f"{new}/state.npz", f"{new}/manifest.json", new} <= set(synced[:place])
    assert str(tmp_path) in synced[place:]


@pytest.mark.parametrize("name", ["state.npz", "manifest.json"])
def test_a_file_that_has_grown_is_damaged(recorded, tmp_path, name):
    """All variables of such a file can still be read."""
    folder = shutil.copytree(recorded.images[-1][1], tmp_path / "run")
    newest = 2 * STEPS
    with open(folder / f"step-{newest}" / name, "ab") as file:
        file.write(b"0")
    with pytest.warns(UserWarning, match=f"damaged.*step-{newest}/{name}: "):
        if len(list(folder.glob("step-*"))) == 2:
            assert TrainingCheckpoint(folder).restore_latest(build()) == newest - 1
        else:
            with pytest.raises(OSError, match="Every checkpoint in .* is damaged"):
                TrainingCheckpoint(folder).restore_latest(build())
