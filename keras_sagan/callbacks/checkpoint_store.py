"""Checkpoints in a folder: complete or not there, and never read when damaged."""

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
import warnings

from keras_sagan.checks import check_path
from keras_sagan.lazy import tf

NAME = "step"
FORMAT = 2  # Of a manifest; the first one had no `format` and no `configuration`.
# All that is written into the folder for a step; whatever else is there belongs to the user.
DATA = r"\.(?:index|data-[0-9]{5}-of-[0-9]{5})"
PART = rf"part-[0-9]{{5}}-of-[0-9]{{5}}{DATA}(?:\.tempstate[0-9]+)?"
# TensorFlow writes parts first: into the folder `step-7_temp`, or on S3 as `step-7.part-…`.
OWN = re.compile(rf"{NAME}-(0|[1-9][0-9]*)(?:{DATA}|\.json|\.json\.new|_temp|\.{PART})")
_FIELDS = {
    **dict.fromkeys(("step", "seed", "epoch", "epoch_step"), int),
    **dict.fromkeys(("files", "learning_rates", "optimizers", "variables"), dict),
    "index": str,
    "steps_per_epoch": (int, type(None)),
}
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# What JSON of something else raises.
MALFORMED = (ValueError, KeyError, TypeError, RecursionError)


def passing():
    """Returns the errors that say nothing about a file: it may be whole when it is read again."""
    return (
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
        tf.errors.PermissionDeniedError,
        tf.errors.ResourceExhaustedError,
        tf.errors.UnauthenticatedError,
        tf.errors.UnavailableError,
        MemoryError,
        PermissionError,
    )


