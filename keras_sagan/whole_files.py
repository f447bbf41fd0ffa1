"""Replaces local files in one step, so that an interrupted write leaves the old file intact."""

import os

__all__ = []  # For this package alone: nothing of it is in the reference.


def replace_file(path, write):
    """Writes a file beside the one at a path, flushes it to the disk and renames it.

    Args:
        path: `pathlib.Path` of the file, in a folder that exists.
        write: Function that is called with the new file, open for writing bytes.
    """
    beside = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
