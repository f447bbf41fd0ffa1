"""Replaces local files atomically, so that an interrupted write leaves the old file intact."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

__all__ = []

CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""The errors of `os.fsync` on file systems that can't sync."""


def replace_file(path: Path, write: Callable):
    """Calls `write(file)` on a temporary file, syncs it to the disk and renames it to the path."""
    beside = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            try:
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in CANNOT_SYNC:
                    raise
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
