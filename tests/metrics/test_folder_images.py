"""A folder of images as it is: every fault is named."""

import os

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


@pytest.mark.parametrize("kind", ["alpha", "turned", "grey alpha", "palette", "gif", "tiff", "1"])
def test_every_file_is_read_as_load_image_folder_reads_it(tmp_path, kind):
    pytest.importorskip("tensorflow")
    from keras_sagan.data import load_image_folder

    pixels = images_of(1, channels=4)[0]
    image = {
        "alpha": image_module.fromarray(pixels),
        "grey alpha": image_module.fromarray(pixels[..., :2]),
        "palette": image_module.fromarray(pixels[..., :3]).quantize(5),
        "1": image_module.fromarray(pixels[..., 0]).convert("1"),
    }.get(kind, image_module.fromarray(pixels[..., 0]))
    exif = image_module.Exif()
    exif[0x0112] = 3 if kind == "turned" else 1
    ending = {"gif": "gif", "tiff": "tif"}.get(kind, "png")
    image.save(tmp_path / f"a.{ending}", **({"exif": exif} if ending == "png" else {}))
    (batch,) = FolderImages(tmp_path)
    channels = 3 if kind in ("alpha", "palette", "gif") else 1
    assert batch.shape == (1, 4, 4, channels)
    np.testing.assert_array_equal(batch, load_image_folder(tmp_path, 4, channels).images)
    if kind == "turned":
        np.testing.assert_array_equal(batch[0, ..., 0], pixels[::-1, ::-1, 0])


def test_files_of_floats_are_named(folder):
    image_module.fromarray(np.zeros((4, 4), "float32")).save(folder / "0" / "2.tif")
    with pytest.raises(ValueError, match="can be read. Received: .*2.tif .*floating-point"):
        list(FolderImages(folder))


def test_cached_statistics_are_of_the_size_and_the_files_of_a_folder(folder, tmp_path_factory):
    seen = []

    class Means:
        version = "means"

        def __call__(self, images):
            seen.append(len(images))
            return images.mean((1, 2))

    cache, samples = tmp_path_factory.mktemp("cache"), images_of(9, seed=1)

    def measure():
        seen.clear()
        kwargs = {"dataset": "photos", "cache_dir": cache, "verbose": False}
        evaluate_images(samples, FolderImages(folder), "fid", Means(), **kwargs)
        return sum(seen)

    assert measure() == 7 + 9 + 9 and measure() == 9 + 9
    for number, image in enumerate(images_of(7, size=5)):
        image_module.fromarray(image).save(folder / str(number % 2) / f"{number}.png")
    assert measure() > 18 and len(list(cache.glob("*.npz"))) == 2
    os.utime(folder / "1" / "1.png", (1, 1))  # Another picture may have as many bytes.
    assert measure() > 18 and len(list(cache.glob("*.npz"))) == 3


def test_a_folder_can_be_measured_against_a_folder(folder):
    report = evaluate_images(
        FolderImages(folder), FolderImages(folder), "fid", lambda x: x.mean((1, 2)), verbose=False
    )
    assert report.values["fid"] == pytest.approx(0.0, abs=1e-9)
    assert report.protocol["num_generated"] == report.protocol["num_reference"] == 7


def test_images_of_mixed_size_are_named(folder):
    image_module.fromarray(images_of(1, size=5)[0]).save(folder / "1" / "9.png")
    message = r"same size.*0.png has \(4, 4, 3\).*9.png with \(5, 5, 3\).*load_image_folder"
    with pytest.raises(ValueError, match=message):
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
    with pytest.raises(ImportError, match="needs pillow.*\npip install"):
        list(FolderImages(folder))
