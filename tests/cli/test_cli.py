"""The command line: one full round on the embedded images, help, and what goes wrong."""

import errno
import functools
import io
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import short_runs
from inception_stand_in import save_stand_in

from keras_sagan import SAGAN, data, metrics, options, quiet
from keras_sagan.callbacks import AttentionMonitor
from keras_sagan.cli import main
from keras_sagan.cli.main import build_parser
from keras_sagan.metrics import (
    FeatureExtraction,
    FIDInception,
    GreyClassifierFeatures,
    ReferenceStatistics,
    TFGANInception,
)
from keras_sagan.metrics.extractors import efficientnet_lite
from keras_sagan.run import build_model, evaluator_for, with_defaults
from keras_sagan.sources import extractor_for, open_source

Image = pytest.importorskip("PIL.Image")
COMMANDS = ("train", "sample", "attention", "evaluate", "export")


@pytest.fixture(scope="module", autouse=True)
def brief():
    with pytest.MonkeyPatch.context() as patch:
        short_runs.train_briefly(patch)
        short_runs.build_little(patch)
        yield


@pytest.fixture(scope="module")
def train_options(tmp_path_factory):
    """The options of `run`."""
    output = tmp_path_factory.mktemp("cli") / "run"
    options = ["--output", str(output), "--base-filters", "4", "--batch-size", "2"]
    options += ["--steps-per-epoch", "2", "--fid-images", "20"]
    return [*options, "--epochs", "2"]


@pytest.fixture(scope="module")
def run(train_options, brief):
    """A run of two epochs, stopped by Ctrl-C in the second and resumed by the same command."""
    output = Path(train_options[1])
    pressed = []

    def press(callback, batch, logs=None):
        pressed.append(batch)
        if len(pressed) == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttentionMonitor, "on_train_batch_end", press)
        stderr = io.StringIO()
        patch.setattr(sys, "stderr", stderr)
        assert main(["train", *train_options]) == 130
    assert "\nStopped after step 3; the same command again resumes the run.\n" in stderr.getvalue()
    assert not (output / "model.keras").exists()
    assert main(["train", *train_options]) == 0
    return output


@pytest.mark.slow
def test_train_leaves_pictures_and_goes_on(run):
    for name in ("samples_epoch_000", "samples_epoch_002", "attention_epoch_002", "curves"):
        assert (run / f"{name}.png").stat().st_size > 1000, name
    with Image.open(run / "samples.gif") as picture:
        assert picture.n_frames == 3
    known = json.loads((run / "run.json").read_text())
    assert known["class_names"][9] == "Ankle boot" and known["data"] == "Fashion-MNIST, test"
    record = known["fid"]
    assert record["by_epoch"] and record["protocol"]["reference"] == "Fashion-MNIST, test"
    assert record["protocol"]["reference_split"].endswith(" images, evenly spread")
    assert "grey_classifier sha256:" in record["protocol"]["feature_extractor"]


@pytest.mark.slow
def test_a_resumed_run_has_the_metrics_of_all_epochs(run):
    history = json.loads((run / "history.json").read_text())["history"]
    assert [epoch for epoch, _ in history["d_loss"]] == [1, 2]
    (fid,) = (name for name in history if name.startswith("fid"))
    assert [epoch for epoch, _ in history[fid]] == [0, 1, 2]
    by_epoch = json.loads((run / "run.json").read_text())["fid"]["by_epoch"]
    assert by_epoch == history[fid]


@pytest.mark.slow
def test_the_log_of_a_run_has_its_commands_epochs_and_end(run):
    text = (run / "keras_sagan.log").read_text()
    assert text.count("keras-sagan train --output") == 2
    assert "python 3." in text and "epoch 1: " in text and "epoch 2: " in text
    assert "Stopped after step 3" in text and "Pictures, model.keras and run.json are in" in text


