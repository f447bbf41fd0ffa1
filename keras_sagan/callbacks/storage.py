"""Where the files of checkpoints are: on a disk, or behind a URL such as a bucket's."""

import errno
import functools
import hashlib
import os

from keras_sagan.checks import require

STATE, MANIFEST = "state.npz", "manifest.json"


class HashedFile:
    """A file that can only be written onward, so that its hash is known when its last byte is."""

    read = None  # `numpy.savez` takes an object without it for a path.

    def __init__(self, file):
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, data):
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self):
        self.file.flush()


class LocalFiles:
    """Folders and files of this machine."""

    open, remove = staticmethod(open), staticmethod(os.remove)
    remove_folder = staticmethod(os.rmdir)
    make = staticmethod(functools.partial(os.makedirs, exist_ok=True))

    def names(self, folder):
        return os.listdir(folder) if os.path.isdir(folder) else []

    def is_folder(self, path):
        return os.path.isdir(path) and not os.path.islink(path)  # A link may lead to a user's.

    def temporary(self, path):
        """Returns where a file or folder is written before `publish` renames it."""
        return f"{path}.new"

    def read(self, path):
        with self.open(path, "rb") as file:
            return file.read()

    def write(self, path, save):
        """Has `save(file)` write a file to the disk itself, and returns the file's SHA-256."""
        with self.open(path, "wb") as file:
            hashed = HashedFile(file)
            save(hashed)
            file.flush()
            _sync(file.fileno())  # It survives a power failure.
        return hashed.sha256.hexdigest()

    def publish(self, new, path):
        """Renames a file or folder; into a folder with a user's files, it moves each file."""
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
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some file systems can't sync.
            raise


class RemoteFiles:
    """Folders and files behind a URL, by fsspec, with the methods of `LocalFiles`."""

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
        with self._files.open(path, "wb") as file:  # The object appears when it is closed.
            hashed = HashedFile(file)
            save(hashed)
        return hashed.sha256.hexdigest()

    def publish(self, new, path):
        """Does nothing: the file was written under its name."""
