"""Emoji from tiny archives: what is loaded, the split by concept, and wrong archives."""

import hashlib

import emoji_archives
import keras
import numpy as np
import pytest

from keras_sagan.data import emoji as module
from keras_sagan.data import load_emoji


@pytest.fixture
def folder(tmp_path, monkeypatch):
    emoji_archives.write_archives(monkeypatch, tmp_path)
    return tmp_path


def test_each_concept_has_both_styles_on_white(folder):
    splits = [load_emoji(folder, split=split) for split in ("train", "held_out")]
    assert sum(len(split.images) for split in splits) == 2 * 27  # Not the flag and the llama.
    for split in splits:
        assert split.images.shape[1:] == (64, 64, 3) and split.images.dtype == "uint8"
        assert split.labels.dtype == "int32" and len(split.labels) == len(split.images) > 0
        assert split.class_names == ("Animals & Nature", "Smileys & Emotion")
        is_face = split.subcategories == "face-smiling"
        np.testing.assert_array_equal(split.labels, is_face)
        codes, counts = np.unique(split.code_points, return_counts=True)
        assert (counts == 2).all() and "1f3c3-1f3fb" not in codes
        for style, color in (("noto", (255, 0, 0)), ("fluent", (0, 0, 255))):
            images = split.images[split.styles == style]
            assert len(images) == len(codes)
            assert (images[:, :, :28] == color).all() and (images[:, :, 36:] == 255).all()


def test_concepts_and_their_gendered_variants_are_held_out_together(folder):
    train, held_out = (set(load_emoji(folder, 16, x).code_points) for x in ("train", "held_out"))
    assert not train & held_out
    running = {code for code in train | held_out if code.startswith("1f3c3")}
    assert len(running) == 3 and (running <= train or running <= held_out)
    # The rule, computed by hand: the first byte of the digest of "1f600" is 0x30 = 48 ≥ 38.4.
    assert hashlib.sha256(b"1f600").hexdigest().startswith("30") and "1f600" in train


def test_a_second_call_reads_the_npz_file(folder, monkeypatch):
    first = load_emoji(folder, 16)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_read", None)
        second = load_emoji(str(folder), 16)
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one, other)
    path = folder / "emoji_16.npz"
    with np.load(path) as file:
        whole = dict(file)
    shorter = {**whole, "images": whole["images"][:1]}
    for content in (None, shorter, {"digests": whole["digests"]}):
        if content is None:
            path.write_bytes(b"damaged")
        else:
            np.savez(path, **content)
        np.testing.assert_array_equal(load_emoji(folder, 16).images, first.images)


def test_the_names_of_npm_pack_are_found(folder):
    name = "fluent-emoji-3d-1.1.0.tgz"
    (folder / name).rename(folder / f"lobehub-{name}")
    assert len(load_emoji(folder, 16).images)


def test_an_archive_of_another_version_is_named(folder):
    name = "emoji-datasource-google-16.0.0.tgz"
    (folder / name).rename(folder / "emoji-datasource-google-15.1.2.tgz")
    message = rf"`folder` must hold {name}, which `npm pack emoji-datasource-google@16.0.0` fetches"
    with pytest.raises(FileNotFoundError, match=rf"{message}.*15\.1\.2\.tgz"):
        load_emoji(folder)
    with pytest.raises(FileNotFoundError, match="Received: folder=.*absent with no such folder"):
        load_emoji(folder / "absent")


def test_an_archive_that_differs_is_named_before_it_is_read(folder):
    path = folder / "fluent-emoji-3d-1.1.0.tgz"
    path.write_bytes(path.read_bytes()[:-1])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=rf"SHA-256 .*different version.*Received: .*{digest}"):
        load_emoji(folder)


def test_without_a_folder_the_archives_are_downloaded(folder, tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    get_file = keras.utils.get_file
    monkeypatch.setattr(keras.utils, "get_file", lambda **x: get_file(cache_dir=str(home), **x))
    registry = tmp_path_factory.mktemp("registry")
    monkeypatch.setattr(module, "_REGISTRY", registry.as_uri())
    with pytest.raises(
        OSError, match=r"emoji-datasource-google-16\.0\.0\.tgz could not .*as `folder`"
    ):
        load_emoji()
    for name, version, _ in module._PACKAGES.values():
        file = f"{name.split('/')[-1]}-{version}.tgz"
        (registry / name / "-").mkdir(parents=True)
        (folder / file).rename(registry / name / "-" / file)
    assert len(load_emoji(image_size=16).images)
    assert (home / "datasets" / "emoji" / "emoji_16.npz").exists()