def files_of(folder):
    """What each file holds, but for the log, which only grows."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in paths if path.name != "keras_sagan.log"}


@pytest.mark.slow
@pytest.mark.parametrize("is_read_only", [False, True])
def test_the_same_command_leaves_a_finished_run_alone(
    run, train_options, is_read_only, monkeypatch, capsys
):
    def open_to_read(path, mode="r", *given, **more):
        if mode[0] in "aw" and str(path).startswith(str(run)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_any(path, mode, *given, **more)

    if is_read_only:
        open_any = open
        monkeypatch.setattr("builtins.open", open_to_read)
    before = files_of(run)
    for epochs in ("2", "1"):
        assert main(["train", *train_options, "--epochs", epochs]) == 0
        assert "is finished, and nothing was changed. Give more --epochs" in capsys.readouterr().out
    assert files_of(run) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, message",
    [
        (["--base-filters", "8"], "of base_filters=4, and base_filters=8"),
        (["--seed", "3"], "of seed=0, and seed=3"),
        (["--base-filters", "8", "--epochs", "3"], "of base_filters=4, and base_filters=8"),
        (["--precision", "mixed_bfloat16", "--epochs", "3"], "of precision='float32', and"),
        (["--g-learning-rate", "0.1", "--epochs", "3"], "of g_learning_rate=0.0004, and"),
        (["--ema-momentum", "0.9", "--epochs", "3"], "of ema_momentum=0.99, and"),
        (["--images", "nowhere", "--epochs", "3"], "`directory` must be a folder"),
        (["--recipe", "none", "--epochs", "3"], "`recipe` must be one of"),
    ],
)
def test_what_is_refused_leaves_the_run_as_it_is(run, train_options, changes, message, capsys):
    before = files_of(run)
    assert main(["train", *train_options, *changes]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert files_of(run) == before


@pytest.mark.slow
def test_the_record_of_a_run_is_a_config(run, tmp_path, monkeypatch, capsys):
    before = files_of(run)
    assert main(["train", "--config", str(run / "run.json")]) == 0
    assert f"The run in {run}/ is finished" in capsys.readouterr().out
    options = ["--config", str(run / "run.json"), "--output", str(tmp_path), "--epochs", "1"]
    monkeypatch.setattr("keras_sagan.run.fit", short_runs.fit)
    assert main(["train", *options, "--precision", "mixed_bfloat16", "--seed", "3"]) == 0
    known, new = (json.loads((x / "run.json").read_text())["settings"] for x in (run, tmp_path))
    changes = {"output": str(tmp_path), "epochs": 1, "precision": "mixed_bfloat16", "seed": 3}
    assert new == {**known, **changes} and files_of(run) == before
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.dtype_policy.name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grid", "latents", "classes", "truncation"])
def test_sample(run, tmp_path, kind, capsys):
    path = tmp_path / "new" / "picture.png"
    options = ["--columns", "3"] + (["--classes", "1", "Coat"] if kind != "truncation" else [])
    assert main(["sample", str(run), "--kind", kind, "--output", str(path), *options]) == 0
    assert capsys.readouterr().out.strip().endswith(str(path))
    with Image.open(path) as picture:
        rows = 5 if kind == "truncation" else 2
        assert picture.size[1] == rows * 66 + 2 and picture.size[0] > 3 * 66


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, message",
    [
        ("--kind latents --to-classes 1", "--to-classes needs --kind classes."),
        ("--kind truncation --truncation 1", "can't be combined with --truncation."),
        ("--kind truncation --columns 2 --classes 1 2 3", "at least the 3 of --classes. Received"),
        ("--classes 1 10", "`labels` must lie in [0, 10)"),
        ("--classes bag boat", "A class must be one of ['T-shirt/top', "),
    ],
)
def test_options_that_do_not_go_together(run, options, message, capsys):
    assert main(["sample", str(run), *options.split()]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
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


@pytest.mark.slow
def test_each_row_of_classes_ends_in_the_next_ones_class(run, tmp_path, monkeypatch):
    asked = []

    def interpolate(model, rows, steps, labels, to_labels, **common):
        asked.append((list(labels), list(to_labels)))
        return np.zeros((rows, steps, 32, 32, 1), "uint8")

    monkeypatch.setattr(SAGAN, "interpolate", interpolate)
    path = str(tmp_path / "a.png")
    options = ["--kind", "classes", "--columns", "2", "--classes", "7", "2", "4", "--output", path]
    assert main(["sample", str(run), *options]) == 0
    assert asked == [([7, 2, 4], [2, 4, 7])]


@pytest.mark.slow
def test_sample_of_a_file_goes_beside_it(run):
    assert main(["sample", str(run / "model.keras"), "--columns", "2"]) == 0
    with Image.open(run / "grid.png") as picture:
        assert picture.size[1] == 10 * 66 + 2


@pytest.mark.slow
def test_attention_of_both_networks(run, tmp_path):
    common = ["--output", str(tmp_path), "--num-points", "1"]
    assert main(["attention", str(run), "--num-images", "2", *common]) == 0
    assert main(["attention", str(run), "--num-images", "2", "--discriminator", *common]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["attention.png", "attention_discriminator.png"]


@pytest.mark.slow
def test_evaluate(run, tmp_path, capsys):
    command = ["evaluate", str(run), "--num-images", "60", "--metrics", "fid", "kid"]
    assert main([*command, "--cache-dir", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.npz"))) == 1
    protocol = json.loads((run / "report.json").read_text())["protocol"]
    assert "grey_classifier" in protocol["feature_extractor"]
    assert protocol["reference"] == "Fashion-MNIST, test"
    assert protocol["reference_split"] == "60 images, evenly spread"
    assert "fid" in capsys.readouterr().out.lower()


def save_images(folder, count, seed):
    folder.mkdir()
    for index, pixels in enumerate(
        np.random.default_rng(seed).integers(0, 256, (count, 32, 32), "uint8")
    ):
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return str(folder)


def test_two_folders_of_images_in_one_command(tmp_path, capsys):
    real = save_images(tmp_path / "real", 30, 0)
    options = ["--generated", save_images(tmp_path / "made", 20, 1), "--reference", real]
    path = tmp_path / "new" / "report.json"
    assert main(["evaluate", *options, "--output", str(path)]) == 0
    report = json.loads(path.read_text())
    protocol = report["protocol"]
    assert (protocol["num_generated"], protocol["num_reference"]) == (20, 30)
    assert (report["model"], protocol["reference"]) == ("made", "real")
    assert f"{report['values']['fid']:.5g}" in capsys.readouterr().out
    before = sorted(tmp_path.rglob("*"))
    assert main(["evaluate", "--generated", real, "--reference", real, "--num-images", "9"]) == 0
    assert re.search(r"images +9 ", capsys.readouterr().out)
    assert main(["evaluate", "--generated", real, "--num-images", "9"]) == 0
    assert "reference: Fashion-MNIST, test" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_two_folders_of_photographs_with_no_other_option(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(metrics, "EfficientNetLite0Features", lambda: lambda x: x.mean((1, 2)))
    folders = []
    for index, name in enumerate(("made", "real", "gray")):
        (tmp_path / name).mkdir()
        for number in range(6):
            pixels = np.random.default_rng(10 * index + number).integers(0, 256, (48, 48, 3))
            pixels = pixels[..., 0] if name == "gray" else pixels
            Image.fromarray(pixels.astype("uint8")).save(tmp_path / name / f"{number}.png")
        folders.append(str(tmp_path / name))
    made, real, gray = folders
    assert main(["evaluate", "--generated", made, "--reference", real]) == 0
    lines = capsys.readouterr().out.split("\n")
    rows = [line.split()[0] for line in lines if line]
    assert rows.index("score") + 1 == rows.index("kid") < rows.index("fid")
    assert "note: A FID of fewer than 2,000 images" in "\n".join(lines)
    assert main(["evaluate", "--generated", made, "--reference", gray]) == 1
    assert "`images` and `reference` must both be gray or" in capsys.readouterr().err
    assert main(["evaluate", "--generated", made]) == 1
    assert "--generated with color images needs --reference, " in capsys.readouterr().err


def test_held_out_images_are_read_as_the_reference(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(metrics, "EfficientNetLite0Features", lambda: lambda x: x.mean((1, 2)))
    folders = []
    for index, size in enumerate([(48, 48), (64, 50), (20, 30)]):
        (folder := tmp_path / f"{index}").mkdir()
        for number in range(6):
            pixels = np.random.default_rng(10 * index + number).integers(0, 256, (*size, 3))
            Image.fromarray(pixels.astype("uint8")).save(folder / f"{number}.png")
        folders.append(str(folder))
    options = ["evaluate", "--generated", folders[0], "--held-out", folders[2]]
    assert main([*options, "--images", folders[1]]) == 0
    said = capsys.readouterr().out
    assert (
        "memorized" in said
        and f"6 images in {folders[2]}" in said
        and "difference in resolution" not in said
    )
    assert "for copies" not in said
    assert main([*options, "--images", folders[1], "--num-images", "4"]) == 0
    said = capsys.readouterr().out
    assert f"memorization searches 4 of the 6 images of folder {folders[1]} for copies" in said
    assert main([*options, "--reference", folders[1]]) == 0
    said = capsys.readouterr().out
    for name, size in (("generated", "48 × 48"), ("held-out", "20 × 30")):
        assert f"The {name} images have {size} pixels and the reference images 64 × 50" in said


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "Give either a run or --generated"),
        (["run", "--generated", "x"], "Give either a run or --generated"),
        (["--generated", "x", "--truncation", "0.5"], "--truncation needs a run."),
        (["--generated", "x", "--labels", "reference"], "--labels needs a run: "),
        (["--generated", "x", "--metrics", "kid", "intra_fid"], "--metrics intra_fid needs a run"),
        (
            ["--generated", "nowhere", "--reference", "x.npz"],
            "--generated: `folder` must be a folder",
        ),
    ],
)
def test_what_does_not_go_with_a_folder(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["evaluate", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
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
    for option in (["--images", str(tmp_path)], ["--grey"], ["--split", "test"]):
        assert main(["evaluate", str(run), *options, *option]) == 1
        assert f"--reference can't be combined with {option[0]}." in capsys.readouterr().err
    assert main(["evaluate", str(run), *options, "--inception", str(tmp_path)]) == 1
    message = "--inception chooses the network: leave out --extractor. Received: grey"
    assert message in capsys.readouterr().err
    assert main(["evaluate", str(run), *options, "--inception-sha256", "0" * 64]) == 1
    assert "--inception-sha256 chooses the network: leave out" in capsys.readouterr().err


def test_a_pth_file_is_for_fid_inception_and_anything_else_for_tfgan():
    settings = {"inception": "weights.pth", "inception_sha256": None}
    extractor = extractor_for((64, 64, 3), settings)
    assert isinstance(extractor, FIDInception) and extractor.weights == "weights.pth"
    with pytest.raises(ValueError, match="--inception-sha256 can't .* --inception weights.pth"):
        extractor_for((64, 64, 3), settings | {"inception_sha256": "0" * 64})
    for other in ({"inception": "folder"}, {"inception": None, "inception_sha256": "0" * 64}):
        for shape in ((64, 64, 3), (28, 28, 1)):
            assert isinstance(extractor_for(shape, settings | other), TFGANInception)


def test_a_run_whose_fid_lacks_a_package(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "no-such-package")
    color, said = SimpleNamespace(image_shape=(64, 64, 3)), []
    settings = {"inception": None, "inception_sha256": None, "fid_images": 10}
    assert evaluator_for(color, settings, None, SimpleNamespace(say=said.append)) is None
    assert said[0].startswith("No FID is measured: EfficientNetLite0Features needs")
    assert said[0].endswith("pip install no-such-package")


def test_a_damaged_inception_is_found_before_training(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"PK")
    color = SimpleNamespace(image_shape=(8, 8, 3))
    settings = {"inception_sha256": None, "fid_images": 10, "inception": f"{tmp_path}/weights.pth"}
    with pytest.raises(ValueError, match="must be a complete PyTorch file"):
        evaluator_for(color, settings, None, SimpleNamespace(say=print))


@pytest.mark.slow
def test_a_network_that_ends_in_a_softmax_gives_no_inception_score(run, tmp_path, capsys):
    save_stand_in(tmp_path / "network", has_softmax=True)
    options = ["--extractor", "tfgan", "--inception", str(tmp_path / "network")]
    options += ["--metrics", "inception_score", "--num-images", "16", "--batch-size", "16"]
    assert main(["evaluate", str(run), *options, "--output", str(tmp_path / "a.json")]) == 1
    assert "`feature_extractor` without a softmax" in capsys.readouterr().err


@pytest.mark.slow
def test_export(run, capsys):
    assert main(["export", str(run), "--formats", "saved_model"]) == 0
    assert (run / "export" / "saved_model" / "saved_model.pb").exists()
    assert float(capsys.readouterr().out.split()[-1]) < 1e-5


@pytest.mark.slow
def test_a_folder_of_images_without_classes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keras_sagan.run.fit", short_runs.fit)
    rng, photos, output = np.random.default_rng(0), tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    for index in range(8):
        pixels = rng.integers(0, 256, (20, 24, 3) if index else (20, 24), "uint8")
        Image.fromarray(pixels).save(photos / f"{index}.png")
    (photos / "broken.png").write_bytes(b"")
    options = ["--base-filters", "4", "--batch-size", "4", "--fid-images", "0", "--image-size", "8"]
    train = ["train", *options, "--images", str(photos), "--epochs", "1", "--output"]
    for inside in (photos, photos / "runs" / "first"):
        assert main([*train, str(inside)]) == 1
        assert "--output must be outside --images" in capsys.readouterr().err
    assert main([*train, str(output)]) == 0
    said = capsys.readouterr().out
    assert f"{photos}/broken.png" in said and "2 steps per epoch, 1 epoch, into" in said
    assert f"8 images in {photos} (1 gray, converted to color)" in said
    photos = photos.rename(tmp_path / "moved")
    again = ["train", *options, "--images", str(photos), "--epochs", "2", "--output", str(output)]
    assert main(again) == 0
    said = capsys.readouterr().out
    assert f"was trained on folder {tmp_path}/photos, and continues on folder {photos}." in said
    assert main(["sample", str(output), "--columns", "2", "--kind", "latents"]) == 0
    with Image.open(output / "latents.png") as picture:
        assert picture.mode == "RGB"
    assert main(["attention", str(output), "--discriminator"]) == 1
    assert f"was trained on folder {photos}: give its --images" in capsys.readouterr().err
    assert main(["attention", str(output), "--images", str(photos)]) == 1
    assert "--images and --dataset need --discriminator" in capsys.readouterr().err
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


def test_flip_mirrors_images_of_the_run():
    settings = {name: option.default for name, option in options.TRAIN.items()}
    given, flipped = (
        next(iter(open_source({**settings, "flip": flip}, 32, 64).batches()))[0]
        for flip in (False, True)
    )
    given, flipped = np.asarray(given), np.asarray(flipped)
    mirrored = (flipped == given[:, :, ::-1]).all(axis=(1, 2, 3))
    assert 10 < mirrored.sum() < 54 and (flipped[~mirrored] == given[~mirrored]).all()


def test_flip_reaches_a_dataset_of_tfds_but_not_its_reference(monkeypatch):
    info = SimpleNamespace(
        num_images=9, image_shape=(32, 32, 3), num_classes=None, class_names=None, steps_per_epoch=2
    )
    flips = []

    def load_tfds(*args, flip=False, **kwargs):
        flips.append(flip)
        return [np.zeros((4, 32, 32, 3), "uint8")], info

    monkeypatch.setattr(data, "load_tfds", load_tfds)
    settings = {name: option.default for name, option in options.TRAIN.items()}
    open_source({**settings, "dataset": "cifar10", "flip": True}, 32, 4).head(4)
    assert flips == [True, False]


@pytest.mark.parametrize("size, preset", [(None, 64), (16, 32), (32, 32), (64, 64), (256, 128)])
def test_the_default_preset_of_images_depends_on_their_size(size, preset):
    settings = {name: option.default for name, option in options.TRAIN.items()}
    found = with_defaults(settings | {"images": "photos", "image_size": size})
    assert found["preset"] == f"sagan_small_data_{preset}"
    assert found["image_size"] == (size or 64)


def test_augmentation_becomes_that_of_the_model():
    """It keeps the rest of the preset's objective."""
    settings = {name: option.default for name, option in options.TRAIN.items()}
    settings |= {"preset": "sagan_small_data_32", "base_filters": 4, "augmentation": "cutout"}
    model = build_model(with_defaults(settings), channels=1, num_classes=None)
    assert model.augmentation.policy == model.objective["augmentation"] == "cutout"
    assert model.objective["loss"] == "relativistic" and len(model.penalty) == 2
    with pytest.raises(ValueError, match="`policy` must be names among(.|\n)*policy='blur'"):
        build_model(with_defaults(settings | {"augmentation": "blur"}), 1, None)


