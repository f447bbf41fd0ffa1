"""Features on disk as they are computed, so that an interrupted evaluation goes on."""

import hashlib
import json
import pathlib

import numpy as np

from keras_sagan.metrics.image_sources import batches_of

_ROWS = 4096  # read at a time
_DIGEST = 16  # bytes


class FeatureLog:
    """A file of features that grows by batches.

    A process that is killed leaves whole rows and perhaps part of one, which is cut off. The key
    says what the features are of: another key is another file.

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
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        self.path = pathlib.Path(folder) / f"{name}.features"
        self._header = self.path.with_suffix(".json")
        self._layout = self._row = None
        self._open()

    def _open(self):
        """Reads what a row consists of, and cuts off half a row; begins anew where it can't."""
        try:
            self._set_layout(json.loads(self._header.read_text()))
            with self.path.open("r+b") as file:
                file.truncate(self.path.stat().st_size // self._row * self._row)
        except (OSError, ValueError, TypeError, AttributeError):
            # Nothing there, or cut off while it was written, before any features.
            self.remove()

    def _set_layout(self, layout):
        self._row = sum(dim * np.dtype(dtype).itemsize for dim, dtype in layout.values())
        self._layout = layout

    def append(self, features):
        """Adds rows: a dictionary of arrays of shape (batch, dim), always of the same kind."""
        layout = {name: [value.shape[1], value.dtype.name] for name, value in features.items()}
        if self._layout not in (None, layout):
            raise ValueError(
                f"`features` must be as those before, {self._layout}. Received: {layout}"
            )
        if self._layout is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._header.write_text(json.dumps(layout))
            self._set_layout(layout)
        rows = np.concatenate(
            [np.ascontiguousarray(value).view(np.uint8) for value in features.values()], axis=1
        )
        with self.path.open("ab") as file:
            file.write(rows.tobytes())

    def read(self):
        """Yields dictionaries of features, in order; none where nothing has been written."""
        start = 0
        while found := self.rows(start, start + _ROWS):
            yield found
            start += len(next(iter(found.values())))

    def rows(self, start, stop):
        """Returns the features of some rows, as far as they are there; `{}` where none is."""
        if self._layout is None:
            return {}
        with self.path.open("rb") as file:
            file.seek(start * self._row)
            data = file.read((stop - start) * self._row)
        if not data:
            return {}
        widths = [dim * np.dtype(dtype).itemsize for dim, dtype in self._layout.values()]
        table = np.frombuffer(data, np.uint8).reshape(-1, self._row)
        columns = np.split(table, np.cumsum(widths)[:-1], axis=1)
        return {
            name: np.ascontiguousarray(column).view(dtype)
            for (name, (_, dtype)), column in zip(self._layout.items(), columns)
        }

    def truncate(self, count):
        """Keeps the first `count` rows."""
        with self.path.open("r+b") as file:
            file.truncate(count * self._row)

    def remove(self):
        """Deletes the files."""
        self.path.unlink(missing_ok=True)
        self._header.unlink(missing_ok=True)
        self._layout = self._row = None


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
