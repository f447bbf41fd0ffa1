"""Features on disk as they are computed, so that an interrupted evaluation resumes."""

import contextlib
import hashlib
import json
import os
import pathlib
import warnings

import numpy as np

from keras_sagan.checks import check_integer, check_path
from keras_sagan.metrics.image_sources import batches_of
from keras_sagan.whole_files import replace_file

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None

_FORMAT = 2
_ROWS = 4096  # read at a time
_DIGEST = 16  # bytes
_SEAL = 8  # bytes
_LOCK = "evaluation.lock"


class FeatureLog:
    """A file of features that grows by batches.

    The key says what the features are of: another key is another file. Each row is sealed with a
    digest of the key, of its number and of its bytes. So rows of another evaluation, of a second
    process that wrote beside this one, and damaged ones are never taken: the log is cut off before
    the first of them, and a warning says so. Half a row, which a killed process leaves, is cut off
    too.

    Args:
        folder: String or `pathlib.Path`.
        key: Anything that is ready for JSON, of what the features depend on; a digest of it is
            the file's name.

    Example:

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     FeatureLog(folder, "0123").append({"features": np.ones((3, 4), "float32")})
    ...     [x["features"].shape for x in FeatureLog(folder, "0123").read()]
    [(3, 4)]
    """

    def __init__(self, folder, key):
        text = json.dumps(key, sort_keys=True)
        self._key = json.loads(text)
        self._digest = hashlib.sha256(text.encode()).digest()
        self.path = pathlib.Path(folder) / f"{self._digest.hex()[:32]}.features"
        self._header = self.path.with_suffix(".json")
        self._layout = self._row = None
        self._count = 0
        self._open()

    def _open(self):
        """Reads what a row consists of, and cuts off half a row; starts again where it can't."""
        if not (self.path.exists() or self._header.exists()):
            return
        try:
            header = json.loads(self._header.read_text(encoding="utf-8"))
            if header["format"] != _FORMAT or header["key"] != self._key:
                raise ValueError("it is of another evaluation, or of another version")
            self._set_layout(header["layout"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            warnings.warn(
                f"The features in {self.path} can't be used and are computed again: "
                f"{self._header.name} isn't as this evaluation writes it "
                f"({type(error).__name__}: {error}).",
                stacklevel=4,
            )
            self.remove()
            return
        with contextlib.suppress(FileNotFoundError):  # Killed before the first row.
            self.truncate(self.path.stat().st_size // self._row)

    def _set_layout(self, layout):
        dtypes = [np.dtype(dtype) for _, dtype in layout.values()]
        if not dtypes or any(dtype.kind not in "fiu" for dtype in dtypes):
            raise ValueError(f"no numbers in {layout}")
        dims = [check_integer("dim", dim) for dim, _ in layout.values()]
        self._row = sum(dim * x.itemsize for dim, x in zip(dims, dtypes)) + _SEAL
        self._layout = layout

    def append(self, features):
        """Adds rows: a dictionary of arrays of shape (batch, dim), always of the same kind."""
        layout = {name: [value.shape[1], value.dtype.name] for name, value in features.items()}
        if self._layout != layout and self._count == 0:
            self._layout = None  # Of a damaged header, if there is one.
        if self._layout not in (None, layout):
            raise ValueError(
                f"`features` must be as those before, {self._layout}. Received: {layout}"
            )
        if self._layout is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            header = {"format": _FORMAT, "key": self._key, "layout": layout}
            replace_file(self._header, lambda file: file.write(json.dumps(header).encode()))
            self._set_layout(layout)
        rows = np.concatenate(
            [np.ascontiguousarray(value).view(np.uint8) for value in features.values()], axis=1
        )
        rows = np.concatenate([rows, self._seals(rows, self._count)], axis=1)
        with self.path.open("ab") as file:
            file.write(rows.tobytes())
        self._count += len(rows)

    def _seals(self, rows, first):
        """Returns the digests of rows as an array of shape (batch, bytes)."""
        seals = [
            hashlib.blake2b(
                number.to_bytes(8) + row.tobytes(), digest_size=_SEAL, key=self._digest
            ).digest()
            for number, row in enumerate(rows, start=first)
        ]
        return np.frombuffer(b"".join(seals), np.uint8).reshape(-1, _SEAL)

    @property
    def is_empty(self):
        """Whether nothing has been written."""
        return self._count == 0

    @property
    def subject(self):
        """The first word of the key, such as `"generated"`."""
        return _subject(self._key)

    def read(self):
        """Yields dictionaries of features, in order; none where nothing has been written."""
        start = 0
        while found := self.rows(start, start + _ROWS):
            yield found
            start += len(next(iter(found.values())))

    def rows(self, start, stop):
        """Returns the features of some rows, as far as they are there; `{}` where none is."""
        stop = min(stop, self._count)
        if start >= stop:
            return {}
        with self.path.open("rb") as file:
            file.seek(start * self._row)
            data = file.read((stop - start) * self._row)
        data = data[: len(data) // self._row * self._row]
        if not data:
            return {}
        table = np.frombuffer(data, np.uint8).reshape(-1, self._row)
        table, seals = np.split(table, [self._row - _SEAL], axis=1)
        is_sealed = (self._seals(table, start) == seals).all(axis=1)
        if not is_sealed.all():
            table = table[: int(np.argmin(is_sealed))]
            warnings.warn(
                f"The features in {self.path} are damaged, or two evaluations wrote them at the "
                f"same time. Those from image number {start + len(table)} on are computed again.",
                stacklevel=4,
            )
            self.truncate(start + len(table))
        if not len(table):
            return {}
        widths = [dim * np.dtype(dtype).itemsize for dim, dtype in self._layout.values()]
        columns = np.split(table, np.cumsum(widths)[:-1], axis=1)
        return {
            name: np.ascontiguousarray(column).view(dtype)
            for (name, (_, dtype)), column in zip(self._layout.items(), columns)
        }

    def truncate(self, count):
        """Keeps the first `count` rows."""
        with self.path.open("r+b") as file:
            file.truncate(count * self._row)
        self._count = count

    def remove(self):
        """Deletes the files."""
        self.path.unlink(missing_ok=True)
        self._header.unlink(missing_ok=True)
        self._layout = self._row = None
        self._count = 0

    def others(self):
        """Returns the paths of logs in the folder that are of the same subject but another key."""
        found = []
        for header in sorted(self.path.parent.glob("*.json")):
            features = header.with_suffix(".features")
            if header == self._header or not features.exists():
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                content = json.loads(header.read_text(encoding="utf-8"))
                if _subject(content["key"]) == self.subject:
                    found.append(features)
        return found


def _subject(key):
    while isinstance(key, list) and key:
        key = key[0]
    return key


@contextlib.contextmanager
def in_use(folder):
    """Refuses a second evaluation with the same folder of logs while the first one runs.

    The lock is the system's and ends with its process, however that ends: what a killed process
    leaves in the folder never stops the next one. Where a file system has no locks, nothing is
    refused. The folder is removed at the end if nothing is in it.

    Args:
        folder: String or path, the `checkpoint` of an evaluation, or `None`.

    Raises:
        ValueError: If the folder is in use, isn't a local one, or can't be written.
    """
    folder = check_path("checkpoint", folder, optional=True)
    if folder is None:
        yield
        return
    if "://" in folder:
        raise ValueError(
            f"`checkpoint` must be a folder on a local disk. Received: checkpoint={folder!r}"
        )
    lock = os.path.join(folder, _LOCK)
    with _locked(folder, lock):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Only while the lock is held.
                os.unlink(lock)
    with contextlib.suppress(OSError):  # Where there is something else in it.
        os.rmdir(folder)


@contextlib.contextmanager
def _locked(folder, lock):
    while True:
        try:
            os.makedirs(folder, exist_ok=True)
            file = open(lock, "a+", encoding="utf-8")
        except FileNotFoundError:  # An evaluation that ended has just removed the folder.
            continue
        except OSError as error:
            raise ValueError(
                "`checkpoint` must be a folder that can be written. "
                f"Received: checkpoint={folder!r} ({error})"
            ) from error
        with file:
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise ValueError(
                    "`checkpoint` must be a folder that no other evaluation is using: wait until "
                    "that one ends, or give each a folder of its own. Received: "
                    f"checkpoint={folder!r}, in use by process {file.read(20) or 'unknown'}"
                ) from error
            except OSError:
                pass  # This file system has no locks.
            # The previous holder may have removed the file in between.
            try:
                is_current = os.path.samefile(file.fileno(), lock)
            except FileNotFoundError:
                is_current = False
            if is_current:
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                yield
                return


def logged_features(images, extraction, names, log=None):
    """Takes images through an extractor, but those whose features are in a log.

    The log has a digest of each image beside its features. From the first image on that isn't the
    one that was logged there, everything is computed: features of other images are never taken.

    Args:
        images: As for `batches_of`.
        extraction: A `FeatureExtraction`.
        names: Strings, the outputs of the extractor to take.
        log: `FeatureLog` of the same extractor and outputs, or `None`.

    Yields:
        Images, labels (or `None`), and the features as `{name: array}`.
    """
    done = 0
    for batch, labels in batches_of(images, extraction.batch_size):
        if log is None:
            found = extraction(batch, names, done)
        else:
            found = _from_log(batch, extraction, names, log, done)
        yield batch, labels, found
        done += len(batch)


def _from_log(images, extraction, names, log, done):
    digests = np.stack([_digest(image) for image in images])
    known = log.rows(done, done + len(images))
    count = len(known["digest"]) if known else 0
    differs = np.any(known["digest"] != digests[:count], axis=1) if known else np.array([], bool)
    if differs.any():
        count = int(np.argmax(differs))
        log.truncate(done + count)
    if count < len(images):
        new = extraction(images[count:], names, done + count)
        log.append({**new, "digest": digests[count:]})
        known = {x: np.concatenate([known[x][:count], new[x]]) if known else new[x] for x in new}
    return {name: known[name] for name in names}


def _digest(image):
    image = np.ascontiguousarray(image)
    digest = hashlib.blake2b(f"{image.dtype.name} {image.shape}".encode(), digest_size=_DIGEST)
    digest.update(image.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
