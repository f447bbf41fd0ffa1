"""The command line: one full round on the embedded images, help, and what goes wrong."""

import functools
import io
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from inception_stand_in import save_stand_in

from keras_sagan import SAGAN
from keras_sagan.callbacks import AttentionMonitor
from keras_sagan.cli import main
from keras_sagan.cli.main import build_parser
from keras_sagan.metrics import FeatureExtraction, GreyClassifierFeatures, ReferenceStatistics
from keras_sagan.metrics.evaluation_run import EvaluationRun

Image = pytest.importorskip("PIL.Image")
COMMANDS = ("train", "sample", "attention", "evaluate", "export")


@pytest.fixture(scope="module", autouse=True)
def eager():
    """Few steps are made here, and tracing takes longer than they."""
    with pytest.MonkeyPatch.context() as patch:
        compiled = functools.partialmethod(SAGAN.compile, run_eagerly=True)
        patch.setattr(SAGAN, "compile", compiled)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, eager):
    """A run of two epochs, stopped by Ctrl-C in the second and gone on with by the same command."""
    output = tmp_path_factory.mktemp("cli") / "run"
    options = ["--output", str(output), "--base-filters", "4", "--batch-size", "4"]
    options += ["--steps-per-epoch", "2", "--fid-images", "20"]
    options += ["--epochs", "2"]
    pressed = []

    def press(callback, batch, logs=None):
        pressed.append(batch)
        if len(pressed) == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttentionMonitor, "on_train_batch_end", press)
        stderr = io.StringIO()
        patch.setattr(sys, "stderr", stderr)
        assert main(["train", *options]) == 130
    assert "\nStopped after step 3; the same command again goes on.\n" in stderr.getvalue()
    assert not (output / "model.keras").exists()
    assert main(["train", *options]) == 0
    return output


def test_train_leaves_pictures_and_goes_on(run):
    for name in ("samples_epoch_000", "samples_epoch_002", "attention_epoch_002", "curves"):
        assert (run / f"{name}.png").stat().st_size > 1000, name
    with Image.open(run / "samples.gif") as picture:
        assert picture.n_frames == 3
    known = json.loads((run / "run.json").read_text())
    assert known["class_names"][9] == "Ankle boot" and known["data"] == "Fashion-MNIST, test"
    record = json.loads((run / "fid.json").read_text())
    assert record["by_epoch"] and record["protocol"]["reference"] == "Fashion-MNIST, test"
    assert record["protocol"]["reference_split"].endswith(" images, evenly spread")
    assert "grey_classifier sha256:" in record["protocol"]["feature_extractor"]


@pytest.mark.parametrize("kind", ["grid", "latents", "classes", "truncation"])
def test_sample(run, tmp_path, kind, capsys):
    path = tmp_path / "new" / "picture.png"
    options = ["--columns", "3"] + (["--classes", "1", "4"] if kind != "truncation" else [])
    assert main(["sample", str(run), "--kind", kind, "--output", str(path), *options]) == 0
    assert capsys.readouterr().out.strip().endswith(str(path))
    with Image.open(path) as picture:
        rows = 5 if kind == "truncation" else 2
        assert picture.size[1] == rows * 66 + 2 and picture.size[0] > 3 * 66


@pytest.mark.parametrize(
    "options, message",
    [
        ("--kind latents --to-classes 1", "--to-classes goes with --kind classes alone."),
        ("--kind truncation --truncation 1", "it doesn't go with --truncation."),
        ("--kind truncation --columns 2 --classes 1 2 3", "at least the 3 of --classes. Received"),
        ("--classes 1 10", "`labels` must lie in [0, 10)"),
    ],
)
def test_options_that_do_not_go_together(run, options, message, capsys):
    assert main(["sample", str(run), *options.split()]) == 1
    assert message in capsys.readouterr().err


def test_classes_of_a_truncation_stand_in_columns(run, tmp_path, monkeypatch, capsys):
    asked = []

    def generate(model, count, labels, seed, truncation):
        asked.append((list(labels), truncation))
        return np.zeros((count, 32, 32, 1), "uint8")

    monkeypatch.setattr(SAGAN, "generate", generate)
    path = str(tmp_path / "a.png")
    options = ["--kind", "truncation", "--columns", "5", "--classes", "7", "2", "--output", path]
    assert main(["sample", str(run), *options]) == 0
    assert asked[0] == ([7, 7, 7, 2, 2], 0.1) and len(asked) == 5


