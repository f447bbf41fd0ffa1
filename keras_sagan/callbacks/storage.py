"""Reads and writes the files of checkpoints, on a local disk or in a bucket with a URL."""

import functools
import hashlib
import json
import os

from keras_sagan.checks import require
from keras_sagan.whole_files import CANNOT_SYNC

STATE, MANIFEST = "state.npz", "manifest.json"


def digest_of(manifest: dict) -> str:
    """Returns the SHA-256 of a manifest, which doesn't depend on the order of its entries."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


class HashedFile:
    """Writes a file sequentially, and computes its hash at the same time."""

    read = None  # Without this attribute, `numpy.savez` treats the object as a path.

    def __init__(self, file):
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, data):
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self):
        self.file.flush()


class LocalFiles:
    """Accesses folders and files on a local disk."""

    open, remove = staticmethod(open), staticmethod(os.remove)
    remove_folder = staticmethod(os.rmdir)
    make = staticmethod(functools.partial(os.makedirs, exist_ok=True))

    def names(self, folder):
        return os.listdir(folder) if os.path.isdir(folder) else []

    def is_folder(self, path):
        # Writing through a user's symbolic link would change files outside the checkpoint.
        return os.path.isdir(path) and not os.path.islink(path)

    def temporary(self, path):
        """Returns the temporary path of a file or folder; `publish` later renames it to `path`."""
        return f"{path}.new"

    def read(self, path):
        with self.open(path, "rb") as file:
            return file.read()

    def write(self, path, save):
        """Calls `save(file)` to write a file, syncs it to disk, and returns its SHA-256."""
        with self.open(path, "wb") as file:
            hashed = HashedFile(file)
            save(hashed)
            file.flush()
            _sync(file.fileno())
        return hashed.sha256.hexdigest()

    def publish(self, new, path):
        """Renames a file or folder; if the target folder exists, moves the files into it."""
        if os.path.isdir(new):
            _sync_folder(new)
        if self.is_folder(path):
            for name in (STATE, MANIFEST):
                os.replace(f"{new}/{name}", f"{path}/{name}")
            os.rmdir(new)
        else:
            os.replace(new, path)
        _sync_folder(os.path.dirname(path))


def _sync_folder(path):
    if os.name != "nt":
        descriptor = os.open(path, os.O_RDONLY)
        _sync(descriptor)
        os.close(descriptor)


def _sync(descriptor):
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


class RemoteFiles:
    """Accesses folders and files at a URL with fsspec; has the same methods as `LocalFiles`."""

    def __init__(self, url: str):
        fsspec = require("fsspec", f"A folder such as {url}", "remote")
        self._files = files = fsspec.core.url_to_fs(url, use_listings_cache=False)[0]
        self.remove, self.remove_folder, self.is_folder = files.rm_file, files.rmdir, files.isdir
        self.make = functools.partial(files.makedirs, exist_ok=True)

    def names(self, folder):
        found = self._files.ls(folder, detail=False) if self._files.isdir(folder) else []
        return [path.rstrip("/").rpartition("/")[2] for path in found]

    def temporary(self, path):
        return path

    def read(self, path):
        with self._files.open(path, "rb") as file:
            return file.read()

    def write(self, path, save):
        with self._files.open(path, "wb") as file:
            hashed = HashedFile(file)
            save(hashed)
        return hashed.sha256.hexdigest()

    def publish(self, new, path):
        """Does nothing, because `write` already uses the final name."""
