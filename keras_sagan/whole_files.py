"""Replaces local files in one step, so that an interrupted write leaves the old file intact."""

import os
from collections.abc import Callable
from pathlib import Path

__all__ = []  # Private to the package.


def replace_file(path: Path, write: Callable):
    """Has `write(file)` write bytes beside a path, syncs them to the disk and renames the file."""
    beside = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
