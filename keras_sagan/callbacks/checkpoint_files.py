"""Reads and writes checkpoints in a folder; incomplete and damaged ones are never used."""

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import warnings

import numpy as np

from keras_sagan.callbacks.storage import MANIFEST, STATE, LocalFiles, RemoteFiles, digest_of
from keras_sagan.checks import check_path

FORMAT = 3  # The version of the manifest; `old_checkpoints` reads versions 1 and 2.
OWN = (MANIFEST, f"{MANIFEST}.new", STATE)  # Other files in a checkpoint folder belong to the user.
FOLDER = re.compile(r"step-(0|[1-9][0-9]*)(?:\.new)?")
# Errors that can occur even if a checkpoint file is intact.
PASSING = (MemoryError, PermissionError, TimeoutError, ConnectionError)


class DamagedCheckpoint(Exception):
    """Raised if a checkpoint file can't be read or has changed."""


class CheckpointFiles:
    """Manages the checkpoints of a run: folders `step-N` with `state.npz` and `manifest.json`.

    `state.npz` contains every variable, and `manifest.json` contains the checksums. A folder is
    written as `step-N.new`, synced to disk and renamed, so `step-N` is always complete. In a
    bucket, where folders can't be renamed, the manifest is written last, and a folder without a
    manifest is ignored.
    """

    def __init__(self, directory: str, keep: int):
        self.directory, self.keep = directory.rstrip("/"), keep
        self._disk = RemoteFiles(directory) if "://" in directory else LocalFiles()

    def path(self, step: int) -> str:
        return f"{self.directory}/step-{step}"

    def steps(self, is_complete: bool = True) -> list[int]:
        """Returns the sorted step numbers of the complete checkpoints, or of all checkpoints."""
        names = [x for x in map(FOLDER.fullmatch, self._disk.names(self.directory)) if x]
        found = {int(x[1]) for x in names if self._disk.is_folder(f"{self.directory}/{x[0]}")}
        if is_complete:
            found = {step for step in found if MANIFEST in self._disk.names(self.path(step))}
        return sorted(found)

    def check_writable(self):
        """Creates the folder, and raises OSError if no file can be written to it."""
        probe = f"{self.directory}/.writable-{os.getpid()}"
        try:
            self._disk.make(self.directory)
            self._disk.write(probe, lambda file: file.write(b"?"))
            self._disk.remove(probe)
        except OSError as error:
            text = "`directory` must be a folder that can be written. Received: "
            raise OSError(f"{text}directory={self.directory!r} ({error})") from error

    def write(self, step: int, arrays: dict, manifest: dict):
        """Writes a checkpoint and deletes old ones; if writing fails, deletes the new one."""
        folder, disk = self.path(step), self._disk
        new = disk.temporary(folder)
        with self._explained(folder):
            try:
                if f"step-{step}" in disk.names(self.directory) and not disk.is_folder(folder):
                    raise OSError("its name is taken; move that file or link away")
                self.remove(step)  # A damaged or incomplete checkpoint of this step may exist.
                disk.make(new)
                files = {STATE: disk.write(f"{new}/{STATE}", lambda x: np.savez(x, **arrays))}
                self._write_manifest(f"{new}/{MANIFEST}", {**manifest, "files": files})
                disk.publish(new, folder)
            except OSError:
                with contextlib.suppress(OSError):
                    self.remove(step)
                raise
        # A checkpoint of a later step must be damaged, or the run would have resumed from it, so it
        # doesn't count towards `keep`. With `keep=1`, as in `best`, it may be from before a kill.
        steps = self.steps()
        kept = [x for x in steps if x <= step][-self.keep :]
        for other in [x for x in steps if x not in kept and (x < step or self.keep == 1)]:
            self.remove(other)

    def update(self, step: int, changes: dict):
        """Updates entries in a manifest. If writing fails, the manifest remains unchanged."""
        path = f"{self.path(step)}/{MANIFEST}"
        new = self._disk.temporary(path)
        with self._explained(self.path(step)):
            self._write_manifest(new, {**self.manifest(step), **changes})
            self._disk.publish(new, path)

    @contextlib.contextmanager
    def _explained(self, folder):
        """Adds the step of the newest complete checkpoint to the message of a write error."""
        try:
            yield
        except (DamagedCheckpoint, OSError) as error:
            number, steps = getattr(error, "errno", None), self.steps()
            reason = getattr(error, "strerror", None) or error
            kept = f"The checkpoint of step {steps[-1]} is complete" if steps else "None exists yet"
            text = f"The checkpoint {folder} can't be written: {reason}. {kept}; run the same "
            text += "command again after fixing this."
            raise (OSError(number, text) if number else OSError(text)) from error

    def _write_manifest(self, path, manifest):
        manifest = json.loads(json.dumps({**manifest, "format": FORMAT}))
        content = json.dumps({"sha256": digest_of(manifest), "manifest": manifest}, sort_keys=True)
        self._disk.write(path, lambda file: file.write(content.encode()))

    def manifest(self, step: int) -> dict:
        """Returns the manifest of a checkpoint, or raises DamagedCheckpoint if it was changed."""
        folder = self.path(step)
        with reading(folder, MANIFEST):
            content = json.loads(self._disk.read(f"{folder}/{MANIFEST}"))
            if not isinstance(content, dict) or not isinstance(content.get("manifest"), dict):
                raise ValueError("it isn't a manifest")
            manifest = content["manifest"]
            if digest_of(manifest) != content["sha256"]:
                raise ValueError("its checksum is wrong")
            if manifest["step"] != step:
                raise ValueError(f"it is the manifest of step {manifest['step']}")
            number = int(manifest["format"])
        if number > FORMAT:
            expected = f"of format {FORMAT} or older: update keras_sagan to restore it"
            raise ValueError(f"{folder}/{MANIFEST} must be {expected}. Received: format={number}")
        return manifest

    def read(self, step: int) -> tuple[dict, dict]:
        """Returns the manifest and arrays, or raises DamagedCheckpoint if a file was changed."""
        manifest, folder = self.manifest(step), self.path(step)
        with reading(folder, STATE):
            data = self._disk.read(f"{folder}/{STATE}")
            if hashlib.sha256(data).hexdigest() != manifest["files"][STATE]:
                raise ValueError("its checksum is wrong")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return manifest, dict(arrays)

    def read_newest(self) -> tuple[dict | None, dict | None]:
        """Returns the result of `read` for the newest undamaged checkpoint, or `(None, None)`."""
        steps, read = self.steps(), self.read
        names = self._disk.names(self.directory)
        if not steps and any(name.endswith(".index") for name in names):
            from keras_sagan.callbacks import old_checkpoints

            steps = old_checkpoints.steps_of(names)
            read = functools.partial(old_checkpoints.read, self.directory)
        for step in reversed(steps):
            try:
                return read(step)
            except DamagedCheckpoint as error:
                text = f"The checkpoint of step {step} is damaged and the previous one is used. "
                warnings.warn(f"{text}{error}.", stacklevel=4)
        if steps:
            text = f"Every checkpoint in {self.directory} is damaged; see the warnings. Move the "
            raise OSError(f"{text}folder away to train from the first step.")
        return None, None

    def remove(self, step: int):
        """Removes a checkpoint, starting with its manifest, without which the folder is ignored."""
        for folder in (self.path(step), f"{self.path(step)}.new"):
            if self._disk.is_folder(folder):
                for name in [x for x in OWN if x in self._disk.names(folder)]:
                    self._disk.remove(f"{folder}/{name}")
                with contextlib.suppress(OSError):  # The folder may contain a user's file.
                    self._disk.remove_folder(folder)

    def remove_incomplete(self):
        """Removes incomplete checkpoints, which remain after an interrupted write or removal."""
        for step in set(self.steps(is_complete=False)) - set(self.steps()):
            self.remove(step)


@contextlib.contextmanager
def reading(folder: str, name: str):
    """Raises DamagedCheckpoint if a read fails, or OSError if the problem may be temporary."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, PASSING):
            text = f"The checkpoint {folder} can't be read at the moment, which doesn't mean that "
            raise OSError(f"{text}it is damaged: {reason}. Try again.") from error
        raise DamagedCheckpoint(f"{folder}/{name}: {reason}") from error


def check_directory(name: str, value) -> str:
    """Returns a folder's URL or absolute path, so that a later `os.chdir` has no effect."""
    path = check_path(name, value, allow_url=True).removeprefix("file://")
    return path if "://" in path else os.path.join(os.getcwd(), path)
