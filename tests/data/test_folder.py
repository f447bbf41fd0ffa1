"""Folders of images: what is read, what is left out and named, and what is refused."""

import sys

import numpy as np
import pytest

from keras_sagan import image_files
from keras_sagan.data import load_image_folder

Image = pytest.importorskip("PIL.Image")


def picture(path, value=100, size=(12, 8), mode="RGB", **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], *((len(mode),) if mode != "L" else ()))
    Image.fromarray(np.full(shape, value, "uint8"), mode).save(path, **kwargs)
    return path


def test_pictures_of_any_kind_in_the_order_of_their_paths(tmp_path):
    for number, ending in enumerate((".png", ".jpg", ".JPEG", ".bmp", ".gif", ".webp", ".tiff")):
        picture(tmp_path / "deep" / f"{number}{ending}", 10 * number)
    (tmp_path / "notes.txt").write_text("not a picture")
    found = load_image_folder(tmp_path, 4)
    assert found.images.shape == (7, 4, 4, 3) and found.images.dtype == np.uint8
    np.testing.assert_allclose(found.images[:, 0, 0, 0], 10 * np.arange(7), atol=2)
    assert found.labels is None and found.class_names is None and found.broken == {}


def test_the_central_square_is_taken(tmp_path):
    pixels = np.zeros((4, 12), "uint8")
    pixels[:, 4:8] = [[10, 20, 30, 40]] * 4
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = load_image_folder(tmp_path, 4, channels=1)
    np.testing.assert_array_equal(found.images[0, :, :, 0], pixels[:, 4:8])


def test_classes_are_the_folders(tmp_path):
    for name, count in (("zebra", 2), ("ant", 1)):
        for index in range(count):
            picture(tmp_path / name / "more" / f"{index}.png")
    found = load_image_folder(tmp_path, 4, use_labels=True)
    assert found.class_names == ("ant", "zebra") and found.labels.tolist() == [0, 1, 1]
    assert found.labels.dtype == np.int32


def test_broken_files_are_named(tmp_path):
    picture(tmp_path / "good.png")
    whole = picture(tmp_path / "short.jpg", size=(64, 64)).read_bytes()
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.gif").write_text("no picture")
    Image.fromarray(np.zeros((4, 4), "uint16")).save(tmp_path / "deep.png")
    found = load_image_folder(tmp_path, 4)
    assert len(found.images) == 1
    names = ["deep.png", "empty.png", "short.jpg", "text.gif"]
    assert sorted(found.broken) == [str(tmp_path / name) for name in names]
    assert "truncated" in found.broken[str(tmp_path / "short.jpg")].lower()


def test_a_picture_that_would_fill_the_memory_is_left_out(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", size=(40, 40))
    with monkeypatch.context() as context:
        context.setattr(image_files, "MAX_PIXELS", 1000)
        assert list(load_image_folder(tmp_path, 4).broken.values()) == [
            "it would decode to 40 × 40 pixels"
        ]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow itself refuses twice as many.
    assert "too many pixels" in load_image_folder(tmp_path, 4).broken[str(tmp_path / "b.png")]


def test_transparency_orientation_and_animations(tmp_path):
    rgba = np.zeros((4, 4, 4), "uint8")
    rgba[:2, :, 3] = 255  # The upper half is opaque black.
    Image.fromarray(rgba).save(tmp_path / "a.png")
    upright = np.zeros((4, 4), "uint8")
    upright[0] = 200
    exif = Image.Exif()
    exif[0x0112] = 3  # Turned by 180 degrees.
    Image.fromarray(upright).save(tmp_path / "b.png", exif=exif)
    frames = [Image.fromarray(np.full((4, 4), value, "uint8")) for value in (50, 90)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    images = load_image_folder(tmp_path, 4, channels=1).images[..., 0]
    assert images[0, 0, 0] == 0 and images[0, 3, 3] == 255
    assert images[1, 3, 0] == 200 and images[1, 0, 0] == 0
    assert images[2, 0, 0] == 50


def test_what_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="`directory` must be a folder"):
        load_image_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="`directory` must hold an image that can be read"):
        load_image_folder(tmp_path)
    picture(tmp_path / "one" / "a.png")
    with pytest.raises(ValueError, match="`image_size` must be a positive integer"):
        load_image_folder(tmp_path, 0)
    with pytest.raises(ValueError, match="`channels` must be 1 or 3. Received: channels=4"):
        load_image_folder(tmp_path, channels=4)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "b.png").write_bytes(b"")
    with pytest.raises(ValueError, match="in every class. Received: .* where two has none"):
        load_image_folder(tmp_path, use_labels=True)
    picture(tmp_path / "c.png")
    with pytest.raises(ValueError, match="in the folder of its class. .*c.png outside of them"):
        load_image_folder(tmp_path, use_labels=True)


def test_without_pillow_the_pip_line_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match='\npip install "keras_sagan\\[plot\\]"$'):
        load_image_folder(tmp_path)
