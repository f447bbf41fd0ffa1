"""What a run is refused for, what it leaves alone, and options that are read from files."""

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from example_scripts import load_example
from short_runs import build_little, draw_nothing, train_briefly

from keras_sagan import distribution, metrics, models, options
from keras_sagan import run as runs
from keras_sagan.callbacks import AttentionMonitor, FIDEvaluator, TrainingCheckpoint
from keras_sagan.callbacks.checkpoint_files import CheckpointFiles
from keras_sagan.cli import main
from keras_sagan.cli.main import settings_of
from keras_sagan.data import make_dataset

SMALL = "--batch-size 2 --steps-per-epoch 1 --fid-images 0".split()


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """A function that trains into `run` for some epochs, and returns the code and the error."""
    train_briefly(monkeypatch)
    build_little(monkeypatch)
    draw_nothing(monkeypatch)

    def train(epochs, *more):
        options = [*SMALL, "--output", str(tmp_path / "run"), "--epochs", str(epochs)]
        code = main(["train", *options, *more])
        return code, capsys.readouterr().err.splitlines()

    return train


def refused(answer, message):
    """Whether a command ended by one line with a message."""
    code, lines = answer
    return code == 1 and len(lines) == 1 and message in lines[0]


def test_choices_are_those_of_the_package():
    assert options.PRESETS == tuple(sorted(models.PRESETS))
    assert options.IMAGE_SIZES == models.IMAGE_SIZES
    assert options.STRATEGIES == distribution.STRATEGIES
    assert options.METRICS == sorted(metrics.METRICS)
    assert tuple(options.FORMATS) == models.FORMATS


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["train", "--help"], ["--version"]])
def test_help_takes_no_second_and_says_nothing_else(arguments):
    before = os.times()
    command = [sys.executable, "-m", "keras_sagan", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    after = os.times()
    assert done.returncode == 0 and done.stderr == "" and "keras" in done.stdout
    seconds = sum(after[i] - before[i] for i in (2, 3))  # Processor time of children.
    assert seconds <= 1.0


@pytest.mark.parametrize(
    "content, message",
    [
        ({"epoch": 3}, "There is no option `epoch`. The options are ['output', "),
        ({"epochs": "3"}, "`epochs` must be a positive integer. Received: epochs='3'"),
        ({"epochs": True}, "`epochs` must be a positive integer."),
        ({"seed": 1.5}, "`seed` must be an integer of at least 0."),
        ({"grey": "yes"}, "`grey` must be true or false."),
        ({"grey": None}, "`grey` must be true or false."),
        ({"ema_momentum": 1}, "`ema_momentum` must be a number in [0, 1)."),
        ({"g_learning_rate": -1}, "`g_learning_rate` must be a positive number."),
        ({"precision": "float8"}, "`precision` must be one of ['float32', 'mixed_bfloat16', "),
        ({"settings": {"image_size": 33}}, "`image_size` must be one of [8, 16, 32, "),
        ([], "--config must be a file with a JSON object."),
        ("{", "--config must be a file with a JSON object."),
    ],
)
def test_a_config_is_refused_by_name(content, message, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    assert main(["train", "--config", str(path), "--output", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert message in error and str(path) in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_other_classes_are_another_run(tmp_path):
    known = {"class_names": ["cat", "dog"], "num_classes": 2, "settings": {}}
    wanted = {name: options.TRAIN[name].default for name in runs.FIXED}
    wanted |= {"class_names": ["bird", "cat"], "num_classes": 2}
    with pytest.raises(ValueError, match="a run of class_names='cat', and class_names='bird'"):
        runs.check_same_run(tmp_path, known, wanted, newest=3)
    runs.check_same_run(tmp_path, known, {**wanted, **known}, newest=3)
    del known["settings"]  # As in a run of an older version, which had another order of images.
    with pytest.raises(ValueError, match="a new folder, .* a run.json from .* an older version"):
        runs.check_same_run(tmp_path, known, {**wanted, **known}, newest=3)


@pytest.mark.parametrize("content", [None, "{"])
def test_a_config_that_is_no_json_is_named(content, tmp_path, capsys):
    path = tmp_path / "config.json"
    if content:
        path.write_text(content)
    assert main(["train", "--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert str(path) in error and error.count("\n") == 1


def test_another_backend_than_that_of_the_process(capsys):
    assert main(["sample", "any", "--backend", "jax"]) == 1
    error = capsys.readouterr().err
    assert "--backend must be tensorflow, which Keras already" in error and error.count("\n") == 1
    with pytest.raises(ValueError, match="--backend must be tensorflow.*Received: jax"):
        runs.train(backend="jax", images="none")  # No folder is read.


@pytest.mark.parametrize("name", ["emoji", "fashion_mnist", "image_folder", "imagenet_tpu"])
def test_a_config_overrides_the_defaults_of_an_example(name, tmp_path, monkeypatch):
    example, found = load_example(name), []
    monkeypatch.setattr(example.cli, "main", lambda *given: found.append(settings_of(*given)))
    splits = SimpleNamespace(images=[None] * 2)
    for function in ("load_emoji", "write_images"):
        monkeypatch.setattr(example, function, lambda *_, **more: splits, raising=False)
    path, content = tmp_path / "config.json", {"batch_size": 5, "epochs": 7}
    content |= {"preset": "sagan_small_data_64", "output": "runs/mine", "keep_best": True}
    path.write_text(json.dumps(content))
    example.main(["--config", str(path), "--no-keep-best", "--epochs", "8"])
    given = content | {"keep_best": False, "epochs": 8}
    assert {name: found[0][name] for name in given} == given


def test_a_config_of_an_example_that_cannot_be_read():
    with pytest.raises(SystemExit, match="emoji.py: --config must be a file that can be read"):
        load_example("emoji").main(["--config", "none.json"])


def test_options_in_python_are_those_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"output": Path("~/run"), "epochs": np.int64(3), "grey": np.bool_(True)}
    given |= {"ema_momentum": np.float32(0.5), "images": "~/photos"}
    expected = {"output": f"{tmp_path}/run", "epochs": 3, "grey": True}
    expected |= {"ema_momentum": 0.5, "images": f"{tmp_path}/photos"}
    found = options.check_options(options.TRAIN, given)
    assert json.dumps(found) == json.dumps(expected)
    with pytest.raises(ValueError, match="`output` must be a path. Received: output=3"):
        options.check_options(options.TRAIN, {"output": 3})


def test_a_run_in_the_home_folder_is_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    network = SimpleNamespace(weights=[])
    model = SimpleNamespace(generator=network, discriminator=network)
    with pytest.raises(AttributeError, match="attention_gammas"):  # The model isn't one.
        runs.fit(model, None, "~/run", 1, 1)
    assert os.listdir() == ["home"] and (tmp_path / "home/run/run.lock").exists()


@pytest.mark.parametrize(
    "name", ["model.keras", "history.json", "curves.png", "run.json", "samples_epoch_001.png"]
)
def test_files_of_a_user_are_not_replaced(name, tmp_path, train):
    path = tmp_path / "run" / name
    path.parent.mkdir()
    path.write_text('{"of": "a user"}')
    assert refused(
        train(1), "--output must be a new folder, or the folder of the same run. Received: "
    )
    assert path.read_text() == '{"of": "a user"}' and not (tmp_path / "run/checkpoints").exists()


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(tmp_path, train):
    (tmp_path / "run").touch()
    assert refused(train(1), f"--output must be a folder that can be written. Received: {tmp_path}")


def test_a_finished_run_without_its_checkpoints(tmp_path, train):
    """They may be on a disk that isn't mounted, so training must not begin again."""
    assert train(1)[0] == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = (tmp_path / "run" / "model.keras").read_bytes()
    assert train(1)[0] == 0
    assert refused(train(2), "can't continue without its checkpoints: restore ")
    assert (tmp_path / "run" / "model.keras").read_bytes() == before


def test_the_default_folder_of_checkpoints_may_be_written_out(tmp_path, train):
    assert train(1)[0] == 0
    assert train(2, "--checkpoints", f"{tmp_path}/./run/checkpoints")[0] == 0
    assert json.loads((tmp_path / "run/run.json").read_text())["finished"]["epochs"] == 2


def test_the_batch_size_can_change_at_the_end_of_an_epoch(tmp_path, train, monkeypatch):
    two = ("--steps-per-epoch", "2", "--save-every", "1")

    def stop(callback, batch, logs=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AttentionMonitor, "on_train_batch_end", stop)
        assert train(1, *two)[0] == 130
    assert refused(
        train(1, *two, "--batch-size", "4"),
        "--batch-size can change only at the end of an epoch: repeat the command with "
        "--batch-size 2 first. Received: 4",
    )
    assert train(1, *two)[0] == 0
    assert train(2, *two, "--batch-size", "4")[0] == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["batch_size"] == 4


def test_the_best_checkpoint_needs_a_fid(tmp_path, train):
    assert train(1, "--keep-best")[0] == 0
    log = (tmp_path / "run" / "keras_sagan.log").read_text()
    assert "--keep-best has no effect, because no FID is measured." in log


@pytest.mark.slow
def test_a_run_among_the_files_of_a_user(tmp_path, train, monkeypatch):
    """One run from its start: refused, full, damaged, resumed; nothing of a user's is touched."""
    fcntl = pytest.importorskip("fcntl")
    output = tmp_path / "run"
    checkpoints = output / "checkpoints"
    own = [output / "notes.txt", checkpoints / "notes.txt", checkpoints / "step-1" / "notes.txt"]
    (checkpoints / "step-1").mkdir(parents=True)
    for path in own:
        path.write_text("a user's")
    assert train(2)[0] == 0
    assert (checkpoints / "step-2" / "manifest.json").exists()

    with open(output / "run.lock", "ab") as file:  # As another process has it.
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = train(3)
    assert refused(answer, f"a folder that no other process trains in. Received: {output}")

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        code, lines = train(3)
    assert code == 1 and "checkpoint of step 2 is complete; run the same command" in lines[-1]
    assert not (checkpoints / "step-3").exists() and not (checkpoints / "step-3.new").exists()

    state = checkpoints / "step-2" / "state.npz"
    state.write_bytes(state.read_bytes()[:-9])
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert train(3)[0] == 0
    assert "The checkpoint of step 2 is damaged" in (output / "keras_sagan.log").read_text()
    record = json.loads((output / "run.json").read_text())
    assert record["steps"] == 3 and record["finished"] == {"epochs": 3, "step": 3}
    history = json.loads((output / "history.json").read_text())["history"]
    assert [epoch for epoch, _ in history["g_loss"]] == [1, 2, 3]
    assert all(path.read_text() == "a user's" for path in own)


class Brightness:
    """A distance that is the mean of the generated images."""

    def __init__(self, extractor):
        self.feature_extractor, self.num_images = extractor, {"real": 0}

    def update_state(self, images, real=False):
        self.mean = float(np.mean(images))
        self.num_images["real"] += len(images) if real else 0

    def result(self):
        return self.mean

    def reset_state(self, reset_real=False):
        pass


def one(images):
    return images


def other(images):
    return images


@pytest.fixture
def fit(tmp_path, monkeypatch):
    draw_nothing(monkeypatch)
    images = ((tiny.images(4) + 1.0) * 127.0).astype("uint8")

    def fit(extractor, epochs, others=()):
        model = tiny.build_small_sagan()
        model.compile(run_eagerly=True)
        evaluator = FIDEvaluator(Brightness(extractor), images, 4)
        checkpoint = TrainingCheckpoint(tmp_path / "checkpoints", monitor="fid_4")
        dataset = make_dataset(images, tiny.labels(4), batch_size=4)
        more = {"evaluator": evaluator, "checkpoint": checkpoint, "others": others}
        runs.fit(model, dataset, tmp_path, epochs, 1, **more)
        return json.loads((tmp_path / "run.json").read_text())["fid"]

    return fit


def test_an_interrupted_first_run_remembers_its_extractor(fit, capsys):
    def stop(epoch, logs):
        if epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(one, 3, [keras.callbacks.LambdaCallback(on_epoch_begin=stop)])
    second = fit(other, 3)
    assert [epoch for epoch, _ in second["by_epoch"]] == [2, 3]
    assert "Earlier fid_4 are dropped: feature_extractor changed." in capsys.readouterr().out


def test_distances_by_another_extractor_are_dropped(tmp_path, fit, capsys):
    first = fit(one, 1)
    assert fit(one, 1) == first and first["protocol"]["reference_sha256"]
    assert fit(other, 1) == first  # Nothing is measured.
    second = fit(other, 2)
    assert [epoch for epoch, _ in second["by_epoch"]] == [2]
    assert "Earlier fid_4 are dropped: feature_extractor changed." in capsys.readouterr().out
    history = json.loads((tmp_path / "history.json").read_text())["history"]
    assert [epoch for epoch, _ in history["fid_4"]] == [2]


def test_the_best_is_kept_until_a_first_distance_by_another_extractor(tmp_path, fit):
    best = CheckpointFiles(f"{tmp_path}/checkpoints/best", keep=1)

    def stop(epoch, logs):
        if epoch == 3:
            raise KeyboardInterrupt

    def refuse(logs):
        raise ValueError("refused")

    fit(one, 1)
    protocol = {**best.manifest(1)["protocol"], "reference_split": "unknown to the evaluator"}
    best.update(1, {"value": -1.0, "protocol": protocol})  # Every other distance is worse.
    before = best.manifest(1)
    with pytest.raises(ValueError, match="refused"):
        fit(other, 2, [keras.callbacks.LambdaCallback(on_train_begin=refuse)])
    fit(one, 2)
    assert best.steps() == [1] and best.manifest(1) == before
    with pytest.raises(KeyboardInterrupt):
        fit(other, 4, [keras.callbacks.LambdaCallback(on_epoch_begin=stop)])
    assert best.steps() == [3]
    best.update(3, {"value": -1.0})
    fit(other, 4)
    assert best.steps() == [3]


def test_an_older_record_has_the_defaults_of_newer_options(tmp_path):
    wanted = {name: options.TRAIN[name].default for name in runs.FIXED}
    wanted |= dict.fromkeys(("channels", "num_classes", "class_names"))
    known = {"class_names": None, "settings": {"preset": None}}
    runs.check_same_run(tmp_path, known, wanted, 0)
    with pytest.raises(ValueError, match="a run of augmentation=None, and augmentation='cutout'"):
        runs.check_same_run(tmp_path, known, wanted | {"augmentation": "cutout"}, 0)


@pytest.mark.slow
def test_a_strategy_and_remote_checkpoints(tmp_path, train, request, monkeypatch):
    pytest.importorskip("fsspec")
    request.addfinalizer(lambda: keras.distribution.set_distribution(None))  # JAX's strategy.
    options = ["--strategy", "none", "--checkpoints", f"memory://{tmp_path.name}"]
    assert train(1, *options)[0] == train(2, *options)[0] == 0
    assert not (tmp_path / "run" / "checkpoints").exists()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["steps"] == 2 and record["settings"]["strategy"] == "none"
    history = json.loads((tmp_path / "run" / "history.json").read_text())["history"]
    assert [epoch for epoch, _ in history["g_loss"]] == [1, 2]
    assert refused(train(3), f"a run of checkpoints='memory://{tmp_path.name}', and checkpoints=No")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert refused(train(3, *options, "--tensorboard"), "--tensorboard needs tensorboard")
