"""The record of a training step on each backend."""

import json

import backends
import common
import pytest


def test_the_record_keeps_the_goals():
    record = json.loads((common.RESULTS / "backends.json").read_text())
    assert record["settings"].keys() == record["results"].keys() == backends.SETTINGS.keys()
    for rows in record["results"].values():
        assert tuple(row["backend"] for row in rows) == backends.BACKENDS
        for row in rows:
            assert row["fit_seconds"] > 0 and row["goal"] == backends.GOALS.get(row["backend"])
            if row["goal"]:
                assert row["fit_over_plain"] <= row["goal"] and row["error"] <= backends.TOLERANCE


@pytest.mark.slow
def test_a_plain_step_has_the_losses_of_fit(monkeypatch):
    """JAX's is also tested with benchmarks/gpu.py."""
    pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny = {"image_size": 8, "base_filters": 4, "attention_resolutions": [4]}
    (row,) = backends.measure("sagan_fashion_mnist_32", tiny, 4, ["torch"], rounds=1, warmup=1)
    assert row["error"] <= backends.TOLERANCE and row["plain_seconds"] > 0