class DamagedCheckpoint(Exception):
    """A file of a checkpoint isn't as it was written."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class CheckpointStore:
    """The checkpoints of one run in a folder, written by a `tf.train.CheckpointManager`.

    The manager names them by step, removes old ones, and records the latest, so that
    `tf.train.latest_checkpoint` finds it. What it can't say is whether a checkpoint is whole: that
    takes `step-N.json`, the manifest, which is written beside and renamed after all other files of
    a checkpoint, before older ones are removed. It holds their sizes, the digest of the index and
    of itself; each variable in the data file carries a checksum of TensorFlow's. Whatever lacks a
    manifest was being written, or removed, when the process ended. The first checkpoint is read
    before it counts, and files of other names than a checkpoint's are never touched.

    Args:
        directory: String, a folder on a disk or in a bucket.
        keep: Integer, how many checkpoints to keep.
        is_proven: Boolean, whether it is known that what is written there can be read. Defaults to
            `False`.
    """

    def __init__(self, directory, keep, is_proven=False):
        self.directory = directory
        self.keep = keep
        self.is_proven = is_proven

    def path(self, step):
        """Returns what the files of a checkpoint begin with, as `tf.train.Checkpoint` takes it."""
        return os.path.join(self.directory, f"{NAME}-{step}")

    def steps(self):
        """Returns the steps of the complete checkpoints, ascending."""
        return [step for step, is_complete in self._found() if is_complete]

    def _found(self):
        """Returns pairs of a step and whether its checkpoint is complete."""
        return [
            (step, f"{NAME}-{step}.json" in names) for step, names in sorted(self._names().items())
        ]

    def _names(self):
        """Returns the names of a checkpoint's files, and of the folder they begin in, by step."""
        found = {}
        if tf.io.gfile.isdir(self.directory):
            names = (name.rstrip("/") for name in tf.io.gfile.listdir(self.directory))
            for match in filter(None, map(OWN.fullmatch, names)):
                found.setdefault(int(match[1]), []).append(match[0])
        return found

    def write(self, step, variables, manifest):
        """Writes a checkpoint, and removes those that are too many.

        Args:
            step: Integer.
            variables: Dictionary from keys to `tf.Variable`s.
            manifest: Dictionary that JSON can hold.

        Raises:
            OSError: If it can't be written; what was written of it is removed.
        """
        path = self.path(step)

        def complete():
            files = {}
            for name in filter(_is_data, self._names()[step]):
                files[name] = tf.io.gfile.stat(os.path.join(self.directory, name)).length
                _sync(os.path.join(self.directory, name))
            _sync(self.directory)
            digest = hashlib.sha256(_read(f"{path}.index")).hexdigest()
            if not self.is_proven:
                self._prove(step)
            self.write_manifest(step, {**manifest, "files": files, "index": digest})
            # The manager would remove the same ones next, but not their manifests before.
            for old in self._up_to(step)[: -self.keep]:
                self.remove(old)

        try:
            tf.io.gfile.makedirs(self.directory)
            self.remove(step)  # Damaged, or an earlier process ended while writing.
            options = tf.train.CheckpointOptions(experimental_write_callbacks=[complete])
            with self._literal_directory() as directory:
                self._manager(step, variables, directory).save(step, options=options)
        except (OSError, tf.errors.OpError) as error:
            with contextlib.suppress(OSError, tf.errors.OpError):
                if step not in self.steps():
                    self.remove(step)
            raise _as_os_error(error, path) from error

    def _prove(self, step):
        try:
            for _ in self._values(step):
                pass
        except DamagedCheckpoint as error:
            raise OSError(f"it can't be read again ({error.reason})") from error
        self.is_proven = True

    @contextlib.contextmanager
    def _literal_directory(self):
        """Gives a path of the folder that has no signs of a pattern.

        TensorFlow looks for checkpoints, and removes old ones, by patterns: it would find none in
        `run[1]`, and remove those in `run1`.
        """
        if not _is_pattern(self.directory):
            yield self.directory
            return
        with tempfile.TemporaryDirectory() as scratch:
            link = os.path.join(scratch, "run")
            os.symlink(os.path.realpath(self.directory), link)
            yield link

    def _up_to(self, step):
        return [x for x in self.steps() if x <= step]  # Later ones are damaged: they stay.

    def _manager(self, step, variables, directory):
        def make():
            checkpoint = tf.train.Checkpoint(**variables)
            return tf.train.CheckpointManager(
                checkpoint, directory, self.keep, checkpoint_name=NAME
            )

        with contextlib.suppress(UnicodeDecodeError):
            manager = make()
            steps = self._up_to(step)
            if manager.checkpoints == [os.path.join(directory, f"{NAME}-{x}") for x in steps]:
                return manager
        # Its record is lost or damaged, or has damaged checkpoints in it: it begins a new one.
        _remove_if_there(os.path.join(self.directory, "checkpoint"))
        return make()

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
        """Writes the manifest beside and renames it: from then on the checkpoint counts."""
        path = f"{self.path(step)}.json"
        body = json.dumps({**manifest, "format": FORMAT}, sort_keys=True)
        digest = hashlib.sha256(body.encode()).hexdigest()
        with tf.io.gfile.GFile(f"{path}.new", "w") as file:
            file.write(json.dumps({"sha256": digest, "manifest": json.loads(body)}, sort_keys=True))
        _sync(f"{path}.new")
        tf.io.gfile.rename(f"{path}.new", path, overwrite=True)
        _sync(self.directory)

    def manifest(self, step):
        """Returns the manifest of a checkpoint.

        Raises:
            DamagedCheckpoint: If it isn't as it was written.
            ValueError: If a newer version of this package wrote it.
        """
        path = f"{self.path(step)}.json"
        try:
            content = json.loads(_read(path))
            body = json.dumps(content["manifest"], sort_keys=True)
            is_whole = hashlib.sha256(body.encode()).hexdigest() == content["sha256"]
        except passing():
            raise
        except (*MALFORMED, OSError, tf.errors.OpError) as error:
            raise DamagedCheckpoint(path, f"it can't be read ({error})") from error
        if not is_whole:
            raise DamagedCheckpoint(path, "its checksum is wrong")
        return _checked(content["manifest"], step, path)

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
        for name, size in manifest["files"].items():
            if not _is_data(name):  # A user's file, which older versions noted too.
                continue
            path = os.path.join(self.directory, name)
            if not tf.io.gfile.exists(path):
                raise DamagedCheckpoint(path, "it is missing")
            length = tf.io.gfile.stat(path).length
            if length != size:
                raise DamagedCheckpoint(path, f"it has {length} bytes of {size}")
        index = f"{self.path(step)}.index"
        if hashlib.sha256(_read(index)).hexdigest() != manifest["index"]:
            raise DamagedCheckpoint(index, "its checksum is wrong")
        return manifest, dict(self._values(step))

    def _values(self, step):
        """Yields the keys and arrays of a checkpoint; reading all of them is what checks it."""
        data = next((n for n in self._names().get(step, []) if ".data-" in n), f"{NAME}-{step}")
        with self._literal_directory() as directory:
            path = os.path.join(directory, f"{NAME}-{step}")
            try:
                # `load_checkpoint` would look into a user's folder of the name `step-7`.
                has_namesake = tf.io.gfile.isdir(path)
                v1 = tf.compat.v1.train
                load = v1.NewCheckpointReader if has_namesake else tf.train.load_checkpoint
                reader = load(path)
                for name in reader.get_variable_to_shape_map():
                    value = reader.get_tensor(name)
                    if name.endswith(VALUE):
                        yield name[: -len(VALUE)], value
            except passing():
                raise
            # The reader translates TensorFlow's errors to several kinds of Python's.
            except Exception as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise DamagedCheckpoint(os.path.join(self.directory, data), reason) from error

    def read_newest(self):
        """Reads the newest checkpoint that isn't damaged, and warns of those that are.

        Returns:
            As `read`; two `None` where there is no checkpoint.

        Raises:
            OSError: If all there are are damaged, or the newest can't be read at the moment.
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
            except passing() as error:
                reason = getattr(error, "message", None) or str(error) or type(error).__name__
                raise OSError(
                    f"The checkpoint {self.path(step)} can't be read at the moment, which doesn't "
                    f"mean that it is damaged: {reason}. Try again."
                ) from error
        if steps:
            raise OSError(
                f"Every checkpoint in {self.directory} is damaged; see the warnings. Move the "
                "folder away to train anew."
            )
        return None, None

    def remove(self, step):
        """Removes a checkpoint; one that is removed in part doesn't count any more."""
        _remove_if_there(f"{self.path(step)}.json")
        for name in self._names().get(step, []):
            path = os.path.join(self.directory, name)
            if not tf.io.gfile.isdir(path):
                tf.io.gfile.remove(path)
            elif name.endswith("_temp") and _is_own_folder(path):
                tf.io.gfile.rmtree(path)

    def remove_incomplete(self):
        """Removes what an earlier process was writing, or removing, when it ended."""
        for step, is_complete in self._found():
            if not is_complete:
                self.remove(step)


