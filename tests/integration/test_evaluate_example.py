"""The evaluation example: a model and a folder, the report as JSON and as a page."""

import tempfile

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from example_scripts import load_example

from keras_sagan import metrics

EXTRACTOR = metrics.GreyClassifierFeatures()


@pytest.fixture(scope="module")
def example():
    return load_example("evaluate")


@pytest.mark.slow
def test_a_saved_model_against_a_folder_and_a_statistics_file(example, tmp_path, capsys):
    image_module = pytest.importorskip("PIL.Image")
    folder = tmp_path / "real"
    folder.mkdir()
    for number, image in enumerate(
        np.random.default_rng(0).integers(0, 256, (30, 32, 32), "uint8")
    ):
        image_module.fromarray(image).save(folder / f"{number:02}.png")
    tiny.build_sagan_of_pictures().save(tmp_path / "model.keras")
    common = ["--reference", str(folder), "--batch-size", "10"]
    example.main(
        [str(tmp_path / "model.keras"), *common, "--num-images", "24"]
        + ["--output", str(tmp_path / "a")]
    )
    report = metrics.EvaluationReport.load(tmp_path / "a" / "report.json")
    assert report.protocol["num_generated"] == 24 and report.protocol["num_reference"] == 30
    page = (tmp_path / "a" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert page.count("<circle") == 9  # KID, FID and AuthPct.
    assert f"{report.values['fid']:.5g}" in page and "grey_classifier sha256:" in page
    assert "report.html" in capsys.readouterr().out

    reference = metrics.ReferenceStatistics.compute(
        metrics.FolderImages(folder),
        metrics.FeatureExtraction(EXTRACTOR),
        "real",
    )
    reference.save(tmp_path / "real.npz")
    example.main(
        ["--generated", str(folder), "--reference", str(tmp_path / "real.npz")]
        + ["--output", str(tmp_path / "b")]
    )
    again = metrics.EvaluationReport.load(tmp_path / "b" / "report.json")
    assert again.values["fid"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        (["model.keras", "--reference", "nowhere"], "must be a folder"),
        (["model.keras", "--reference", "nowhere.npz"], "that exists"),
        (["model.keras", "--dataset", "cifr10"], "The nearest names are cifar10"),
        (["model.keras", "--num-images", "1"], "`num_images` must be"),
        (["model.keras", "--backend", "jax"], "--backend must be tensorflow"),
        (["model.keras", "--extractor", "tfgan"], "`sha256` must be given"),
        (["damaged.keras"], "it is damaged"),
        (["none.keras"], "no model at none.keras"),
        (["model.keras", "--output", "damaged.keras"], "File exists"),
    ],
)
def test_what_goes_wrong_is_one_line(example, changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    (tmp_path / "damaged.keras").write_bytes(b"no archive")
    latents = keras.Input((4,))
    images = keras.layers.Reshape((32, 32, 1))(keras.layers.Dense(1024)(latents))
    keras.Model(latents, images).save("model.keras")
    with pytest.raises(SystemExit) as stop:
        example.main(["--output", "out", *changes])
    assert stop.value.code.startswith("evaluate.py: ") and message in stop.value.code
    assert "\n" not in stop.value.code
    (log,) = tmp_path.glob("keras_sagan_*.log")
    assert stop.value.code.endswith(f"(log: {log})") and "Traceback" in log.read_text()


@pytest.mark.slow
def test_a_folder_against_a_split_of_tensorflow_datasets(example, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    tfds = pytest.importorskip("tensorflow_datasets")
    images = np.random.default_rng(1).integers(0, 256, (12, 32, 32), "uint8")
    for number, image in enumerate(images):
        image_module.fromarray(image).save(tmp_path / f"{number:02}.png")
    with tfds.testing.mock_data(num_examples=20):
        example.main(
            ["--generated", str(tmp_path), "--dataset", "fashion_mnist", "--split", "test"]
            + "--extractor grey --metrics fid kid --batch-size 8".split()
            + ["--output", str(tmp_path / "report"), "--cache-dir", str(tmp_path / "cache")]
        )
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
    protocol = metrics.EvaluationReport.load(tmp_path / "report" / "report.json").protocol
    assert protocol["num_reference"] == protocol["num_generated"] == 12
    assert protocol["reference"] == "TFDS fashion_mnist, test"


@pytest.mark.slow
@pytest.mark.parametrize("with_labels", [False, True])
def test_the_page_of_a_plain_keras_generator_has_samples_too(example, tmp_path, with_labels):
    latents, labels = keras.Input((4,)), keras.Input((), dtype="int32")
    x = keras.layers.Dense(32 * 32, activation="tanh")(latents)
    if with_labels:
        x = 0.5 * x + 0.5 * keras.ops.tanh(keras.layers.Embedding(10, 32 * 32)(labels))
    images = keras.layers.Reshape((32, 32, 1))(x)
    model = keras.Model([latents, labels] if with_labels else latents, images)
    model.save(tmp_path / "generator.keras")
    real = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 1), "uint8")
    metrics.ReferenceStatistics.compute(
        (real, np.arange(20) % 10), metrics.FeatureExtraction(EXTRACTOR), "noise"
    ).save(tmp_path / "noise.npz")
    example.main(
        [str(tmp_path / "generator.keras"), "--reference", str(tmp_path / "noise.npz")]
        + ["--num-images", "12", "--output", str(tmp_path / "report")]
    )
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "grey_classifier sha256:" in page
