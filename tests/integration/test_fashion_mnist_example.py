"""The main job in miniature: what it leaves, and that interrupting it loses nothing."""

import json
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import short_runs
from example_scripts import load_example
from inception_stand_in import save_stand_in

from keras_sagan import SAGAN
from keras_sagan.callbacks import AttentionMonitor

ROOT = Path(__file__).parents[2]
SHORT = ["--epochs", "2", "--steps-per-epoch", "2", "--fid-images", "20", "--fid-every", "2"]
SMALL = ["--base-filters", "4", "--batch-size", "2"]


@pytest.fixture(scope="module", autouse=True)
def brief():
    with pytest.MonkeyPatch.context() as patch:
        short_runs.train_briefly(patch)
        yield


@pytest.fixture(scope="module")
def example():
    return load_example("fashion_mnist")


@pytest.fixture(scope="module")
def finished(example, brief, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        short_runs.build_little(patch)
        assert example.main([*SHORT, *SMALL, "--output", str(output)]) == 0
    return output


@pytest.mark.slow
def test_it_leaves_pictures_model_and_results(finished):
    from PIL import Image

    grids = [f"samples_epoch_{epoch:03d}" for epoch in (0, 1, 2)]
    for name in (*grids, "attention_epoch_002", "curves"):
        with Image.open(finished / f"{name}.png") as picture:
            assert min(picture.size) > 200, name
    results = json.loads((finished / "run.json").read_text())
    settings = results["settings"]
    assert results["steps"] == 4 and settings["seed"] == 0 and settings["base_filters"] == 4
    assert settings["steps_per_epoch"] == 2 and settings["precision"] == "float32"
    assert results["seconds"] > 0 and results["versions"].keys() >= {"keras", "backend"}
    assert results["parameters"].keys() == {"generator", "discriminator"}
    assert results["fid"]["protocol"]["num_generated"] == 20
    assert "sha256" in results["fid"]["protocol"]["feature_extractor"]
    assert all(np.isfinite(results["fid"][key]) for key in ("start", "end"))
    assert all(gamma != 0.0 for gamma in results["attention_gamma"].values())
    history = json.loads((finished / "history.json").read_text())["history"]
    gammas = {name for name in history if "gamma" in name}
    assert len(gammas) == 2 and all(len(history[name]) == 2 for name in {*gammas, "g_loss"})
    (fid,) = (name for name in history if name.startswith("fid"))
    assert [epoch for epoch, _ in history[fid]] == [0, 2]
    model = keras.saving.load_model(finished / "model.keras")
    assert isinstance(model, SAGAN)
    assert model.generate(3, labels=[1, 2, 3]).shape == (3, 32, 32, 1)


@pytest.mark.slow
def test_interrupted_and_resumed_equals_uninterrupted(
    example, finished, tmp_path, monkeypatch, capsys
):
    arguments = [*SHORT, *SMALL, "--output", str(tmp_path)]

    def press(callback, batch, logs=None):
        if int(callback.model.steps.numpy()) == 3:
            signal.raise_signal(signal.SIGINT)

    short_runs.build_little(monkeypatch)
    short_runs.draw_nothing(monkeypatch)
    # A shell that runs the tests in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(AttentionMonitor, "on_train_batch_end", press)
            assert example.main(arguments) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err
    assert "Stopped after step 3; the same command again resumes" in said, said[-2000:]
    assert example.main(arguments) == 0
    first, second = (keras.saving.load_model(d / "model.keras") for d in (finished, tmp_path))
    assert int(first.steps) == int(second.steps) == 4
    for model in (first, second):
        model.all_state = [*model.variables, *model.optimizer.variables]
    for one, other in zip(first.all_state, second.all_state):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=one.path)
    results = [json.loads((d / "run.json").read_text()) for d in (finished, tmp_path)]
    for key in ("start", "end"):
        assert results[0]["fid"][key] == results[1]["fid"][key]