def test_sample_of_a_file_goes_beside_it(run):
    assert main(["sample", str(run / "model.keras"), "--columns", "2"]) == 0
    with Image.open(run / "grid.png") as picture:
        assert picture.size[1] == 10 * 66 + 2


def test_attention_of_both_networks(run, tmp_path):
    common = ["--output", str(tmp_path), "--num-points", "1"]
    assert main(["attention", str(run), "--num-images", "2", *common]) == 0
    assert main(["attention", str(run), "--num-images", "2", "--discriminator", *common]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["attention.png", "attention_discriminator.png"]


def test_evaluate_goes_on_after_an_interruption(run, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    command = ["evaluate", str(run), "--num-images", "60", "--metrics", "fid", "kid"]
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationRun, "_noise", interrupted)
        assert main(command) == 130
    assert len(list((run / "report.interrupted").glob("*.features"))) == 2
    assert main(command) == 0
    assert not (run / "report.interrupted").exists()
    protocol = json.loads((run / "report.json").read_text())["protocol"]
    assert "grey_classifier" in protocol["feature_extractor"]
    assert protocol["reference"] == "Fashion-MNIST, test"
    assert protocol["reference_split"] == "60 images, evenly spread"
    assert "fid" in capsys.readouterr().out.lower()


def test_evaluate_by_all_of_its_options(run, tmp_path, capsys):
    path = tmp_path / "new" / "report.json"
    extraction = FeatureExtraction(GreyClassifierFeatures())
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 1), "uint8")
    ReferenceStatistics.compute(images, extraction, "noise").save(tmp_path / "reference.npz")
    options = ["--reference", str(tmp_path / "reference.npz"), "--extractor", "grey"]
    options += ["--raw-weights", "--standing-passes", "2", "--batch-size", "8"]
    options += ["--truncation", "1.5", "--num-images", "20", "--output", str(path)]
    assert main(["evaluate", str(run), *options]) == 0
    protocol = json.loads(path.read_text())["protocol"]
    assert protocol["weights"] == "raw" and protocol["truncation"] == 1.5
    assert protocol["batch_statistics"] == "standing, 2 passes of 64"
    assert main(["evaluate", str(run), *options, "--images", str(tmp_path)]) == 1
    assert "--reference stands in place of --images" in capsys.readouterr().err
    assert main(["evaluate", str(run), *options, "--inception", str(tmp_path)]) == 1
    assert "--inception goes with --extractor tfgan. Received: grey" in capsys.readouterr().err


def test_a_network_that_ends_in_a_softmax_gives_no_inception_score(run, tmp_path, capsys):
    save_stand_in(tmp_path / "network", has_softmax=True)
    options = ["--extractor", "tfgan", "--inception", str(tmp_path / "network")]
    options += ["--metrics", "inception_score", "--num-images", "16", "--batch-size", "16"]
    assert main(["evaluate", str(run), *options, "--output", str(tmp_path / "a.json")]) == 1
    assert "`feature_extractor` without a softmax" in capsys.readouterr().err


def test_export(run, capsys):
    assert main(["export", str(run), "--formats", "saved_model"]) == 0
    assert (run / "export" / "saved_model" / "saved_model.pb").exists()
    assert float(capsys.readouterr().out.split()[-1]) < 1e-5


