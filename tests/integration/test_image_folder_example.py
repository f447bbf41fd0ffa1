"""A folder of images from start to end: scores, pictures, broken files by name, going on."""

import functools
import json

import keras
import numpy as np
import pytest
from example_scripts import load_example
from inception_stand_in import save_stand_in

from keras_sagan import SAGAN
from keras_sagan.data import load_fashion_mnist

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    images, labels = load_fashion_mnist()
    for index in range(48):
        name = "abcdefghij"[labels[index]]
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(images[index, ..., 0]).save(folder / name / f"{index}.png")
    (folder / "a" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


@pytest.fixture
def eager(monkeypatch):
    """Few steps are made here, and tracing takes longer than they."""
    monkeypatch.setattr(SAGAN, "compile", functools.partialmethod(SAGAN.compile, run_eagerly=True))


@pytest.mark.slow
def test_a_run_and_going_on(photos, tmp_path, capsys, eager):
    def run(*arguments):
        load_example("image_folder").main([*map(str, arguments)])
        return capsys.readouterr().out

    small = ["--image_size", 32, "--channels", 1, "--base_filters", 4, "--batch_size", 16]
    common = ["--images", photos, "--labels_from_folders", "--fid_images", 40, *small]
    output = run(*common, "--epochs", 1, "--workdir", tmp_path)
    assert "48 images of 32 pixels" in output
    assert "1 files can't be read" in output and f"{photos}/a/cut.jpg" in output
    names = "attention_epoch_001", "attention_epoch_001_discriminator", "curves"
    for name in ("samples_epoch_000", "samples_epoch_001", *names):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000, name
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == 3 and len(results["broken"]) == 1
    assert [epoch for epoch, _ in results["fid"]["by_epoch"]] == [0, 1]
    assert all(np.isfinite(value) for _, value in results["fid"]["by_epoch"])
    protocol = results["fid"]["protocol"]
    assert protocol["reference"] == f"folder {photos}, 32 pixels"
    assert protocol["weights"] == "averaged (EMA)" and protocol["num_reference"] == 40

    run(*common, "--epochs", 2, "--workdir", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == 6
    assert [epoch for epoch, _ in results["fid"]["by_epoch"]] == [0, 1, 2]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    history = json.loads((tmp_path / "history.json").read_text())["history"]
    assert [epoch for epoch, _ in history["d_loss"]] == [1, 2]

    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in paths}
    assert "is finished. Give more --epochs" in run(*common, "--epochs", 2, "--workdir", tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_color_images_of_another_power_of_two(tmp_path, capsys, eager):
    rng = np.random.default_rng(0)
    for index in range(4):
        pixels = rng.integers(0, 256, (70, 50 + 10 * index, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    options = ["--images", tmp_path, "--workdir", tmp_path / "run", "--image_size", 16]
    options += ["--base_filters", 8, "--batch_size", 2, "--epochs", 1, "--fid_images", 4]
    save_stand_in(tmp_path / "inception")  # of the signature of TF-GAN's
    options += ["--inception", tmp_path / "inception"]
    load_example("image_folder").main([*map(str, options)])
    assert "4 images of 16 pixels" in capsys.readouterr().out
    for name in ("samples_epoch_001", "attention_epoch_001", "attention_epoch_001_discriminator"):
        with Image.open(tmp_path / "run" / f"{name}.png") as picture:
            assert np.ptp(np.asarray(picture.convert("RGB")), axis=-1).any(), name
    fid = json.loads((tmp_path / "run" / "results.json").read_text())["fid"]
    assert str(tmp_path / "inception") in fid["protocol"]["feature_extractor"]
    assert all(np.isfinite(value) for _, value in fid["by_epoch"])
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.image_shape == (16, 16, 3) and model.num_classes is None


def test_a_size_that_is_not_offered(capsys):
    with pytest.raises(SystemExit):
        load_example("image_folder").main(["--images", "any", "--image_size", "48"])
    error = capsys.readouterr().err
    assert "argument --image_size: invalid choice: 48 (choose from 8, 16, 32, 64, 128" in error
