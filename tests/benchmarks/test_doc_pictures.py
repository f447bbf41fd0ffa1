"""The pictures of the documentation in miniature, and the page that reads the recorded curves."""

import json

import common
import doc_pictures
import pytest
import tiny_networks as tiny
from short_runs import load_few, train_briefly

pytest.importorskip("matplotlib")
RECORD = json.loads((common.RESULTS / "collapse_monitor.json").read_text(encoding="utf-8"))
PAGE = (common.ROOT / "docs" / "guides" / "training_stability.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_pictures_in_miniature(tmp_path, monkeypatch):
    load_few(monkeypatch, 200)
    train_briefly(monkeypatch)
    tiny.build_sagan_of_pictures().save(tmp_path / "model.keras")
    pictures = tmp_path / "pictures"
    places = ["--output", str(pictures), "--record", str(tmp_path / "record.json")]
    places += ["--model", str(tmp_path / "model.keras")]
    small = "--base_filters 4 --batch_size 2 --epochs 1 --steps_per_epoch 1".split()
    doc_pictures.main([*places, *small])
    # What the pages show is what this makes, and nothing else of it.
    pictures = {path.name for path in pictures.iterdir()}
    committed = {path.name for path in (common.ROOT / "docs" / "images").iterdir()}
    assert committed - pictures == {  # those of examples/fashion_mnist.py and of other benchmarks
        "attention.png",
        "attention_cost.png",
        "attention_study.png",
        "curves.png",
        "emoji.png",
        "emoji_attention.png",
        "few_images.png",
        "few_images_neighbours.png",
        "samples.png",
        "train_step_cost.png",
    }
    assert pictures <= committed
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert record.keys() >= RECORD.keys()
    for name, run in record["runs"].items():
        assert run.keys() == RECORD["runs"][name].keys()
        assert run["figures"].keys() == RECORD["runs"][name]["figures"].keys()


@pytest.mark.slow
def test_the_collapsing_run_has_no_spectral_norm_in_its_discriminator_and_equal_rates():
    for collapses, name in ((True, "collapsed"), (False, "healthy")):
        model = doc_pictures.build(collapses, 4)
        rates = {model.ttur[f"{side}_learning_rate"] for side in "gd"}
        assert rates == {RECORD["learning_rates"][name]}
        normalised = {name.partition("/")[0] for name in model.spectral_norms()}
        assert normalised == ({"generator"} if collapses else {"generator", "discriminator"})


def test_the_monitor_fired_on_the_collapse_and_was_silent_on_the_healthy_run():
    healthy, collapsed = RECORD["runs"]["healthy"], RECORD["runs"]["collapsed"]
    assert healthy["warning"] is None and "`CollapseMonitor` reported nothing." in PAGE
    quoted = " ".join(line.removeprefix(">").strip() for line in PAGE.splitlines())
    assert collapsed["warning"] in quoted
    assert set(collapsed["figures"]["d_loss"][2:]) == {2.0}  # Dead within two epochs.


def test_the_page_has_the_recorded_figures():
    settings, figures = RECORD["settings"], RECORD["runs"]["healthy"]["figures"]
    words = " ".join(PAGE.split())
    size = f"{settings['epochs']} epochs of {settings['steps_per_epoch']} steps with"
    rates = "both learning rates at 2e-3, for"
    assert f"`base_filters={settings['base_filters']}` and {rates} {size}" in words
    losses, layers = figures["d_loss"], ("generator/attention_16", "discriminator/attention_16")
    rows = {  # names of the figures, and digits after the first epoch and after the last
        "mean logits, real and generated": (["real_logits", "fake_logits"], 2, 2),
        "inside the hinge margin, real and generated": (["real_in_margin", "fake_in_margin"], 2, 2),
        "γ, generator and discriminator": ([f"gamma/{x}" for x in layers], 4, 3),
        "attention entropy, generator and discriminator": (
            [f"attention_entropy/{x}" for x in layers],
            *(2, 2),
        ),
        "largest σ, generator and discriminator": (
            ["sigma/generator", "sigma/discriminator"],
            2,
            2,
        ),
        "sample diversity": (["sample_diversity"], 3, 3),
    }
    last = f"{losses[-1]:.2f} (lowest {min(losses):.2f})"
    assert f"| loss of the discriminator | {losses[0]:.2f} | {last} |" in PAGE
    for row, (names, *digits) in rows.items():
        ends = (
            ", ".join(f"{figures[name][index]:.{count}f}" for name in names)
            for index, count in zip((0, -1), digits)
        )
        assert f"| {row} | {' | '.join(ends)} |" in PAGE
    collapsed = RECORD["runs"]["collapsed"]["figures"]
    ends = [collapsed[f"gamma/{layer}"][-1] for layer in layers]
    assert f"γ ended at {ends[0]:.3f} in the generator and {ends[1]:.3f} in the" in words
