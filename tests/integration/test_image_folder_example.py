"""A folder of images from start to end: scores, pictures, broken files by name, going on."""

import json

import numpy as np
import pytest
from example_scripts import load_example

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


def test_a_run_and_going_on(photos, tmp_path, capsys):
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
    assert json.loads((tmp_path / "results.json").read_text())["steps"] == 6
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
