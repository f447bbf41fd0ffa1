"""A folder of images from start to end: scores, pictures, broken files by name, going on."""

import json

import keras
import numpy as np
import pytest
import short_runs
from example_scripts import load_example
from inception_stand_in import save_stand_in

from keras_sagan import cli
from keras_sagan.data import load_fashion_mnist

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    images, labels = load_fashion_mnist()
    (folder / "a").mkdir()
    for index in np.append(range(12), np.argmin(labels)):  # Some of the first class.
        name = "abcdefghij"[labels[index]]
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(images[index, ..., 0]).save(folder / name / f"{index}.png")
    (folder / "a" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


@pytest.fixture
def brief(monkeypatch):
    short_runs.train_briefly(monkeypatch)


@pytest.mark.slow
def test_a_run_and_going_on(photos, tmp_path, capsys, brief):
    def run(*arguments):
        assert load_example("image_folder").main([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    save_stand_in(tmp_path / "inception")
    small = ["--image-size", 8, "--grey", "--base-filters", 4, "--batch-size", 12]
    small += ["--inception", tmp_path / "inception"]
    common = ["--images", photos, "--labels-from-folders", "--fid-images", 10, *small]
    folder = tmp_path / "run"
    common += ["--output", folder]
    output = run(*common, "--epochs", 1)
    assert "1 files can't be read" in output and f"{photos}/a/cut.jpg" in output
    names = "attention_epoch_001", "attention_epoch_001_discriminator", "curves"
    for name in ("samples_epoch_000", "samples_epoch_001", *names):
        assert (folder / f"{name}.png").stat().st_size > 1000, name
    results = json.loads((folder / "run.json").read_text())
    assert results["steps"] == 1
    assert results["class_names"] == sorted(x.name for x in photos.iterdir())
    assert "a/cut.jpg: " in (folder / "keras_sagan.log").read_text()
    assert [epoch for epoch, _ in results["fid"]["by_epoch"]] == [0, 1]
    assert all(np.isfinite(value) for _, value in results["fid"]["by_epoch"])
    protocol = results["fid"]["protocol"]
    assert protocol["reference"] == f"folder {photos}"
    assert protocol["weights"] == "averaged (EMA)" and protocol["num_reference"] == 10

    run(*common, "--epochs", 2)
    results = json.loads((folder / "run.json").read_text())
    assert results["steps"] == 2
    assert [epoch for epoch, _ in results["fid"]["by_epoch"]] == [0, 1, 2]
    history = json.loads((folder / "history.json").read_text())["history"]
    assert [epoch for epoch, _ in history["d_loss"]] == [1, 2]

    before = (folder / "run.json").read_bytes()
    assert cli.main(["train", *map(str, common), "--epochs", "2"]) == 0  # It is the same run.
    assert "is finished, and nothing was changed" in capsys.readouterr().out
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.slow
def test_color_images_of_another_power_of_two(tmp_path, capsys, brief):
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for index in range(4):
        pixels = rng.integers(0, 256, (70, 50 + 10 * index, 3), "uint8")
        Image.fromarray(pixels).save(photos / f"{index}.png")
    options = ["--images", photos, "--output", tmp_path / "run", "--image-size", 16]
    options += ["--base-filters", 4, "--batch-size", 4, "--epochs", 1, "--fid-images", 4]
    assert load_example("image_folder").main([*map(str, options)]) == 0
    for name in ("samples_epoch_001", "attention_epoch_001", "attention_epoch_001_discriminator"):
        with Image.open(tmp_path / "run" / f"{name}.png") as picture:
            assert np.ptp(np.asarray(picture.convert("RGB")), axis=-1).any(), name
    fid = json.loads((tmp_path / "run" / "run.json").read_text())["fid"]
    assert "EfficientNet-Lite0" in fid["protocol"]["feature_extractor"]
    assert all(np.isfinite(value) for _, value in fid["by_epoch"])
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.image_shape == (16, 16, 3) and model.num_classes is None


def test_a_size_that_is_not_offered(capsys):
    with pytest.raises(SystemExit):
        load_example("image_folder").main(["--images", "any", "--image-size", "48"])
    error = capsys.readouterr().err
    assert "argument --image-size: invalid choice: 48 (choose from 8, 16, 32, 64, 128" in error


def test_a_folder_must_be_given():
    with pytest.raises(SystemExit, match="Give --images DIR"):
        load_example("image_folder").main(["--epochs", "3"])