def test_a_folder_of_images_without_classes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for index in range(8):
        pixels = rng.integers(0, 256, (20, 24, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    output = tmp_path / "run"
    options = ["--base-filters", "4", "--batch-size", "4", "--epochs", "1", "--fid-images", "0"]
    options += ["--images", str(tmp_path), "--output", str(output)]
    assert main(["train", *options]) == 0
    assert f"{tmp_path}/broken.png" in capsys.readouterr().out
    assert main(["sample", str(output), "--columns", "2", "--kind", "latents"]) == 0
    with Image.open(output / "latents.png") as picture:
        assert picture.mode == "RGB"
    assert main(["attention", str(output), "--discriminator"]) == 1
    assert f"was trained on folder {tmp_path}: give its --images" in capsys.readouterr().err
    assert main(["attention", str(output), "--images", str(tmp_path)]) == 1
    assert "--images and --dataset go with --discriminator" in capsys.readouterr().err
    assert main(["sample", str(output), "--kind", "classes"]) != 0
    assert "`--kind classes` needs a model with classes" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_has_a_meaning_in_its_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "usage: keras-sagan" in text
    # Each option is followed by what it means, on its line or on the next.
    options = re.findall(r"^  (-.*)(?=\n(.*))", text.partition("options:")[2], re.MULTILINE)
    assert len(options) > 2
    for option, following in options:
        assert re.search(r"\S  +\S", option) or re.match(r"^ {20,}\S", following), option


def test_the_first_help_shows_a_round(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"keras-sagan {command} " in text for command in COMMANDS)
    # What is shown there can be parsed.
    for line in text.splitlines():
        if line.startswith("  keras-sagan "):
            build_parser().parse_args(line.split()[1:])


def test_errors_are_one_line(tmp_path, capsys, monkeypatch):
    assert main(["sample", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("keras-sagan: There is no model at ")
    assert main(["train", "--images", "a", "--dataset", "b"]) == 1
    assert "can't both be given" in capsys.readouterr().err
    for option, needed in (("--grey", "images"), ("--data-dir=a", "dataset")):
        assert main(["train", option]) == 1
        assert f" goes with --{needed} alone." in capsys.readouterr().err
    assert main(["train", "--image-size", "64", "--output", str(tmp_path)]) == 1
    assert "are of 32 pixels: give --images" in capsys.readouterr().err
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    assert main(["sample", str(tmp_path / "other.keras")]) == 1
    assert "other.keras holds a Sequential, and not a SAGAN." in capsys.readouterr().err
    unknown = type("OfAUser", (keras.layers.Layer,), {"__module__": "not_here"})
    keras.Sequential([keras.Input((2,)), unknown()]).save(tmp_path / "unknown.keras")
    assert main(["sample", str(tmp_path / "unknown.keras")]) == 1
    error = capsys.readouterr().err
    assert "can't be loaded" in error and "OfAUser" in error and error.count("\n") == 1
    (tmp_path / "broken.keras").write_bytes(b"no archive")
    assert main(["sample", str(tmp_path / "broken.keras")]) == 1
    assert "broken.keras" in capsys.readouterr().err
    monkeypatch.setenv("KERAS_SAGAN_TRACEBACK", "1")
    with pytest.raises(ValueError, match="There is no model"):
        main(["sample", str(tmp_path)])


@pytest.mark.parametrize("value", ["0", "-3", "two", "1.5"])
def test_counts_are_positive(value, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--epochs", value])
    assert stop.value.code == 2
    assert "argument --epochs: " in capsys.readouterr().err


def test_a_run_that_is_not_finite_is_an_error(tmp_path, capsys, monkeypatch):
    def fit(model, *args, callbacks, **kwargs):
        callbacks[0].reason = "At step 3 d_loss isn't finite."

    monkeypatch.setattr(SAGAN, "fit", fit)
    options = ["--output", str(tmp_path), "--base-filters", "4", "--fid-images", "0"]
    assert main(["train", *options]) == 1
    assert "keras-sagan: At step 3 d_loss isn't finite. The newest" in capsys.readouterr().err
    assert not (tmp_path / "model.keras").exists()


def test_ctrl_c(monkeypatch, capsys):
    def stop(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_sagan.cli.pictures.load_run", stop)
    assert main(["sample", "any"]) == 130
    assert "Stopped." in capsys.readouterr().err


def test_python_m():
    command = [sys.executable, "-m", "keras_sagan", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout.startswith("keras_sagan 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--output=~/x"],
        ["train", "--images=~/x"],
        ["train", "--data-dir=~/x"],
        ["train", "--inception=~/x"],
        ["sample", "~/x"],
        ["sample", "run", "--output=~/x"],
        ["attention", "run", "--output=~/x"],
        ["evaluate", "run", "--output=~/x"],
        ["evaluate", "run", "--reference=~/x"],
        ["evaluate", "run", "--held-out=~/x"],
        ["export", "run", "--output=~/x"],
    ],
)
def test_paths_begin_in_the_home_folder(arguments, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert "/home/ada/x" in vars(build_parser().parse_args(arguments)).values()
