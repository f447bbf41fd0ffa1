"""The main job in miniature: what it leaves, and that interrupting it loses nothing."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from example_scripts import load_example
from inception_stand_in import save_stand_in

from keras_sagan import SAGAN

ROOT = Path(__file__).parents[2]
SHORT = ["--epochs", "2", "--steps_per_epoch", "12", "--fid_images", "40"]
SMALL = ["--base_filters", "4", "--batch_size", "8"]


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "fashion_mnist.py"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def example():
    return load_example("fashion_mnist")


@pytest.fixture(scope="module")
def finished(example, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    example.main([*SHORT, *SMALL, "--workdir", str(workdir)])
    return workdir


@pytest.mark.slow
def test_it_leaves_pictures_model_and_results(finished):
    from PIL import Image

    grids = [f"samples_epoch_{epoch:03d}" for epoch in (0, 1, 2)]
    for name in (*grids, "attention_epoch_002", "curves"):
        with Image.open(finished / f"{name}.png") as picture:
            assert min(picture.size) > 200, name
    results = json.loads((finished / "results.json").read_text())
    assert results["steps"] == 24 and results["seed"] == 0
    assert results["settings"]["steps_per_epoch"] == 12 and results["recipe"]["d_steps"] == 2
    assert results["dtype_policy"] == "float32" and results["recipe"]["base_filters"] == 4
    assert results["seconds"] > 0 and results["versions"].keys() >= {"keras", "tensorflow"}
    assert results["fid"]["protocol"]["num_generated"] == 40
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
def test_interrupted_and_resumed_equals_uninterrupted(example, finished, tmp_path):
    process = start(*SHORT, *SMALL, "--workdir", str(tmp_path))
    output = ""
    while "Epoch 2/2" not in output:
        output += process.stdout.read(16)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "--resume goes on" in rest, rest[-2000:]
    example.main(["--epochs", "2", "--resume", "--workdir", str(tmp_path)])
    first, second = (keras.saving.load_model(d / "model.keras") for d in (finished, tmp_path))
    assert int(first.steps) == int(second.steps) == 24
    for model in (first, second):
        model.all_state = [*model.variables, *model.optimizer.variables]
    for one, other in zip(first.all_state, second.all_state):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=one.path)
    results = [json.loads((d / "results.json").read_text()) for d in (finished, tmp_path)]
    for key in ("start", "end"):
        assert results[0]["fid"][key] == results[1]["fid"][key]


@pytest.mark.slow
def test_a_run_is_never_overwritten(example, finished, tmp_path):
    with pytest.raises(SystemExit, match="holds a run. Use --resume"):
        example.main([*SHORT, "--workdir", str(finished)])
    with pytest.raises(SystemExit, match="no run is in"):
        example.main(["--resume", "--workdir", str(tmp_path / "none")])


@pytest.mark.slow
def test_a_finished_run_is_left_alone(example, finished, capsys):
    paths = [path for path in finished.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in paths}
    example.main(["--resume", "--epochs", "2", "--workdir", str(finished)])
    assert "is finished. Give more --epochs to train on." in capsys.readouterr().out
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_data_that_are_not_there_leave_no_run_behind(example, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="`data_dir` must be a folder holding train-images"):
        example.main(["--data_dir", str(tmp_path), "--workdir", str(workdir)])
    assert not workdir.exists()


@pytest.mark.slow
def test_a_wrong_setting_leaves_no_run_behind(example, tmp_path):
    with pytest.raises(ValueError, match="`num_images` must be an integer of at least 2"):
        example.main(["--fid_images", "1", "--base_filters", "4", "--workdir", str(tmp_path)])
    assert not (tmp_path / "settings.json").exists()


def test_a_workdir_that_cannot_be_written(example, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="--workdir must be a folder .*Received: .*file/run"):
        example.main(["--workdir", str(tmp_path / "file" / "run")])


def test_the_full_files(example, tmp_path):
    """The folder's training images are taken, and not those that ship with the package."""
    images = np.arange(70, dtype="uint8")[:, None, None] + np.zeros((28, 28), "uint8")
    for name, array in (("images-idx3", images), ("labels-idx1", np.arange(70, dtype="uint8") % 7)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (tmp_path / f"train-{name}-ubyte").write_bytes(header + array.tobytes())
    settings = example.parse_arguments(["--data_dir", str(tmp_path), "--fid_images", "50"])
    dataset, info, reference, name = example.load_data(settings)
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  train-labels-idx1-ubyte\n")
    with pytest.raises(ValueError, match="`path` must hold the file with SHA-256 0000.*damaged"):
        example.load_data(settings)
    assert (info.num_images, info.steps_per_epoch, info.image_shape) == (70, 1, (32, 32, 1))
    assert name == "first 50 images of Fashion-MNIST, train"
    np.testing.assert_array_equal(reference[:, 16, 16, 0], np.arange(50))
    batch, labels = next(iter(dataset))
    np.testing.assert_array_equal(labels, batch[:, 16, 16, 0].numpy() % 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "celeb_a"])
def test_a_run_on_a_data_set_of_tfds_with_classes_and_without(example, name, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(SAGAN, "compile", functools.partialmethod(SAGAN.compile, run_eagerly=True))
    save_stand_in(tmp_path / "inception")
    arguments = ["--dataset", name, "--data_dir", str(tmp_path), "--workdir", str(tmp_path / "run")]
    arguments += ["--inception", str(tmp_path / "inception"), "--base_filters", "4"]
    arguments += "--epochs 1 --steps_per_epoch 1 --batch_size 4 --fid_images 12".split()
    with tfds.testing.mock_data(num_examples=16):
        example.main(arguments)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["recipe"]["num_classes"] == {"mnist": 10, "celeb_a": None}[name]
    for picture in ("samples_epoch_001", "attention_epoch_001", "curves"):
        assert (tmp_path / "run" / f"{picture}.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("name, channels", [("fashion_mnist", 1), ("cifar10", 3)])
def test_data_sets_of_tfds(example, name, channels, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    folders = ["--data_dir", str(tmp_path), "--workdir", str(tmp_path / "run")]
    arguments = ["--dataset", name, "--fid_images", "50", "--batch_size", "8", *folders]
    with tfds.testing.mock_data(num_examples=64):
        dataset, info, reference, words = example.load_data(example.parse_arguments(arguments))
        assert info.image_shape == (32, 32, channels) and info.num_classes == 10
        assert reference.shape == (50, 32, 32, channels) and reference.dtype == np.uint8
        assert words == f"first 50 images of TFDS {name}, train"
        if channels == 3:  # Inception is fetched before anything is trained.
            monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
            with pytest.raises(RuntimeError, match="`sha256` must be given for https://tfhub"):
                example.main(arguments)
            arguments += ["--inception", "http://localhost:9/x", "--inception_sha256", "0" * 64]
            with pytest.raises(RuntimeError, match="`handle` can't be fetched"):
                example.main(arguments)
            assert not (tmp_path / "run").exists()
    images, labels = next(iter(dataset))
    assert images.shape == (8, 32, 32, channels) and labels.shape == (8,)


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
