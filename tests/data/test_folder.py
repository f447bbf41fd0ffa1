"""Folders of images: what is read, what is left out and named, and what is refused."""

import os
import sys
import warnings
from fractions import Fraction

import numpy as np
import pytest

from keras_sagan import image_files
from keras_sagan.checks import Progress
from keras_sagan.cli.main import build_parser
from keras_sagan.data import load_image_folder
from keras_sagan.metrics import FolderImages
from keras_sagan.sources import open_source

Image = pytest.importorskip("PIL.Image")
features = pytest.importorskip("PIL.features")


def picture(path, value=100, size=(12, 8), mode="RGB", **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], *((len(mode),) if mode != "L" else ()))
    Image.fromarray(np.full(shape, value, "uint8"), mode).save(path, **kwargs)
    return path


def test_pictures_of_any_kind_in_the_order_of_their_paths(tmp_path):
    for number, ending in enumerate((".png", ".jpg", ".JPEG", ".bmp", ".gif", ".webp", ".tiff")):
        picture(tmp_path / "deep" / f"{number}{ending}", 10 * number)
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.warns(UserWarning, match=r"Skipped 1 other file \(1 .txt\) in "):
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
    Image.fromarray(np.zeros((4, 4), "float32")).save(tmp_path / "deep.tif")
    found = load_image_folder(tmp_path, 4)
    assert len(found.images) == 1
    names = ["deep.tif", "empty.png", "short.jpg", "text.gif"]
    assert sorted(found.broken) == [str(tmp_path / name) for name in names]
    assert "mode F, floating-point" in found.broken[str(tmp_path / "deep.tif")]
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


def test_reading_leaves_the_filters_of_warnings_alone(tmp_path, monkeypatch):
    """Threads read images, and a change of the filters in a thread could outlast it."""
    picture(tmp_path / "a.png")
    seen, pixels = [], image_files._pixels
    monkeypatch.setattr(
        image_files, "_pixels", lambda *args: seen.append(list(warnings.filters)) or pixels(*args)
    )
    load_image_folder(tmp_path, 4)
    assert seen == [list(warnings.filters)]


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


def test_a_bar_for_a_folder_that_takes_longer_than_ten_seconds(tmp_path, monkeypatch, capsys):
    picture(tmp_path / "0.png")
    load_image_folder(tmp_path, 4)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(Progress, "patience", -1.0)
    load_image_folder(tmp_path, 4)
    assert f"Images in {tmp_path}\n" in capsys.readouterr().out


def command_line(folder, *options):
    """The images of a folder as a command opens it."""
    arguments = ["train", "--images", str(folder), "--output", "any", *options]
    settings = vars(build_parser().parse_args(arguments))
    return open_source(settings, image_size=4, batch_size=1)


def test_a_command_streams_a_folder(tmp_path, monkeypatch, capsys):
    for index in range(5):
        picture(tmp_path / f"{index}.png", 10 * index)
    whole = command_line(tmp_path, "--flip")
    assert "5 images in" in (said := capsys.readouterr().out) and "(5 gray, converted" in said
    reads = []

    def read_image(path, channels):
        reads.append(path)
        return image_files.read_image(path, channels)

    monkeypatch.setattr("keras_sagan.data.folder.read_image", read_image)
    streamed = command_line(tmp_path, "--flip", "--stream")
    assert len(reads) == 5  # Once, to find broken files.
    assert "5 images in" in (said := capsys.readouterr().out) and "gray" not in said
    np.testing.assert_array_equal(streamed.head(3)[0], whole.head(3)[0])
    assert len(reads) == 8
    for _, one, other in zip(range(7), streamed.batches(), whole.batches()):
        np.testing.assert_array_equal(one, other)