def check_writable(directory):
    """Makes a folder and writes a file into it.

    Raises:
        OSError: If that can't be done.
    """
    probe = os.path.join(directory, f".writable-{os.getpid()}")
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


def check_directory(name, value):
    """Checks the path of a folder for checkpoints, and returns it as a string.

    A relative path is one from the folder that is current now, also after `os.chdir`.

    Raises:
        ValueError: If TensorFlow can't write checkpoints there and read them again.
    """
    path = check_path(name, value)
    if "://" not in path:
        path = os.path.join(os.getcwd(), path)
    try:
        is_text = "\0" not in path.encode().decode()
    except UnicodeError:
        is_text = False
    if not is_text:
        expected = "a path that UTF-8 can hold, without the character NUL"
    elif _is_pattern(path) and "://" in path:
        expected = "a path without *, ?, [ and \\, which TensorFlow can't read outside a local disk"
    else:
        return path
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def _is_pattern(path):
    # On Windows the backslash parts folders.
    return os.name != "nt" and any(sign in path for sign in "*?[\\")


def _is_data(name):
    return re.fullmatch(rf"{NAME}-[0-9]+{DATA}", name) is not None


def _is_own_folder(path):
    """Whether nothing but halves of a checkpoint is in a folder, which TensorFlow writes first."""
    if os.path.islink(path.removeprefix("file://")):
        return False
    names = [name.rstrip("/") for name in tf.io.gfile.listdir(path)]
    return all(
        re.fullmatch(PART, n) and not tf.io.gfile.isdir(os.path.join(path, n)) for n in names
    )


def _checked(manifest, step, path):
    """Returns a manifest that has all that is read of it."""
    written_as = manifest.get("format", 1) if isinstance(manifest, dict) else None
    if isinstance(written_as, int) and written_as > FORMAT:
        raise ValueError(
            f"The manifest {path} must be of format {FORMAT} or an older one: update keras_sagan "
            f"to restore it. Received: format={written_as}"
        )
    if written_as is None or any(
        not isinstance(manifest.get(name), kind) for name, kind in _FIELDS.items()
    ):
        raise DamagedCheckpoint(path, "it isn't the manifest of a checkpoint")
    if manifest["step"] != step:
        raise DamagedCheckpoint(path, f"it is the manifest of step {manifest['step']}")
    return manifest


def _sync(path):
    """Has the system write a local file or folder to its disk, so that a power failure keeps it."""
    path = path.removeprefix("file://")
    if "://" in path or os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Not every file system has it.
            raise
    finally:
        os.close(descriptor)


def _remove_if_there(path):
    if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
        tf.io.gfile.remove(path)


def _read(path):
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def _as_os_error(error, path):
    is_full = isinstance(error, tf.errors.ResourceExhaustedError)
    if is_full or getattr(error, "errno", None) == errno.ENOSPC:
        return OSError(errno.ENOSPC, f"No space left for the checkpoint {path}")
    reason = getattr(error, "message", None) or str(error)
    return OSError(f"The checkpoint {path} can't be written: {reason}")