def test_a_model_is_a_folder_or_a_keras_file(tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    assert main(["sample", str(tmp_path / "run.json")]) == 1
    assert "must be the folder of a run or a .keras file" in capsys.readouterr().err


def test_errors_are_one_line(tmp_path, capsys, monkeypatch):
    assert main(["sample", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("keras-sagan: There is no model at ")
    assert main(["train", "--images", "a", "--dataset", "b"]) == 1
    assert "can't both be given" in capsys.readouterr().err
    for option, needed in (("--grey", "images"), ("--split=a", "dataset")):
        assert main(["train", option]) == 1
        assert f" needs --{needed}." in capsys.readouterr().err
    assert main(["train", "--image-size", "64", "--output", str(tmp_path)]) == 1
    assert "are of 32 pixels: give --images" in capsys.readouterr().err
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    assert main(["sample", str(tmp_path / "other.keras")]) == 1
    assert "other.keras must hold a SAGAN. Received: a Sequential" in capsys.readouterr().err
    unknown = type("OfAUser", (keras.layers.Layer,), {"__module__": "not_here"})
    keras.Sequential([keras.Input((2,)), unknown()]).save(tmp_path / "unknown.keras")
    assert main(["sample", str(tmp_path / "unknown.keras")]) == 1
    error = capsys.readouterr().err
    assert "can't be loaded" in error and "OfAUser" in error and error.count("\n") == 1
    (tmp_path / "broken.keras").write_bytes(b"no archive")
    assert main(["sample", str(tmp_path / "broken.keras")]) == 1
    assert "broken.keras can't be loaded" in capsys.readouterr().err
    monkeypatch.setenv("KERAS_SAGAN_TRACEBACK", "1")
    with pytest.raises(ValueError, match="There is no model"):
        main(["sample", str(tmp_path)])


def without(name, data):
    """An archive without one of its files."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        for each in old.namelist():
            if each != name:
                new.writestr(each, old.read(each))
    return result.getvalue()


def flipped(data):
    """The same bytes but for one in the middle of the weights."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"no archive",
        lambda data: b"PK\x03\x04 no archive",
        functools.partial(without, "config.json"),
        functools.partial(without, "model.weights.h5"),
    ],
    ids=["flipped", "cut", "empty", "text", "header", "config", "weights"],
)
def test_a_damaged_model_is_named_in_one_line(run, damage, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "model.keras"
    path.write_bytes(damage((run / "model.keras").read_bytes()))
    assert main(["sample", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"keras-sagan: {path} can't be loaded: it is damaged")
    assert "`keras-sagan train` command, which" in error and error.count("\n") == 1
    (log,) = tmp_path.glob("keras_sagan_*.log")
    assert error.endswith(f"(log: {log})\n")
    assert "Traceback" in log.read_text() and f"keras-sagan sample {path}" in log.read_text()


class OfALibrary(Exception):
    pass


@pytest.mark.parametrize(
    "error, line",
    [
        (KeyError("a"), "KeyError: 'a'"),
        (AttributeError("no\n  b"), "AttributeError: no b"),
        (OfALibrary(), "OfALibrary"),
        (AssertionError(""), "AssertionError"),
        (RuntimeError("x" * 9999), "x" * 500),
        (RecursionError("deep"), "deep"),
        (MemoryError(), "MemoryError"),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"), "'utf-8' codec can't decode"),
        (RuntimeError(b"caf\xe9".decode(errors="surrogateescape")), "caf"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_a_log(error, line, tmp_path, capsys, monkeypatch):
    def fail(path):
        raise error

    monkeypatch.setattr("keras_sagan.cli.commands.load_run", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "any"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"keras-sagan: {line}") and said.count("\n") == 1 and len(said) < 1000
    (log,) = tmp_path.iterdir()  # Nothing else is left in the working directory.
    assert str(log) in said and "Traceback" in log.read_text()
    assert type(error).__name__ in log.read_text()


@pytest.mark.parametrize("path", [300 * "a", "a\0b", "", "/proc/1/root/a"])
def test_a_path_that_cannot_be_is_one_line(path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["sample", path], ["train", "--image-size", "64", "--output", path]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert error.startswith("keras-sagan: ") and error.count("\n") == 1


def test_a_log_that_cannot_be_written_takes_no_line_away(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert main(["sample", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("writes it when the run is finished.\n")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '"a"', '{"settings": []}'])
def test_a_damaged_record_of_a_run_is_named(content, tmp_path, capsys):
    (tmp_path / "run.json").write_text(content)
    (tmp_path / "model.keras").write_bytes(b"any")
    for command in (["sample", str(tmp_path)], ["train", "--output", str(tmp_path)]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert (
            f"{tmp_path}/run.json is damaged: remove it, and give" in error
            and error.count("\n") == 1
        )
    assert (tmp_path / "run.json").read_text() == content


@pytest.mark.parametrize(
    "name, nearest", [("cifr10", "cifar10"), ("Fashion_mnits", "fashion_mnist"), ("x", "")]
)
def test_an_unknown_data_set_is_answered_with_the_nearest(name, nearest, tmp_path, capsys):
    tfds = pytest.importorskip("tensorflow_datasets")
    assert main(["train", "--dataset", name, "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"name={name!r}" in error
    names = error.partition("The nearest names are ")[2].partition(" (log")[0].split(", ")
    assert len(names) == 3 and set(names) <= set(tfds.list_builders())
    assert nearest in (names[0], "")


@pytest.mark.parametrize("name", ["cifar10/none", "cifar10:9.9.9", "../x", "a b", ""])
def test_a_data_set_that_cannot_be_is_one_line(name, tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    assert main(["train", "--dataset", name, "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and len(error) < 800
    assert ("`name` must be" if name else "--dataset must not be empty.") in error


@pytest.mark.slow
@pytest.mark.parametrize(
    "command, name",
    [
        ("attention --num-points 20000", "`num_points` must be an integer from 1 to 32."),
        ("attention --num-images 20000", "`num_images` must be an integer from 1 to 50."),
        ("attention --discriminator --num-images 51", "`num_images` must be an integer from 1"),
        ("sample --columns 20000", "`columns` must be at most 100."),
    ],
)
def test_more_than_a_picture_shows_is_refused_by_name(run, command, name, capsys):
    command, *options = command.split()
    assert main([command, str(run), *options]) == 1
    error = capsys.readouterr().err
    assert name in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_report_into_a_folder_is_refused_before_it_is_measured(run, capsys):
    assert main(["evaluate", str(run), "--output", str(run)]) == 1
    assert f"--output must be a file, not a folder. Received: {run}" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-3", "two", "1.5"])
def test_counts_are_positive(value, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--epochs", value])
    assert stop.value.code == 2
    assert "argument --epochs: " in capsys.readouterr().err


def test_a_fid_takes_two_images(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--fid-images", "1"])
    assert "--fid-images: must be 0 or an integer of at least 2, not 1" in capsys.readouterr().err


@pytest.mark.slow
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

    monkeypatch.setattr("keras_sagan.cli.commands.load_run", stop)
    assert main(["sample", "any"]) == 130
    assert "Stopped." in capsys.readouterr().err


@pytest.mark.slow
def test_python_m_has_no_lines_of_tensorflow():
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "keras_sagan", "sample", "nowhere"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1 and done.stdout == ""
    assert "keras-sagan: There is no model at nowhere" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("level, is_hidden", [(None, True), ("0", False)])
def test_level_0_shows_the_lines_of_tensorflow(level, is_hidden, monkeypatch):
    hidden = []
    monkeypatch.setattr(quiet, "IS_COMMAND", True)
    monkeypatch.setattr(os, "dup2", lambda *descriptors: hidden.append(descriptors))
    monkeypatch.setattr(logging.Logger, "setLevel", lambda *given: None)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    quiet.import_quietly()
    assert bool(hidden) == is_hidden


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
