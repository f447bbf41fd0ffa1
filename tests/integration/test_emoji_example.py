"""The color job in miniature, from tiny archives: what it leaves, and what a missing file says."""

import json
from pathlib import Path

import emoji_archives
import pytest
import short_runs
from example_scripts import load_example
from tiny_evaluation import MeanColors

from keras_sagan import metrics

ROOT = Path(__file__).parents[2]
SMALL = "--epochs 1 --steps-per-epoch 1 --base-filters 4 --batch-size 2 --image-size 16".split()


@pytest.fixture
def example(tmp_path, monkeypatch):
    emoji_archives.write_archives(monkeypatch, tmp_path)
    example = load_example("emoji")
    monkeypatch.setattr(example, "EVALUATE", [*example.EVALUATE, "--batch-size", "30"])
    return example


@pytest.mark.slow
def test_it_leaves_pictures_model_and_scores(example, tmp_path, monkeypatch):
    short_runs.train_briefly(monkeypatch)
    monkeypatch.setattr(metrics, "EfficientNetLite0Features", MeanColors)
    output = tmp_path / "runs" / "emoji"
    assert example.main(["--data", tmp_path, "--output", output, "--num-images", 60, *SMALL]) == 0
    for name in ("samples", "attention"):
        assert (output / f"{name}_epoch_001.png").stat().st_size > 1000
    record = json.loads((output / "run.json").read_text())
    assert record["class_names"] == ["Animals & Nature", "Smileys & Emotion"]
    assert record["settings"]["preset"] == "sagan_emoji_64" and record["steps"] == 1
    report = json.loads((output / "report.json").read_text())
    assert {"kid", "fid"} <= report["values"].keys()
    images = tmp_path / "runs" / "emoji_images"
    assert "Noto Emoji" in (images / "LICENSES.txt").read_text()
    counts = {split: len([*images.glob(f"{split}/*/*.png")]) for split in ("train", "held_out")}
    assert sum(counts.values()) == 54 and counts["held_out"] == report["protocol"]["num_reference"]
    copies = json.loads((output / "memorization.json").read_text())
    assert "memorized" in copies["values"]
    assert copies["protocol"]["num_reference"] == counts["train"]
    assert not any("searches" in note for note in copies["notes"])


@pytest.mark.parametrize(
    "option, message",
    [
        ("--colour", "unrecognized arguments: --colour"),
        ("--grey", "--grey can't be given"),
        ("--images=photos", "--images can't be given"),
    ],
)
def test_a_wrong_option_writes_no_images(example, tmp_path, capsys, option, message):
    with pytest.raises(SystemExit):
        example.main(["--data", tmp_path, "--output", tmp_path / "run", option])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "emoji_images").exists()


def test_a_missing_archive_leaves_no_run_behind(example, tmp_path):
    (tmp_path / "fluent-emoji-3d-1.1.0.tgz").unlink()
    with pytest.raises(
        SystemExit, match=r"`folder` must hold lobehub-fluent.*npm pack @lobehub/fluent"
    ):
        example.main(["--data", tmp_path, "--output", tmp_path / "run"])
    assert not (tmp_path / "run").exists()


def test_the_record_of_the_run_is_what_the_guide_says():
    record = json.loads((ROOT / "benchmarks" / "results" / "emoji.json").read_text())
    assert record["settings"]["preset"] == "sagan_emoji_64"
    values, best = record["report"]["values"], record["report"]["baselines"]["real"]
    copies = record["memorization"]
    found, floor = copies["values"], copies["baselines"]["real"]
    shares = [100 * x["memorized"] for x in (found, floor)]
    guide = (ROOT / "docs" / "guides" / "emoji.md").read_text(encoding="utf-8")
    assert f"compares {copies['protocol']['num_generated']:,} generated images with all" in guide
    for row in (
        f"steps | {record['steps']:,} of {record['settings']['batch_size']} images",
        f"time | {record['seconds'] / 60:.0f} minutes",
        f"KID | {values['kid']:.4f}, and {best['kid']:.4f} for training images |",
        f"FID | {values['fid']:.1f}, and {best['fid']:.1f} for training images |",
        f"memorized | {shares[0]:.1f} %, and {shares[1]:.1f} % for held-out images |",
        f"ct_score | {found['ct_score']:.1f}, and {floor['ct_score']:.1f} for held-out images |",
    ):
        assert f"| {row}" in guide, row
