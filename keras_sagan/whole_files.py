"""Replaces local files atomically, so that an interrupted write leaves the old file intact."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

__all__ = []


def replace_file(path: Path, write: Callable):
    """Calls `write(file)` on a temporary file, syncs it to the disk and renames it to the path."""
    beside = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            sync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def sync(descriptor: int):
    """Syncs an open file or folder to the disk, if its file system can do this."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
