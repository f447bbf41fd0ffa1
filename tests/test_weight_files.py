"""Weights files on disk and in Keras's cache, and their digests."""

import functools
import hashlib

import keras
import pytest

from keras_sagan.weight_files import fetch_weights

DIGEST = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A file to be fetched into a cache of the test's own."""
    download = functools.partial(keras.utils.get_file, cache_dir=str(tmp_path))
    monkeypatch.setattr(keras.utils, "get_file", download)
    path = tmp_path / f"network-{DIGEST[:8]}.pth"
    path.write_bytes(b"weights")
    return path


def test_a_file_on_disk(source):
    assert fetch_weights(source) == fetch_weights(source, DIGEST.upper()) == (source, DIGEST)
    assert sorted(x.name for x in source.parent.iterdir()) == [source.name]  # No record.


def test_a_download_is_kept_with_its_digest(source, tmp_path):
    path, digest = fetch_weights(source.as_uri())
    assert path == tmp_path / "keras_sagan" / source.name and digest == DIGEST
    record = path.parent / f"{path.name}.sha256"
    assert record.read_text() == f"{DIGEST}  {path.name}\n{source.as_uri()}\n"
    record.write_text("")  # The disk was full.
    fetch_weights(source.as_uri())
    assert record.read_text().startswith(DIGEST)
    source.unlink()
    assert fetch_weights(source.as_uri()) == (path, DIGEST)
    # The digest in the name says that the file of a mirror is the same.
    assert fetch_weights(f"file:///elsewhere/{source.name}") == (path, DIGEST)


def test_a_file_that_changed_is_refused(source):
    renamed = source.rename(source.with_name("network.pth"))  # Only the record has its digest.
    path, _ = fetch_weights(renamed.as_uri())
    path.write_bytes(b"other")
    with pytest.raises(ValueError, match=f"a SHA-256 that begins with {DIGEST}.*network.pth"):
        fetch_weights(renamed.as_uri())
    assert path.exists()
    with pytest.raises(ValueError, match="a different file name than .*/elsewhere/"):
        fetch_weights("file:///elsewhere/network.pth")


def test_other_digests_are_refused_and_such_a_download_is_removed(source, tmp_path):
    with pytest.raises(ValueError, match="`weights` must have a SHA-256 that begins with 0123"):
        fetch_weights(source, "0123")
    source.write_bytes(b"other")
    with pytest.raises(
        ValueError, match=f"a SHA-256 that begins with {DIGEST[:8]}, as its file name says\\."
    ):
        fetch_weights(source)
    with pytest.raises(
        ValueError, match=f"a SHA-256 that begins with {DIGEST[:8]}, as its file name says\\."
    ):
        fetch_weights(source.as_uri())
    assert not list((tmp_path / "keras_sagan").iterdir())


def test_what_is_not_there(source):
    source.unlink()
    with pytest.raises(ValueError, match="`weights` must be a file or a URL. Received: weights='"):
        fetch_weights(source)
    with pytest.raises(RuntimeError, match=r"`weights` can't be downloaded \(.*pass its path"):
        fetch_weights(source.as_uri())
