"""Runs the examples in the docstrings of every module, and the README's Python blocks."""

import contextlib
import doctest
import functools
import importlib.util
import pkgutil
import re
import shutil
import textwrap
from pathlib import Path

import emoji_archives
import keras
import numpy as np
import pytest
import tiny_networks as tiny
from short_runs import build_little, load_few, train_briefly

import keras_sagan

README = Path(__file__).parents[1] / "README.md"
MODULES = [
    module.name
    for module in pkgutil.walk_packages(keras_sagan.__path__, prefix="keras_sagan.")
    # Of other backends: they have no examples, and import what may not be installed.
    if module.name not in ("keras_sagan.training.jax", "keras_sagan.training.torch")
]
BLOCKS = []
if README.exists():
    BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def examples(module):
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(module) if test.examples]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report = []
    for test in examples(module):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_there_are_examples():
    documented = {name.rpartition(".")[2] for name in MODULES if examples(_module(name))}
    wanted = {"sagan", "generator", "discriminator", "presets", "self_attention", "sn_conv2d"}
    assert wanted | {"sn_dense", "sn_embedding", "conditional_batch_norm"} <= documented


def _module(name):
    return importlib.import_module(name)


def fenced(name):
    """The Python blocks of a module's docstrings, which show what is too long for a doctest."""
    text = Path(_module(name).__file__).read_text(encoding="utf-8")
    return [textwrap.dedent(x) for x in re.findall(r"^ +```python\n(.*?)^ +```", text, re.S | re.M)]


# Numbers that would take too long, and the ones that are taken here.
SMALL = {
    r"\bepochs=\d+": "epochs=1",
    r"(?<=steps_per_epoch=)[\w.]+": "1",
    r"(?<=batch_size=)\d+": "4",
    r"\b1000\b|\b10_000\b": "40",
    r"train\(output": "train(steps_per_epoch=1, batch_size=2, base_filters=4, image_size=8, "
    "fid_images=0, output",
}


def small_sagan(channels):
    model = tiny.build_sagan_of_pictures(channels)
    model.compile(run_eagerly=True)
    return model


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """What the blocks take for granted: imports, a model, data, and files in the folder at hand."""
    tf = pytest.importorskip("tensorflow")
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("docstrings")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 32, 32, 1), "uint8")
    labels = np.arange(64) % 10
    model = small_sagan(1)
    (folder / "runs" / "first").mkdir(parents=True)
    model.save(folder / "runs" / "first" / "model.keras")
    for name in ("photos/a", "photos/b", "samples"):
        (folder / name).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(0, 256, (20, 20, 3), "uint8")
            image.fromarray(pixels).save(folder / name / f"{number}.png")
    np.savez(folder / "cifar10.npz", mu=np.zeros(3), sigma=np.eye(3))
    names = {"keras": keras, "keras_sagan": keras_sagan}
    for module in ("callbacks", "data", "metrics", "models", "visualization"):
        exec(f"from keras_sagan.{module} import *", names)
    metric = keras_sagan.FrechetInceptionDistance(keras_sagan.metrics.GreyClassifierFeatures())
    names |= {"images": images, "labels": labels, "test_images": images, "test_labels": labels}
    names |= {"train_images": images, "latents": np.ones((64, 4), "float32"), "metric": metric}
    names |= {"latents_of": lambda count: np.ones((count, 4), "float32")}
    names |= {"labels_of": lambda count: np.arange(count) % 10}
    names |= {"real": rng.normal(size=(9, 2)), "generated": rng.normal(size=(9, 2))}
    dataset = tf.data.Dataset.from_tensor_slices((images[:4], labels[:4])).batch(4)
    return folder, {**names, "dataset": dataset, "model": model}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODULES if fenced(name)])
def test_python_blocks(name, surroundings, tmp_path, monkeypatch):
    """Each by itself, with small numbers, on a small model."""
    folder, names = surroundings
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    train_briefly(monkeypatch)
    around = contextlib.nullcontext()
    if name == "keras_sagan.data.tfds":
        tfds = pytest.importorskip("tensorflow_datasets")
        names = {**names, "model": small_sagan(3)}
        around = tfds.testing.mock_data(num_examples=4)
    if name == "keras_sagan.data.emoji":
        emoji_archives.write_archives(monkeypatch, tmp_path)
        few = functools.partial(keras_sagan.data.load_emoji, tmp_path)
        names = {**names, "load_emoji": few}
    if name == "keras_sagan.metrics.extractors.tfgan" and not importlib.util.find_spec(
        "tensorflow_gan"
    ):
        pytest.skip("TF-GAN isn't installed.")
    if name == "keras_sagan.metrics.folder_images":  # Inception's weights aren't there.
        means = functools.partial(keras.ops.mean, axis=(1, 2))
        names = {**names, "TFGANInception": lambda: means}
    for block in fenced(name):
        for pattern, number in SMALL.items():
            block = re.sub(pattern, number, block)
        with around:
            exec(compile(block, f"Python block of {name}", "exec"), dict(names))


@pytest.mark.slow
@pytest.mark.skipif(not BLOCKS, reason="The README has no Python blocks.")
def test_readme(tmp_path, monkeypatch):
    """One after the other, as a reader would run them: names carry over."""
    monkeypatch.chdir(tmp_path)
    train_briefly(monkeypatch)
    build_little(monkeypatch)
    load_few(monkeypatch)
    fit, one = keras_sagan.SAGAN.fit, {"steps_per_epoch": 1}
    monkeypatch.setattr(
        keras_sagan.SAGAN, "fit", lambda self, *x, **given: fit(self, *x, **{**given, **one})
    )
    names = {}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"Python block {number} of README.md", "exec"), names)