HIDDEN = [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".AppleDouble", ".git", "$RECYCLE.BIN"]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_folders_are_neither_classes_nor_images(tmp_path, name):
    root = tmp_path / ".cache" / "photos"  # The names above the folder don't count.
    for label in ("cats", "dogs"):
        picture(root / label / "more" / "0.png")
        for place in (root, root / label, root / label / "more"):
            picture(place / name / label / "1.png")
            (place / name / "notes.txt").write_text("not counted either")
            picture(place / f".{label}.png")
            (place / "._0.png").write_bytes(b"\0\5\x16\7")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_image_folder(root, 4, use_labels=True)
        folder = FolderImages(root)
        source = command_line(root, "--labels-from-folders")
    assert found.class_names == source.class_names == ("cats", "dogs")
    assert found.labels.tolist() == source.head(9)[1].tolist() == [0, 1]
    assert found.broken == found.skipped == folder.skipped == {} and folder.num_images == 2


def test_links_are_followed_but_not_in_circles(tmp_path):
    root = tmp_path / "photos"
    picture(root / "cats" / "0.png", 10)
    picture(tmp_path / "elsewhere" / "deep" / "1.png", 20)
    picture(tmp_path / "single.png", 30)
    links = {
        "birds": tmp_path / "elsewhere",  # a class
        "cats/9.png": tmp_path / "single.png",
        "cats/all": root,
        "cats/same": root / "cats",
        "cats/itself": root / "cats" / "itself",
        "circle": root,
        "elsewhere/deep/back": tmp_path / "elsewhere",
    }
    for name, target in links.items():
        (root / name if "else" not in name else tmp_path / name).symlink_to(target)
    with pytest.warns(UserWarning, match=r"\(1 without an extension\)"):
        found = load_image_folder(root, 4, use_labels=True)
    assert found.class_names == ("birds", "cats") and found.labels.tolist() == [0, 1, 1]
    assert found.images[:, 0, 0, 0].tolist() == [20, 10, 30]
    os.symlink(tmp_path / "nowhere", root / "fish")
    os.symlink(tmp_path / "nowhere.png", root / "cats" / "a.png")
    with pytest.warns(UserWarning, match=r"Skipped 3 other files \(2 without an .*, 1 .png\)"):
        folder = FolderImages(root)
    assert folder.num_images == 3 and folder.skipped == {"": 2, ".png": 1}


@pytest.mark.parametrize("value", [0, 90, 255])
def test_whatever_pillow_reads_is_read(tmp_path, value):
    endings = ["jfif", "jpe", "tga", "ppm", "pgm", "pnm", "qoi", "sgi", "pcx", "apng", "dib", "ras"]
    endings += [x for x, codec in (("jp2", "jpg_2000"), ("avif", "avif")) if features.check(codec)]
    header = np.array([0x59A66A95, 8, 8, 24, 192, 1, 0, 0], ">u4").tobytes()
    (tmp_path / "a.ras").write_bytes(header + bytes([value] * 192))
    (tmp_path / "a.pbm").write_text("P1 8 8 " + ("0" if value else "1") * 64)
    for ending in set(endings) - {"ras"}:
        picture(tmp_path / f"a.{ending.upper()}", value, size=(8, 8))
    found = load_image_folder(tmp_path, 4)
    assert len(found.images) == len(endings) + 1 == FolderImages(tmp_path).num_images
    assert found.broken == found.skipped == {}
    values = found.images.reshape(len(found.images), -1)[:, 0].astype(int)
    assert (np.abs(values - value) <= 2).sum() == len(values) - (value == 90)  # PBM has no gray.


def test_other_files_are_counted_by_their_endings(tmp_path, capsys):
    picture(tmp_path / "cats" / "0.png")
    names = ["notes.txt", "LABELS.TXT", "Thumbs.db", "README", "weights.h5", "a.pdf", "b.eps"]
    for name in names:
        (tmp_path / "cats" / name).write_bytes(b"anything")
    expected = {"": 1, ".db": 1, ".eps": 1, ".h5": 1, ".pdf": 1, ".txt": 2}
    said = r"Skipped 7 other files \(1 without an extension, 1 .db, .*, 2 .txt\) in .*to PNG"
    with pytest.warns(UserWarning, match=said):
        found = load_image_folder(tmp_path, 4, use_labels=True)
    assert found.skipped == expected and found.class_names == ("cats",) and found.broken == {}
    with pytest.warns(UserWarning, match=said):
        assert FolderImages(tmp_path).skipped == expected
    command_line(tmp_path)
    assert "Skipped 7 other files (1 without an extension" in capsys.readouterr().out
    (tmp_path / "cats" / "0.png").unlink()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="0 broken .* 7 other files"):
        load_image_folder(tmp_path)


