"""The headline script in miniature: what it leaves, that it goes on, and what it refuses."""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import short_runs
from example_scripts import load_example
from inception_stand_in import save_stand_in
from replicas import two_replicas

tf = pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("tensorboard")

from keras_sagan import run
from keras_sagan.distribution import check_tf_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example():
    return load_example("imagenet_tpu")


SIZE = "--image-size 8 --base-filters 4 --batch-size 4 --steps-per-epoch 1".split()


@contextlib.contextmanager
def eager():
    """Few steps are made here, and tracing takes longer than they."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """Options for a SavedModel of the signature of TF-GAN's Inception."""
    folder = tmp_path_factory.mktemp("inception")
    save_stand_in(folder)
    return ["--inception", str(folder)]


@pytest.fixture(scope="module")
def smoke(example, inception, tmp_path_factory):
    """The folder of `--smoke`, which starts twice, and its output."""
    output = tmp_path_factory.mktemp("smoke") / "run"
    options = ["--output", str(output), "--tensorboard", *inception, *SIZE]
    with eager(), contextlib.redirect_stdout(io.StringIO()) as said:
        assert example.main(["--smoke", *options]) == 0
    return output, said.getvalue()


def newest_state(output):
    """Names and values of all variables of the newest checkpoint."""
    newest = max((output / "checkpoints").glob("step-*"), key=lambda x: int(x.name[5:]))
    with np.load(newest / "state.npz") as state:  # Keras counts the models of a process.
        return [(re.sub(r":(sagan|adam)_\d+:", r":\1:", name), state[name]) for name in state]


def fid_of(output):
    """The FIDs of a run by epoch, and their protocol."""
    fid = json.loads((output / "run.json").read_text())["fid"]
    assert fid["name"] == "fid_16"
    return dict(fid["by_epoch"]), fid["protocol"]


@pytest.mark.slow
def test_smoke_trains_resumes_and_leaves_its_results(smoke, inception):
    from PIL import Image

    output, said = smoke
    assert "1 step per epoch, 1 epoch, into" in said and "Restored step 1" in said
    checkpoints = sorted(path.name for path in (output / "checkpoints").glob("step-*"))
    assert checkpoints == ["step-1", "step-2"]
    assert len(list((output / "checkpoints" / "best").glob("step-*"))) == 1
    for epoch in (0, 1, 2):
        with Image.open(output / f"samples_epoch_{epoch:03d}.png") as picture:
            assert min(picture.size) > 200
    values, protocol = fid_of(output)
    assert inception[1] in protocol["feature_extractor"]
    assert list(values) == [0, 1, 2] and all(map(np.isfinite, values.values()))
    assert list((output / "tensorboard").rglob("events.out.tfevents.*"))
    assert (output / "model.keras").is_file() and (output / "history.json").is_file()


@pytest.mark.slow
def test_resumed_equals_uninterrupted(example, smoke, tmp_path, monkeypatch):
    short_runs.draw_nothing(monkeypatch)
    with eager(), tfds.testing.mock_data(num_examples=64):
        options = [*example.SMOKE, *SIZE, "--epochs", "2", "--fid-images", "0"]
        assert example.main([*options, "--output", str(tmp_path)]) == 0
    resumed, straight = newest_state(smoke[0]), newest_state(tmp_path)
    assert len(resumed) == len(straight) > 100
    for (name, value), (expected_name, expected) in zip(resumed, straight):
        assert name == expected_name
        np.testing.assert_array_equal(value, expected, err_msg=name)


SMALL = "--dataset cifar10 --preset sagan_cifar10_32 --image-size 32 --batch-size 4".split()
ON_JAX = """
import sys
import pytest
import short_runs
from example_scripts import load_example
short_runs.build_little(pytest.MonkeyPatch())
sys.exit(load_example("imagenet_tpu").main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_smoke_on_two_devices_of_jax(tmp_path, inception):
    pytest.importorskip("jax")
    options = ["--smoke", *SMALL, *inception, "--output", str(tmp_path)]
    flags = os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, *options],
        env={
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),  # For the second start.
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=2",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "1 epoch, on 2 replicas" in done.stdout and "Restored step 2" in done.stdout
    assert (tmp_path / "samples_epoch_001.png").is_file()
    assert np.isfinite(fid_of(tmp_path)[0][2])


@pytest.mark.slow
def test_two_replicas_and_another_data_set(example, inception, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "make_strategy", lambda name, tpu: two_replicas())
    short_runs.train_briefly(monkeypatch)
    short_runs.build_little(monkeypatch)
    options = [*example.SMOKE, *SMALL, *inception, "--skip-damaged", "--epochs", "1"]
    with tfds.testing.mock_data(num_examples=64):
        assert example.main([*options, "--output", str(tmp_path)]) == 0
    assert "2 steps per epoch, 1 epoch, on 2 replicas" in capsys.readouterr().out
    assert (tmp_path / "samples_epoch_001.png").is_file()
    assert (tmp_path / "checkpoints" / "step-2").is_dir()
    values, protocol = fid_of(tmp_path)
    assert np.isfinite(values[1]) and inception[1] in protocol["feature_extractor"]


@pytest.fixture
def settings_of(example, monkeypatch):
    """A function from options of the example to the settings of its run, which isn't started."""
    found = {}
    monkeypatch.setattr(run, "train", lambda log, **settings: found.update(settings))

    def settings_of(*arguments):
        assert example.main(arguments) == 0
        return found

    return settings_of


def test_help_says_where_the_commands_for_two_hosts_are(example, settings_of):
    assert "docs/guides/scaling.md" in example.__doc__
    page = (ROOT / "docs" / "guides" / "scaling.md").read_text(encoding="utf-8")
    (config, command) = re.search(
        r"^export TF_CONFIG='(.*)'\npython examples/imagenet_tpu.py (.*)$", page, re.MULTILINE
    ).groups()
    assert check_tf_config(config) == 2
    settings = settings_of(*shlex.split(command))
    assert settings["strategy"] == "multi_worker" and settings["output"].startswith("/shared/")


def test_the_defaults_are_the_headline(settings_of):
    settings = settings_of()
    assert settings["dataset"] == "imagenet2012" and settings["batch_size"] == 256
    assert (settings["preset"], settings["recipe"]) == ("sagan_imagenet_128", "official")
    assert settings["epochs"] * settings["steps_per_epoch"] == 1_000_000
    assert settings["fid_images"] == 50_000 and settings["strategy"] == "auto"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--steps-per-execution", "3"], "--steps-per-execution must divide the 2 steps of an"),
        (["--output", "gs://bucket/run"], "--output must be a local folder; --checkpoints takes"),
        (["--output", "file/run"], "--output must be a folder that can be written. Received: file"),
    ],
)
def test_bad_options(example, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    assert example.main(["--smoke", *SMALL, *options]) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
