"""The examples with networks of one's own, in miniature."""

import inspect
import json
import re
from pathlib import Path

import pytest
from example_scripts import load_example
from short_runs import train_briefly

from keras_sagan import data

pytest.importorskip("PIL.Image")
tf = pytest.importorskip("tensorflow")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(capsys):
    """Runs a script, and returns what it prints."""

    def run(name, *arguments):
        load_example(name).main([*map(str, arguments)])
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_a_dcgan_with_and_without(run, tmp_path, monkeypatch, request):
    few = [array[:200] for array in data.load_fashion_mnist()]
    tf.config.run_functions_eagerly(True)
    request.addfinalizer(lambda: tf.config.run_functions_eagerly(False))
    monkeypatch.setattr(load_example("add_attention_to_dcgan"), "load_fashion_mnist", lambda: few)
    small = ["--steps", 2, "--batch_size", 2, "--fid_images", 20, "--workdir", tmp_path]
    output = run("add_attention_to_dcgan", *small)
    scores = dict(re.findall(r"FID of 20 images, (.*): ([\d.]+)", output))
    results = json.loads((tmp_path / "results.json").read_text())
    assert {name: f"{fid:.1f}" for name, fid in results["fid"].items()} == scores
    assert list(scores) == ["plain", "changed"] and min(results["fid"].values()) > 0
    assert results["protocol"]["num_generated"] == 20 and results["settings"]["steps"] == 2
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["changed.png", "plain.png", "results.json"]


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_the_dcgan_is_changed_in_one_line_and_one_word(network):
    module = load_example("add_attention_to_dcgan")

    def lines(function):
        source = inspect.getsource(function).splitlines()[1:]
        return [line.partition("#")[0].strip() for line in source]

    plain = lines(getattr(module, f"build_{network}"))
    changed = lines(getattr(module, f"build_changed_{network}"))
    assert changed.count("SelfAttention2D(),") == 1
    changed.remove("SelfAttention2D(),")
    if network == "discriminator":
        assert sum("layers.Conv2D(" in line for line in plain) == 2
        plain = [line.replace("layers.Conv2D(", "SNConv2D(") for line in plain]
    assert changed == plain


def test_the_page_has_the_recorded_distances_of_the_dcgan():
    path = ROOT / "benchmarks" / "results" / "add_attention_to_dcgan.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"] == "python examples/add_attention_to_dcgan.py"
    text = (ROOT / "docs" / "guides" / "add_attention.md").read_text(encoding="utf-8")
    for name, word in (("plain", "plain"), ("changed", "with the layers")):
        assert f"| {word} | {record['fid'][name]:.1f} |" in text
    settings, versions = record["settings"], record["versions"]
    for words in (
        f"{settings['steps']} steps of {settings['batch_size']} images",
        f"TensorFlow {versions['tensorflow']}, Keras {versions['keras']}",
        f"{settings['fid_images']:,} images",
    ):
        assert words in " ".join(text.split())


@pytest.mark.slow
def test_custom_networks(run, tmp_path, monkeypatch):
    train_briefly(monkeypatch)
    small = ["--epochs", 1, "--steps_per_epoch", 1, "--fid_images", 20, "--workdir", tmp_path]
    output = run("custom_networks", *small)
    assert len(re.findall(r"fid_20 after \d epochs: [\d.]+", output)) == 2
    assert (tmp_path / "samples_epoch_001.png").exists() and "loads to the same images" in output
