"""Checkpoints behind a URL, such as a bucket's; imported for these alone."""

import functools

from keras_sagan.checks import require


class RemoteFiles:
    """Folders and files behind a URL, by fsspec: the methods of `LocalFiles`.

    Args:
        url: String, such as `gs://bucket/run`.

    Raises:
        ImportError: If fsspec isn't installed.
    """

    can_rename = False

    def __init__(self, url):
        fsspec = require("fsspec", f"A folder such as {url}", "remote")
        self._files = files = fsspec.core.url_to_fs(url, use_listings_cache=False)[0]
        self.open, self.remove, self.remove_folder = files.open, files.rm_file, files.rmdir
        self.is_folder = files.isdir
        self.make = functools.partial(files.makedirs, exist_ok=True)

    def names(self, folder):
        found = self._files.ls(folder, detail=False) if self._files.isdir(folder) else []
        return [path.rstrip("/").rpartition("/")[2] for path in found]

    def sync(self, file):
        """Nothing: an object appears complete, when it is closed."""

    def publish(self, new, path):
        """Nothing: it was written under its name."""
