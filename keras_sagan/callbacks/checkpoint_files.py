"""Checkpoints in a folder: each is complete or doesn't count, and a damaged one is never used."""

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import re
import warnings
import zipfile

import numpy as np

from keras_sagan.checks import check_path

FORMAT = 3
"""The format of a manifest; folders of formats 1 and 2 are read by `old_checkpoints`."""
STATE, MANIFEST = "state.npz", "manifest.json"
OWN = (MANIFEST, f"{MANIFEST}.new", STATE)  # Every other file belongs to the user.
FOLDER = re.compile(r"step-(0|[1-9][0-9]*)(?:\.new)?")
OLD = re.compile(r"step-([0-9]+)\.json")
# These errors don't say that a file is damaged.
PASSING = (MemoryError, PermissionError, TimeoutError, ConnectionError)
MALFORMED = (ValueError, LookupError, TypeError, RecursionError, EOFError, zipfile.BadZipFile)


class DamagedCheckpoint(Exception):
    """A file of a checkpoint isn't as it was written."""


class CheckpointFiles:
    """The checkpoints of one run in a folder.

    A checkpoint is a folder `step-N` with `state.npz`, which holds every variable, and
    `manifest.json`, which holds the checksums. It is written as `step-N.new`, synced and renamed,
    so that it is complete when it exists. A bucket can't rename: there the manifest is written
    last, and a folder without a manifest doesn't count.

    Args:
        directory: String, a folder on a disk, or a URL such as `gs://bucket/run`.
        keep: Integer, how many of the newest checkpoints to keep.
    """

    def __init__(self, directory, keep):
        self.directory, self.keep = directory.rstrip("/"), keep
        self._disk = LocalFiles()
        if "://" in directory:
            from keras_sagan.callbacks.remote_files import RemoteFiles

            self._disk = RemoteFiles(directory)

    def path(self, step):
        return f"{self.directory}/step-{step}"

    def steps(self):
        """Returns the steps of the complete checkpoints, ascending."""
        return [step for step in self._found() if MANIFEST in self._disk.names(self.path(step))]

    def _found(self):
        """Returns the steps of all folders, also of those that are incomplete."""
        names = filter(FOLDER.fullmatch, self._disk.names(self.directory))
        folders = [name for name in names if self._disk.is_folder(f"{self.directory}/{name}")]
        return sorted({int(FOLDER.fullmatch(name)[1]) for name in folders})

    def check_writable(self):
        """Makes the folder, and raises OSError unless a file can be written there."""
        probe = f"{self.directory}/.writable-{os.getpid()}"
        try:
            self._disk.make(self.directory)
            self._write(probe, lambda file: file.write(b"?"))
            self._disk.remove(probe)
        except OSError as error:
            raise OSError(
                "`directory` must be a folder that can be written. "
                f"Received: directory={self.directory!r}, where the system says: {error}"
            ) from error

    def write(self, step, arrays, manifest):
        """Writes a checkpoint of arrays by key, and removes those that are too many.

        Raises:
            OSError: If it can't be written; what was written of it is removed.
        """
        folder = self.path(step)
        new = f"{folder}.new" if self._disk.can_rename else folder
        try:
            if os.path.basename(folder) in self._disk.names(self.directory):
                if not self._disk.is_folder(folder):
                    raise OSError("its name is taken; move what is there away")
            self.remove(step)  # It is damaged, or a process ended while writing it.
            self._disk.make(new)
            digest = self._write(f"{new}/{STATE}", lambda file: np.savez(file, **arrays))
            self._write_manifest(f"{new}/{MANIFEST}", {**manifest, "files": {STATE: digest}})
            self._disk.publish(new, folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.remove(step)
            raise self._explained(error, folder) from error
        for old in [x for x in self.steps() if x <= step][: -self.keep]:
            self.remove(old)  # Later ones are damaged: they stay.

    def update(self, step, changes):
        """Replaces entries of a manifest. Raises OSError if it can't; it is then as it was."""
        path = f"{self.path(step)}/{MANIFEST}"
        new = f"{path}.new" if self._disk.can_rename else path
        try:
            self._write_manifest(new, {**self.manifest(step), **changes})
            self._disk.publish(new, path)
        except (DamagedCheckpoint, OSError) as error:
            raise self._explained(error, self.path(step)) from error

    def _explained(self, error, folder):
        """Returns an error that says which checkpoint is complete."""
        text = f"The checkpoint {folder} can't be written: {error}"
        number = getattr(error, "errno", None)
        if number == errno.ENOSPC:
            text = f"No space left for the checkpoint {folder}"
        steps = self.steps()
        kept = f"The checkpoint of step {steps[-1]} is complete" if steps else "There is none"
        text = f"{text}. {kept}; run the same again when that is put right."
        return OSError(number, text) if number else OSError(text)

    def describe(self, manifest):
        """Says in words what a manifest belongs to."""
        done, epoch = manifest["epoch_step"], manifest["epoch"] + 1
        where = f"{done} steps into epoch {epoch}" if done else f"at the start of epoch {epoch}"
        return f"step {manifest['step']} ({where}) from {self.path(manifest['step'])}"

    def _write_manifest(self, path, manifest):
        manifest = json.loads(json.dumps({**manifest, "format": FORMAT}))
        content = json.dumps({"sha256": _digest(manifest), "manifest": manifest}, sort_keys=True)
        self._write(path, lambda file: file.write(content.encode()))

    def _write(self, path, write):
        """Has `write(file)` write a file, and returns its sha256."""
        with self._disk.open(path, "wb") as file:
            hashed = _Hashed(file)
            write(hashed)
            self._disk.sync(file)
        return hashed.sha256.hexdigest()

    def _read(self, path):
        with self._disk.open(path, "rb") as file:
            return file.read()

    def manifest(self, step):
        """Returns the manifest of a checkpoint; raises DamagedCheckpoint if it was changed."""
        path = f"{self.path(step)}/{MANIFEST}"
        with damaged(path):
            content = json.loads(self._read(path))
            manifest, checksum = content["manifest"], content["sha256"]
            if _digest(manifest) != checksum:
                raise ValueError("its checksum is wrong")
            if manifest["step"] != step:
                raise ValueError(f"it is the manifest of step {manifest['step']}")
            written_as = int(manifest["format"])
        if written_as > FORMAT:
            raise ValueError(
                f"The manifest {path} must be of format {FORMAT} or older: update keras_sagan to "
                f"restore it. Received: format={written_as}"
            )
        return manifest

    def read(self, step):
        """Returns the manifest and the arrays; raises DamagedCheckpoint if one was changed."""
        manifest, path = self.manifest(step), f"{self.path(step)}/{STATE}"
        with damaged(path):
            data = self._read(path)
            if hashlib.sha256(data).hexdigest() != manifest["files"][STATE]:
                raise ValueError("its checksum is wrong")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return manifest, dict(arrays)

    def read_newest(self):
        """Returns what `read` does of the newest checkpoint that isn't damaged, or two `None`.

        Raises:
            OSError: If every checkpoint is damaged, or the newest can't be read at the moment.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.read(step)
            except DamagedCheckpoint as error:
                warnings.warn(
                    f"The checkpoint of step {step} is damaged and the one before it is used. "
                    f"{error}.",
                    stacklevel=4,
                )
            except PASSING as error:
                raise OSError(
                    f"The checkpoint {self.path(step)} can't be read at the moment, which doesn't "
                    f"mean that it is damaged: {str(error) or type(error).__name__}. Try again."
                ) from error
        if steps:
            raise OSError(
                f"Every checkpoint in {self.directory} is damaged; see the warnings. Move the "
                "folder away to train from the first step."
            )
        names = self._disk.names(self.directory)
        old = [int(x[1]) for x in map(OLD.fullmatch, names) if x and f"step-{x[1]}.index" in names]
        if old:
            from keras_sagan.callbacks import old_checkpoints

            return old_checkpoints.read_newest(self.directory, sorted(old))
        return None, None

    def remove(self, step):
        """Removes a checkpoint, its manifest first: one that is removed in part doesn't count."""
        for folder in (self.path(step), f"{self.path(step)}.new"):
            if self._disk.is_folder(folder):
                for name in [x for x in OWN if x in self._disk.names(folder)]:
                    self._disk.remove(f"{folder}/{name}")
                with contextlib.suppress(OSError):  # A user's file is in it.
                    self._disk.remove_folder(folder)

    def remove_incomplete(self):
        """Removes what an earlier process was writing, or removing, when it ended."""
        complete = self.steps()
        for step in self._found():
            if step not in complete:
                self.remove(step)


class LocalFiles:
    """Folders and files of this machine."""

    can_rename = True
    open, remove, remove_folder = map(staticmethod, (open, os.remove, os.rmdir))
    make = staticmethod(functools.partial(os.makedirs, exist_ok=True))

    def names(self, folder):
        return os.listdir(folder) if os.path.isdir(folder) else []

    def is_folder(self, path):
        return os.path.isdir(path) and not os.path.islink(path)  # A link may lead to a user's.

    def sync(self, file):
        """Has the system write a file to its disk, so that it survives a power failure."""
        file.flush()
        _sync(file.fileno())

    def publish(self, new, path):
        """Gives a file or folder its name; of a folder with a user's files, to each file."""
        if os.path.isdir(new):
            self._sync_folder(new)
        if self.is_folder(path):
            for name in (STATE, MANIFEST):
                os.replace(f"{new}/{name}", f"{path}/{name}")
            os.rmdir(new)
        else:
            os.replace(new, path)
        self._sync_folder(os.path.dirname(path))

    def _sync_folder(self, path):
        if os.name != "nt":
            descriptor = os.open(path, os.O_RDONLY)
            _sync(descriptor)
            os.close(descriptor)


def _sync(descriptor):
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some file systems can't.
            raise


class _Hashed:
    """A file that only grows, and its sha256."""

    def __init__(self, file):
        self.file, self.sha256 = file, hashlib.sha256()
        self.flush = self.read = file.flush  # To numpy, what can't `read` is a path.

    def write(self, data):
        self.sha256.update(data)
        return self.file.write(data)


@contextlib.contextmanager
def damaged(path, *errors):
    """Turns the errors of reading a damaged file into DamagedCheckpoint."""
    try:
        yield
    except (*PASSING, ImportError):
        raise
    except (*MALFORMED, OSError, *errors) as error:
        raise DamagedCheckpoint(f"{path}: {str(error) or type(error).__name__}") from error


def check_directory(name, value):
    """Returns the path of a folder, absolute, so that a later `os.chdir` is harmless."""
    path = check_path(name, value).removeprefix("file://")
    if "\0" in path:
        expected = "a path without the character NUL"
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    return path if "://" in path else os.path.join(os.getcwd(), path)


def _digest(manifest):
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
