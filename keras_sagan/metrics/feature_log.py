"""Features on disk as they are computed, so that an interrupted evaluation goes on."""

import json
import pathlib

import numpy as np

_ROWS = 4096  # read at a time


class FeatureLog:
    """A file of features that grows by batches, and is read from its beginning.

    A process that is killed leaves whole rows and perhaps part of one, which is cut off. The key
    says what the features are of: another key is another file.

    Args:
        folder: String or `pathlib.Path`.
        key: String, of what the features depend on; a digest of it is the file's name.

    Example:

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     FeatureLog(folder, "0123").append({"features": np.ones((3, 4), "float32")})
    ...     [x["features"].shape for x in FeatureLog(folder, "0123").read()]
    [(3, 4)]
    """

    def __init__(self, folder, key):
        self.path = pathlib.Path(folder) / f"{key}.features"
        self._header = self.path.with_suffix(".json")

    def append(self, features):
        """Adds rows: a dictionary of float arrays of shape (batch, dim)."""
        layout = {name: [value.shape[1], value.dtype.name] for name, value in features.items()}
        if not self._header.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self._header.write_text(json.dumps(layout))
        rows = np.concatenate(
            [np.ascontiguousarray(value).view(np.uint8) for value in features.values()], axis=1
        )
        with self.path.open("ab") as file:
            file.write(rows.tobytes())

    def read(self):
        """Yields dictionaries of features, in order; none where nothing has been written."""
        if not (self._header.is_file() and self.path.is_file()):
            self.remove()
            return
        try:
            layout = json.loads(self._header.read_text())
            widths = [dim * np.dtype(dtype).itemsize for dim, dtype in layout.values()]
        except (ValueError, TypeError):  # cut off while it was written, before any features
            self.remove()
            return
        row = sum(widths)
        whole = self.path.stat().st_size // row
        with self.path.open("r+b") as file:
            file.truncate(whole * row)
        with self.path.open("rb") as file:
            while data := file.read(_ROWS * row):
                table = np.frombuffer(data, np.uint8).reshape(-1, row)
                columns = np.split(table, np.cumsum(widths)[:-1], axis=1)
                yield {
                    name: np.ascontiguousarray(column).view(dtype)
                    for (name, (_, dtype)), column in zip(layout.items(), columns)
                }

    def remove(self):
        """Deletes the files."""
        self.path.unlink(missing_ok=True)
        self._header.unlink(missing_ok=True)
