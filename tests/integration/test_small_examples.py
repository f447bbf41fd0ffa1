"""The examples with networks of one's own, in miniature."""

import re

import pytest
from example_scripts import load_example

pytest.importorskip("PIL.Image")


@pytest.fixture
def run(capsys):
    """Runs a script, and returns what it prints."""

    def run(name, *arguments):
        load_example(name).main([*map(str, arguments)])
        return capsys.readouterr().out

    return run


def test_a_dcgan_with_and_without(run, tmp_path):
    small = ["--steps", 4, "--batch_size", 8, "--fid_images", 150, "--workdir", tmp_path]
    output = run("add_attention_to_dcgan", *small)
    scores = re.findall(r"FID of 150 images, (.*): ([\d.]+)", output)
    assert [name for name, _ in scores] == ["plain DCGAN", "with SNConv2D and SelfAttention2D"]
    assert all(float(score) > 0 for _, score in scores)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attention.png", "plain.png"]


def test_custom_networks(run, tmp_path):
    small = ["--epochs", 1, "--steps_per_epoch", 2, "--fid_images", 150, "--workdir", tmp_path]
    output = run("custom_networks", *small)
    assert len(re.findall(r"fid_150 after \d epochs: [\d.]+", output)) == 2
    assert (tmp_path / "samples_epoch_001.png").exists() and "loads to the same images" in output
