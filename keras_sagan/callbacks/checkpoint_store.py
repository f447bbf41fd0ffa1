"""Checkpoints in a folder: complete or not there, and never read when damaged."""

import contextlib
import errno
import hashlib
import json
import os
import re
import warnings

import tensorflow as tf

STATE = "state"
COMPLETE = "complete.json"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class DamagedCheckpoint(Exception):
    """A file of a checkpoint isn't as it was written."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class CheckpointStore:
    """The checkpoints of one run in a folder, one folder each, named by step.

    A checkpoint is two or more files of `tf.train.Checkpoint` and `complete.json`, which is
    written beside and renamed after all others. It holds the sizes of the others, the digest of
    the index and of itself; each variable in the data file carries a checksum of TensorFlow's.
    Whatever lacks `complete.json` was being written, or removed, when the process ended.

    Args:
        directory: String, a folder on a disk or in a bucket.
    """

    def __init__(self, directory):
        self.directory = directory

    def path(self, step):
        return os.path.join(self.directory, f"step-{step:08d}")

    def steps(self):
        """Returns the steps of the complete checkpoints, ascending."""
        return [step for step, is_complete in self._folders() if is_complete]

    def _folders(self):
        if not tf.io.gfile.isdir(self.directory):
            return []
        names = (name.rstrip("/") for name in tf.io.gfile.listdir(self.directory))
        steps = sorted(int(x[1]) for x in (re.fullmatch(r"step-(\d{8,})", n) for n in names) if x)
        done = {step: os.path.join(self.path(step), COMPLETE) for step in steps}
        return [(step, tf.io.gfile.exists(path)) for step, path in done.items()]

    def write(self, step, variables, manifest):
        """Writes a checkpoint.

        Args:
            step: Integer.
            variables: Dictionary from keys to `tf.Variable`s.
            manifest: Dictionary that JSON can hold.

        Raises:
            OSError: If it can't be written; what was written of it is removed.
        """
        folder = self.path(step)
        try:
            if tf.io.gfile.isdir(folder):  # Damaged, or an earlier process ended while writing.
                self.remove(step)
            tf.io.gfile.makedirs(folder)
            tf.train.Checkpoint(**variables).write(os.path.join(folder, STATE))
            files = {}
            for name in tf.io.gfile.listdir(folder):
                files[name] = tf.io.gfile.stat(os.path.join(folder, name)).length
            index = _read(os.path.join(folder, f"{STATE}.index"))
            manifest = {**manifest, "files": files, "index": hashlib.sha256(index).hexdigest()}
            self.write_manifest(step, manifest)
        except (OSError, tf.errors.OpError) as error:
            with contextlib.suppress(OSError, tf.errors.OpError):
                self.remove(step)
            raise _as_os_error(error, folder) from error

    def update_manifest(self, step, changes):
        """Writes entries of a manifest anew.

        Raises:
            OSError: If that can't be done; the checkpoint is as it was.
        """
        try:
            self.write_manifest(step, {**self.manifest(step), **changes})
        except (DamagedCheckpoint, OSError, tf.errors.OpError) as error:
            raise _as_os_error(error, self.path(step)) from error

    def write_manifest(self, step, manifest):
        """Writes `complete.json` beside and renames it: from then on the checkpoint counts."""
        path = os.path.join(self.path(step), COMPLETE)
        body = json.dumps(manifest, sort_keys=True)
        digest = hashlib.sha256(body.encode()).hexdigest()
        with tf.io.gfile.GFile(f"{path}.new", "w") as file:
            file.write(json.dumps({"sha256": digest, "manifest": json.loads(body)}, sort_keys=True))
        tf.io.gfile.rename(f"{path}.new", path, overwrite=True)

    def manifest(self, step):
        """Returns the manifest of a checkpoint.

        Raises:
            DamagedCheckpoint: If it isn't as it was written.
        """
        path = os.path.join(self.path(step), COMPLETE)
        try:
            content = json.loads(_read(path))
            body = json.dumps(content["manifest"], sort_keys=True)
            is_whole = hashlib.sha256(body.encode()).hexdigest() == content["sha256"]
        except (ValueError, KeyError, TypeError, OSError, tf.errors.OpError) as error:
            raise DamagedCheckpoint(path, f"it can't be read ({error})") from error
        if not is_whole:
            raise DamagedCheckpoint(path, "its checksum is wrong")
        return content["manifest"]

    def describe(self, manifest):
        """Says in words what a manifest belongs to."""
        done, epoch = manifest["epoch_step"], manifest["epoch"] + 1
        where = f"{done} steps into epoch {epoch}" if done else f"at the start of epoch {epoch}"
        return f"step {manifest['step']} ({where}) from {self.path(manifest['step'])}"

    def read(self, step):
        """Reads a checkpoint whole.

        Args:
            step: Integer.

        Returns:
            Tuple of the manifest and a dictionary from keys to arrays.

        Raises:
            DamagedCheckpoint: If a file isn't as it was written.
        """
        manifest = self.manifest(step)
        folder = self.path(step)
        for name, size in manifest["files"].items():
            path = os.path.join(folder, name)
            if not tf.io.gfile.exists(path):
                raise DamagedCheckpoint(path, "it is missing")
            length = tf.io.gfile.stat(path).length
            if length != size:
                raise DamagedCheckpoint(path, f"it has {length} bytes of {size}")
        index = os.path.join(folder, f"{STATE}.index")
        if hashlib.sha256(_read(index)).hexdigest() != manifest["index"]:
            raise DamagedCheckpoint(index, "its checksum is wrong")
        data = next(os.path.join(folder, name) for name in manifest["files"] if ".data-" in name)
        try:
            reader = tf.train.load_checkpoint(os.path.join(folder, STATE))
            # All is read, as reading is what checks it.
            values = {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}
        # The reader translates TensorFlow's errors to several kinds of Python's.
        except Exception as error:
            raise DamagedCheckpoint(data, str(error).splitlines()[0]) from error
        return manifest, {n[: -len(VALUE)]: x for n, x in values.items() if n.endswith(VALUE)}

    def read_newest(self):
        """Reads the newest checkpoint that isn't damaged, and warns of those that are.

        Returns:
            As `read`; two `None` where there is no checkpoint.

        Raises:
            OSError: If all there are are damaged.
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
        if steps:
            raise OSError(
                f"Every checkpoint in {self.directory} is damaged; see the warnings. Move the "
                "folder away to train anew."
            )
        return None, None

    def remove(self, step):
        """Removes a checkpoint; one that is removed in part doesn't count any more."""
        folder = self.path(step)
        complete = os.path.join(folder, COMPLETE)
        if tf.io.gfile.exists(complete):
            tf.io.gfile.remove(complete)
        tf.io.gfile.rmtree(folder)

    def prune(self, keep, newest):
        """Removes all but the `keep` newest up to a step. Later ones are damaged: they stay."""
        for step in [step for step in self.steps() if step <= newest][:-keep]:
            self.remove(step)

    def remove_incomplete(self):
        """Removes what an earlier process was writing, or removing, when it ended."""
        for step, is_complete in self._folders():
            if not is_complete:
                self.remove(step)


def check_writable(directory):
    """Makes a folder and writes a file into it.

    Raises:
        OSError: If that can't be done.
    """
    probe = os.path.join(directory, "writable")
    try:
        tf.io.gfile.makedirs(directory)
        with tf.io.gfile.GFile(probe, "w") as file:
            file.write("?")
        tf.io.gfile.remove(probe)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise OSError(
            "`directory` must be a folder that can be written. "
            f"Received: directory={directory!r}, where the system says: {reason}"
        ) from error


def _read(path):
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def _as_os_error(error, folder):
    is_full = isinstance(error, tf.errors.ResourceExhaustedError)
    if is_full or getattr(error, "errno", None) == errno.ENOSPC:
        return OSError(errno.ENOSPC, f"No space left for the checkpoint {folder}")
    reason = getattr(error, "message", None) or str(error)
    return OSError(f"The checkpoint {folder} can't be written: {reason}")
