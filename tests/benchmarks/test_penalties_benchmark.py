"""The benchmark of the cost of R1 and the augmentation, and its record."""

import json

import common
import penalties
import pytest
from short_runs import train_briefly


@pytest.mark.slow
def test_a_small_measurement(monkeypatch):
    train_briefly(monkeypatch)
    monkeypatch.setattr(penalties, "STEPS", 1)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(
        common, "in_new_process", lambda *given: penalties.seconds_of(*json.loads(given[-1]))
    )
    tiny = {"image_size": 8, "base_filters": 4, "attention_resolutions": []}
    rows = penalties.measure("sagan_fashion_mnist_32", tiny, 4, ["tensorflow"], rounds=1)
    assert [row["times_without"] > 0 for row in rows] == [True] * 4


def test_the_guide_says_what_was_recorded():
    rows = json.loads((common.RESULTS / "penalties.json").read_text())["rows"]
    found = {(row["backend"], row["form"]): row["times_without"] for row in rows}
    guide = (common.ROOT / "docs" / "guides" / "training_step.md").read_text(encoding="utf-8")
    for name, backend in (("TensorFlow", "tensorflow"), ("JAX", "jax"), ("PyTorch", "torch")):
        ratios = [found[backend, form] for form in penalties.GOALS]
        assert all(x <= goal for x, goal in zip(ratios, penalties.GOALS.values()))
        assert f"| {name} | {' | '.join(map(str, ratios))} |" in guide
