"""The headline script in miniature: what it leaves, that it goes on, and what it refuses."""

import contextlib
import functools
import importlib.util
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
from example_scripts import load_example
from inception_stand_in import save_stand_in
from replicas import two_replicas

tf = pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")

from keras_sagan import SAGAN
from keras_sagan.distribution import check_tf_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example():
    return load_example("imagenet_tpu")


def run_smoke(example, workdir, **changes):
    """Runs the script with its settings for `--smoke`, but for some, in one start, not two."""
    settings = example.parse_arguments(["--smoke", "--workdir", str(workdir)])
    vars(settings).update({"steps": 4, **changes})
    with tfds.testing.mock_data(num_examples=64):
        example.run(settings)


@contextlib.contextmanager
def eager():
    """Few steps are made here, and tracing takes longer than they."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def smoke(example, tmp_path_factory):
    """The folder of `--smoke`, which starts twice, and its output."""
    workdir = tmp_path_factory.mktemp("smoke") / "run"
    with eager(), contextlib.redirect_stdout(io.StringIO()) as output:
        example.main(["--smoke", "--workdir", str(workdir)])
    return workdir, output.getvalue()


def newest_state(workdir):
    """All variables of the newest checkpoint."""
    newest = max((workdir / "checkpoints").glob("step-*"), key=lambda x: int(x.name[5:]))
    with np.load(newest / "state.npz") as state:
        return dict(state)


@pytest.mark.slow
def test_smoke_trains_resumes_and_leaves_its_results(smoke):
    from PIL import Image

    workdir, output = smoke
    assert "steps 0 to 2, 8 images each over 1 replicas, float32" in output
    assert "Restored step 2" in output and "steps 2 to 4" in output
    checkpoints = sorted(path.name for path in (workdir / "checkpoints").glob("step-*"))
    assert checkpoints == ["step-2", "step-4"]
    assert len(list((workdir / "checkpoints" / "best").glob("step-*"))) == 1
    for epoch in (0, 1, 2):
        with Image.open(workdir / f"samples_epoch_{epoch:03d}.png") as picture:
            assert min(picture.size) > 200
    fid = json.loads((workdir / "fid.json").read_text())
    assert fid["protocol"]["feature_extractor"].startswith("mean_colours_no_fid")
    assert list(fid["by_step"]) == ["2", "4"]
    assert all(np.isfinite(x["stand_in_distance"]) for x in fid["by_step"].values())
    if importlib.util.find_spec("tensorboard"):
        assert list((workdir / "tensorboard").rglob("events.out.tfevents.*"))
    else:
        assert "pip install tensorboard" in output


@pytest.mark.slow
def test_resumed_equals_uninterrupted(example, smoke, tmp_path):
    with eager():
        run_smoke(example, tmp_path)
    resumed, straight = newest_state(smoke[0]), newest_state(tmp_path)
    assert list(resumed) == list(straight)
    for name, value in straight.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


ON_JAX = """
import sys
from example_scripts import load_example
example = load_example("imagenet_tpu")
small = {"dataset": "cifar10", "preset": "sagan_cifar10_32", "image_size": None}
example.SMOKE.update(small, base_filters=4, fid_every=2)
example.main(["--smoke", "--workdir", sys.argv[1]])
"""


@pytest.mark.slow
def test_smoke_on_two_devices_of_jax(tmp_path):
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, str(tmp_path)],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),  # For the second start.
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "steps 0 to 2, 8 images each over 2 replicas, float32" in done.stdout
    assert (tmp_path / "samples_epoch_001.png").is_file()
    fid = json.loads((tmp_path / "fid.json").read_text())
    assert np.isfinite(fid["by_step"]["2"]["stand_in_distance"])


@pytest.mark.slow
def test_two_replicas_and_another_data_set(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example, "make_strategy", lambda name, tpu: two_replicas())
    changes = {"steps": 2, "on_error": "skip"}
    changes.update(dataset="cifar10", preset="sagan_cifar10_32", image_size=None, base_filters=4)
    monkeypatch.setattr(SAGAN, "compile", functools.partialmethod(SAGAN.compile, run_eagerly=True))
    save_stand_in(tmp_path / "inception")  # of the signature of TF-GAN's
    changes.update(fid="required", fid_every=2, inception=str(tmp_path / "inception"))
    run_smoke(example, tmp_path, **changes)
    assert "steps 0 to 2, 8 images each over 2 replicas" in capsys.readouterr().out
    assert (tmp_path / "samples_epoch_001.png").is_file()
    assert (tmp_path / "checkpoints" / "step-2").is_dir()
    fid = json.loads((tmp_path / "fid.json").read_text())
    assert np.isfinite(fid["by_step"]["2"]["fid_16"])
    assert str(tmp_path / "inception") in fid["protocol"]["feature_extractor"]


def test_help_says_where_the_commands_for_two_hosts_are(example, capsys):
    with pytest.raises(SystemExit):
        example.parse_arguments(["--help"])
    assert "docs/guides/scaling.md" in capsys.readouterr().out
    page = (ROOT / "docs" / "guides" / "scaling.md").read_text(encoding="utf-8")
    (config, command) = re.search(
        r"^export TF_CONFIG='(.*)'\npython examples/imagenet_tpu.py (.*)$", page, re.MULTILINE
    ).groups()
    assert check_tf_config(config) == 2
    settings = example.parse_arguments(shlex.split(command))
    assert settings.strategy == "multi_worker" and settings.workdir.startswith("/shared/")


def test_the_defaults_are_the_headline(example):
    settings = example.parse_arguments([])
    assert settings.dataset == "imagenet2012" and settings.batch_size == 256
    assert (settings.preset, settings.recipe) == ("sagan_imagenet_128", "official")
    assert settings.fid_images == 50_000 and settings.strategy == "auto"


@pytest.mark.parametrize("name", ["grid_every", "fid_every", "steps"])
def test_steps_that_are_no_epochs_are_refused(example, capsys, name):
    with pytest.raises(SystemExit):
        example.parse_arguments([f"--{name}", "1500"])
    assert f"--{name} must be a multiple of --log_every=1000" in capsys.readouterr().err


def test_a_workdir_that_cannot_be_written(example, tmp_path):
    (tmp_path / "file").write_text("in the way")
    settings = example.parse_arguments(["--workdir", str(tmp_path / "file" / "run")])
    with pytest.raises(SystemExit, match="--workdir must be a folder .*Received: .*file/run"):
        example.run(settings)
    example.check_workdir(str(tmp_path / "new"))
    assert not any((tmp_path / "new").iterdir())


def without_network(*args):
    raise RuntimeError("`handle` can't be fetched (no network)")


def test_without_the_inception_network(example, monkeypatch, capsys):
    from keras_sagan.data import DatasetInfo

    asked = []

    def inception(*arguments):
        asked.append(arguments)
        return without_network

    monkeypatch.setattr(example.metrics, "TFGANInception", inception)
    info = DatasetInfo(640, 10, (128, 128, 3), 10, ())
    assert example.fid_callback(example.parse_arguments([]), info) is None
    said = capsys.readouterr().out
    assert said == "Training goes on without a FID: `handle` can't be fetched (no network)\n"
    assert example.fid_callback(example.parse_arguments(["--fid", "off"]), info) is None
    assert not capsys.readouterr().out
    with pytest.raises(SystemExit, match="--fid required, but: .*can't be fetched"):
        own = ["--inception", "folder", "--inception_sha256", "12ab"]
        example.fid_callback(example.parse_arguments(["--fid", "required", *own]), info)
    assert asked[-1] == ("folder", "12ab")


@pytest.mark.slow
def test_grey_images_are_measured_by_the_small_classifier(example):
    settings = ["--dataset", "fashion_mnist", "--preset", "sagan_fashion_mnist_32"]
    settings = example.parse_arguments([*settings, "--fid_images", "10"])
    with tfds.testing.mock_data(num_examples=20):
        _, info = example.load(settings, batch_size=4)
        fid = example.fid_callback(settings, info)
    assert fid.num_images == 10 and fid.every_epochs == 10 and fid.name == "fid_10"
    assert "grey_classifier" in fid.metric.protocol["feature_extractor"]
    fid.add_real_images()
    assert fid.metric.num_images["real"] == 10
