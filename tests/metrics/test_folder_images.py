"""A folder of images as it is: every fault is named."""

import numpy as np
import pytest

from keras_sagan.metrics import FolderImages, evaluate_images

image_module = pytest.importorskip("PIL.Image")


def images_of(count, size=4, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), "uint8")


@pytest.fixture
def folder(tmp_path):
    for number, image in enumerate(images_of(7)):
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        image_module.fromarray(image).save(tmp_path / str(number % 2) / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_all_images_in_the_order_of_their_paths(folder):
    source = FolderImages(folder, batch_size=3)
    assert source.num_images == 7
    batches = list(source)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images_of(7)[[0, 2, 4, 6, 1, 3, 5]])


def test_grey_images_have_one_channel(tmp_path):
    image_module.fromarray(images_of(1, channels=1)[0, ..., 0]).save(tmp_path / "a.png")
    (batch,) = FolderImages(tmp_path)
    assert batch.shape == (1, 4, 4, 1) and batch.dtype == np.uint8


def test_a_folder_can_be_measured_against_a_folder(folder):
    report = evaluate_images(
        FolderImages(folder), FolderImages(folder), "fid", lambda x: x.mean((1, 2)), verbose=False
    )
    assert report.values["fid"] == pytest.approx(0.0, abs=1e-9)
    assert report.protocol["num_generated"] == report.protocol["num_reference"] == 7


def test_images_of_mixed_size_are_named(folder):
    image_module.fromarray(images_of(1, size=5)[0]).save(folder / "1" / "9.png")
    with pytest.raises(ValueError, match=r"one size.*0.png has \(4, 4, 3\).*9.png with \(5, 5, 3"):
        list(FolderImages(folder))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", None])
def test_broken_files_are_named(folder, content):
    path = folder / "1" / "1.png"
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(ValueError, match="images that can be read. Received: .*1.png"):
        list(FolderImages(folder))


def test_a_folder_without_images_and_no_folder(tmp_path):
    with pytest.raises(ValueError, match="`folder` must hold images .*which holds none"):
        FolderImages(tmp_path)
    with pytest.raises(FileNotFoundError, match="`folder` must be a folder. Received: folder="):
        FolderImages(tmp_path / "absent")


def test_pillow_is_named_where_it_is_missing(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(ImportError, match="pillow. Run: pip install"):
        list(FolderImages(folder))