def test_data_that_are_not_there_leave_no_run_behind(example, tmp_path, capsys):
    arguments = ["--data-dir", str(tmp_path), "--output", str(tmp_path / "run")]
    assert example.main(arguments) == 1
    assert "`data_dir` must be a folder holding train-images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_wrong_setting_leaves_no_run_behind(example, tmp_path, capsys):
    output = tmp_path / "run"
    with pytest.raises(SystemExit):
        example.main(["--fid-images", "1", *SMALL, "--output", str(output)])
    assert "--fid-images: must be 0 or an integer of at least 2" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.slow
def test_the_full_files(example, tmp_path, monkeypatch, capsys):
    """The folder's training images are taken, and not those that ship with the package."""
    images = np.arange(70, dtype="uint8")[:, None, None] + np.zeros((28, 28), "uint8")
    for name, array in (("images-idx3", images), ("labels-idx1", np.arange(70, dtype="uint8") % 7)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (tmp_path / f"train-{name}-ubyte").write_bytes(header + array.tobytes())
    arguments = ["--data-dir", str(tmp_path), "--fid-images", "50", "--epochs", "1", *SMALL]
    arguments += ["--steps-per-epoch", "1", "--output", str(tmp_path / "run")]
    monkeypatch.setattr("keras_sagan.run.fit", short_runs.fit)
    assert example.main(arguments) == 0
    results = json.loads((tmp_path / "run" / "run.json").read_text())
    assert results["data"] == "Fashion-MNIST, train"
    assert results["fid"]["protocol"]["reference_split"] == "50 images, evenly spread"
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  train-labels-idx1-ubyte\n")
    assert example.main([*arguments, "--epochs", "2"]) == 1
    assert "`path` must hold the file with SHA-256 0000" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "celeb_a"])
def test_a_run_on_a_data_set_of_tfds_with_classes_and_without(example, name, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    save_stand_in(tmp_path / "inception")
    arguments = ["--dataset", name, "--data-dir", str(tmp_path), "--output", str(tmp_path / "run")]
    arguments += ["--inception", str(tmp_path / "inception"), "--base-filters", "4"]
    arguments += "--epochs 1 --steps-per-epoch 1 --batch-size 2 --fid-images 12".split()
    arguments += ["--image-size", "8"]
    if name == "mnist":  # `test_imagenet_tpu_example.py` has pictures of classes of TFDS.
        monkeypatch.setattr("keras_sagan.run.fit", short_runs.fit)
    with tfds.testing.mock_data(num_examples=16):
        assert example.main(arguments) == 0
    results = json.loads((tmp_path / "run" / "run.json").read_text())
    assert results["num_classes"] == {"mnist": 10, "celeb_a": None}[name]
    assert results["fid"]["protocol"]["reference"] == f"TFDS {name}, train"
    pictures = () if name == "mnist" else ("samples_epoch_001", "attention_epoch_001", "curves")
    for picture in pictures:
        assert (tmp_path / "run" / f"{picture}.png").stat().st_size > 1000


@pytest.mark.slow
def test_inception_is_fetched_before_anything_is_trained(example, tmp_path, monkeypatch, capsys):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    arguments = ["--dataset", "cifar10", "--data-dir", str(tmp_path), "--batch-size", "8"]
    arguments += ["--output", str(tmp_path / "run"), "--base-filters", "4", "--fid-images", "50"]
    arguments += ["--inception", "http://localhost:9/x", "--inception-sha256", "0" * 64]
    with tfds.testing.mock_data(num_examples=64):
        assert example.main(arguments) == 1
    assert "`handle` can't be fetched" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_record_of_the_main_job_keeps_what_is_promised_and_is_what_the_readme_says():
    record = json.loads((ROOT / "benchmarks" / "results" / "fashion_mnist.json").read_text())
    assert record["command"] == "python examples/fashion_mnist.py"
    assert record["fid"]["end"] <= record["fid"]["start"] / 5 and record["seconds"] <= 8 * 60
    assert all(gamma != 0.0 for gamma in record["attention_gamma"].values())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    gammas = [f"{gamma:.3g}" for gamma in record["attention_gamma"].values()]
    for row in (
        f"time | {record['seconds']:.0f} seconds, pictures",
        f"FID before training | {record['fid']['start']:.1f} |",
        f"FID at the end | {record['fid']['end']:.1f} |",
        f"γ at the end | generator {gammas[0]}, discriminator {gammas[1]} |",
    ):
        assert f"| {row}" in readme
