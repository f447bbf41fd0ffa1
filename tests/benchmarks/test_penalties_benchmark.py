"""The record of the cost of R1 keeps its goals, and the page shows it."""

import json

import common
import penalties
import pytest

PAGE = common.ROOT / "docs" / "guides" / "training_step.md"


def test_the_record_keeps_the_goals_and_the_page_shows_it():
    record, page = json.loads((common.RESULTS / "penalties.json").read_text()), PAGE.read_text()
    rows = record["rows"]
    assert [(row["backend"], row["penalty"]) for row in rows] == [
        (backend, form) for backend in penalties.BACKENDS for form in penalties.FORMS
    ]
    assert record["settings"] == penalties.SETTINGS
    for row in rows:
        assert row["goal"] == penalties.GOALS.get(row["penalty"])
        if row["goal"]:
            assert row["times_without"] <= row["goal"]
    for backend, title in zip(penalties.BACKENDS, ("TensorFlow", "JAX", "PyTorch")):
        times = [f"{r['times_without']:.2f}" for r in rows if r["backend"] == backend][1:]
        assert f"| {title} | {times[0]} | {times[1]} |" in page


@pytest.mark.slow
def test_a_small_measurement():
    tiny = {"image_size": 16, "base_filters": 4, "attention_resolutions": [8], "d_steps": 1}
    rows = penalties.measure("sagan_fashion_mnist_32", tiny, 4, ["tensorflow"], rounds=1)
    assert [row["times_without"] > 0 for row in rows] == [True] * 3
