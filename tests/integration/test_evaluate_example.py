"""The evaluation example: a model and a folder, the report as JSON and as a page."""

import numpy as np
import pytest
from example_scripts import load_example

from keras_sagan import SAGAN, metrics


@pytest.fixture(scope="module")
def example():
    return load_example("evaluate")


def test_a_saved_model_against_a_folder_and_a_statistics_file(example, tmp_path, capsys):
    image_module = pytest.importorskip("PIL.Image")
    folder = tmp_path / "real"
    folder.mkdir()
    for number, image in enumerate(
        np.random.default_rng(0).integers(0, 256, (30, 32, 32), "uint8")
    ):
        image_module.fromarray(image).save(folder / f"{number:02}.png")
    model = SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4, seed=0)
    model.save(tmp_path / "model.keras")
    common = ["--extractor", "grey", "--metrics", "fid", "--batch_size", "10"]
    example.main(
        ["--model", str(tmp_path / "model.keras"), "--reference", str(folder), *common]
        + ["--num_images", "24", "--output", str(tmp_path / "a")]
    )
    report = metrics.EvaluationReport.load(tmp_path / "a" / "report.json")
    assert report.protocol["num_generated"] == 24 and report.protocol["num_reference"] == 30
    page = (tmp_path / "a" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and page.count("<circle") == 3
    assert f"{report.values['fid']:.5g}" in page and "grey_classifier sha256:" in page
    assert "report.html" in capsys.readouterr().out

    reference = metrics.ReferenceStatistics.compute(
        metrics.FolderImages(folder),
        metrics.FeatureExtraction(metrics.GreyClassifierFeatures()),
        "real",
    )
    reference.save(tmp_path / "real.npz")
    example.main(
        ["--images", str(folder), "--reference", str(tmp_path / "real.npz"), *common]
        + ["--output", str(tmp_path / "b")]
    )
    again = metrics.EvaluationReport.load(tmp_path / "b" / "report.json")
    assert again.values["fid"] == pytest.approx(0.0, abs=1e-6)


def test_a_folder_against_a_split_of_tensorflow_datasets(example, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    tfds = pytest.importorskip("tensorflow_datasets")
    images = np.random.default_rng(1).integers(0, 256, (12, 32, 32), "uint8")
    for number, image in enumerate(images):
        image_module.fromarray(image).save(tmp_path / f"{number:02}.png")
    with tfds.testing.mock_data(num_examples=20):
        example.main(
            ["--images", str(tmp_path), "--reference", "tfds:fashion_mnist:test"]
            + "--extractor grey --metrics fid kid --batch_size 8".split()
            + ["--output", str(tmp_path / "report")]
        )
    protocol = metrics.EvaluationReport.load(tmp_path / "report" / "report.json").protocol
    assert protocol["num_reference"] == 20 and protocol["num_generated"] == 12
    assert (protocol["reference"], protocol["reference_split"]) == (
        "fashion_mnist, 32 pixels",
        "test",
    )