def save_12_bits(values, path):
    """A TIFF of 12-bit gray, which Pillow reads but doesn't write."""
    pairs = values.reshape(-1, 2).astype(int)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
    )
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 200), (277, 1)]
    tags += [(278, height), (279, packed.size)]
    entries = b"".join(
        np.array([t, 3], "<u2").tobytes() + np.array([1, v], "<u4").tobytes() for t, v in tags
    )
    head = b"II*\0\x08\0\0\0" + np.array(len(tags), "<u2").tobytes() + entries
    path.write_bytes(head.ljust(200, b"\0") + packed.astype("uint8").tobytes())


@pytest.mark.parametrize(
    "kind", ["png", "tif", "big-endian tif", "32-bit tif", "pgm", "12-bit tif"]
)
def test_gray_of_more_bits_is_scaled_to_8(tmp_path, kind):
    """By exact fractions: black stays black, white stays white, and nothing is clipped."""
    white = 4095 if kind == "12-bit tif" else 65535
    values = np.random.default_rng(0).integers(0, white, (64, 64)).astype("uint16")
    values[0, :6] = [0, 1, white // 2, white // 2 + 1, white - 1, white]
    values[1, :4] = [127, 128, 129, 384]  # around halves of 257
    path = tmp_path / f"a.{kind.split()[-1]}"
    dtype = {"big-endian tif": ">u2", "32-bit tif": "int32"}.get(kind, "uint16")
    if kind == "12-bit tif":
        save_12_bits(values, path)
    else:
        Image.fromarray(values.astype(dtype)).save(path)
    expected = [round(Fraction(int(value) * 255, white)) for value in values.ravel()]
    (batch,) = FolderImages(tmp_path)
    assert batch.shape == (1, 64, 64, 1) and batch.dtype == np.uint8
    assert batch.ravel().tolist() == expected
    for channels in (1, 3):
        images = load_image_folder(tmp_path, 64, channels).images
        np.testing.assert_array_equal(images, np.repeat(batch, channels, axis=-1))


def test_turned_and_transparent_gray_of_16_bits(tmp_path):
    values = np.arange(16, dtype="uint16").reshape(4, 4) * 257
    exif = Image.Exif()
    exif[0x0112] = 3  # Turned by 180 degrees.
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif, transparency=5 * 257)
    expected = np.arange(16)
    expected[5] = 255
    (batch,) = FolderImages(tmp_path)
    np.testing.assert_array_equal(batch.ravel(), expected[::-1])


@pytest.mark.parametrize("low, high", [(0, 200), (-5, 3000), (0, 65536)])
def test_integers_of_32_bits_and_of_no_known_range_are_named(tmp_path, low, high):
    picture(tmp_path / "good.png", size=(4, 4))
    values = np.linspace(low, high, 16).astype("int32").reshape(4, 4)
    Image.fromarray(values).save(tmp_path / "a.tif")
    (reason,) = load_image_folder(tmp_path, 4).broken.values()
    assert reason == f"its pixels are integers in [{low}, {high}], not of 8 or 16 bits"
    with pytest.raises(ValueError, match="can be read. Received: .*a.tif .*not of 8 or 16 bits"):
        list(FolderImages(tmp_path))


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
    (tmp_path / "two" / "b.png").unlink()
    with pytest.raises(ValueError, match="in every class. Received: .* where two has none"):
        load_image_folder(tmp_path, use_labels=True)
    picture(tmp_path / "c.png")
    with pytest.raises(ValueError, match="in the folder of its class. .*c.png outside these"):
        load_image_folder(tmp_path, use_labels=True)


def test_without_pillow_the_pip_line_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match='\npip install "\\.\\[plot\\]"$'):
        load_image_folder(tmp_path)
