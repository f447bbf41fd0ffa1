"""Finds weights files on disk or downloads them, and checks their digests."""

import hashlib
import os
import re
from pathlib import Path

import keras

__all__ = []


def fetch_weights(weights: str | os.PathLike, sha256: str = "") -> tuple[Path, str]:
    """Returns the path and the SHA-256 of a weights file; downloads a URL to Keras's cache.

    The digest must begin with `sha256`. If the file name ends with a digest prefix, as in PyTorch's
    `inception-6726825d.pth`, the digest must begin with this prefix too. For a download, the digest
    and the URL are stored in a `.sha256` file next to it. Both are checked whenever the file is
    used again.

    Raises:
        ValueError: If the file doesn't exist or has a different digest, or if the cache has a file
        with the same name from a different URL.
        RuntimeError: If the file can't be downloaded.
    """
    is_url = "://" in str(weights)
    path = _download(str(weights)) if is_url else Path(weights)
    if not path.is_file():
        raise ValueError(f"`weights` must be a file or a URL. Received: weights={str(weights)!r}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = path.with_name(f"{path.name}.sha256")
    # The digest, the file name and, in newer records, the URL.
    known = record.read_text(encoding="utf-8").split() if is_url and record.exists() else []
    named = re.search(r"-([0-9a-f]{8,64})(\.weights)?$", path.stem)
    expected = [(sha256.lower(), ""), (named[1] if named else "", ", as its file name says")]
    if known:
        if not any(prefix for prefix, _ in expected) and known[2:] not in ([], [str(weights)]):
            raise ValueError(
                f"`weights` must have a different file name than {known[2]}, whose file is in "
                f"{path.parent}. Received: weights={str(weights)!r}"
            )
        expected.append((known[0], f", as {record} says: for a new file, delete this one too"))
    wrong = [pair for pair in expected if not digest.startswith(pair[0])]
    if wrong:
        if is_url and not known:
            path.unlink()
        raise ValueError(
            f"`weights` must have a SHA-256 that begins with {''.join(wrong[0])}. The file is "
            "damaged or a different one: download or install it again, or rename it if its name "
            f"doesn't end with a digest. Received: {path} with SHA-256 {digest}"
        )
    if is_url and not known:
        record.write_text(f"{digest}  {path.name}\n{weights}\n", encoding="utf-8")
    return path, digest


def _download(url):
    try:
        return Path(keras.utils.get_file(origin=url, cache_subdir="keras_sagan"))
    except Exception as error:
        raise RuntimeError(
            f"`weights` can't be downloaded ({type(error).__name__}: {error}). If this machine is "
            f"offline, download the file elsewhere and pass its path. Received: weights={url!r}"
        ) from error
