"""The mixed policies in miniature, and what is recorded of 200 steps."""

import json

import common
import mixed_precision
import pytest
from short_runs import train_briefly


@pytest.mark.slow
def test_the_benchmark_runs_and_the_record_keeps_what_is_promised(tmp_path, monkeypatch):
    monkeypatch.setattr(mixed_precision, "POLICIES", ("mixed_float16",))
    train_briefly(monkeypatch)
    path = tmp_path / "mixed_precision.json"
    small = "--steps 2 --seeds 0 --batch_size 2 --fid_images 20 --json".split()
    mixed_precision.main([*small, str(path)])  # The exit code is of more steps than these.
    small = json.loads(path.read_text())
    record = json.loads((common.RESULTS / "mixed_precision.json").read_text())
    assert small.keys() == record.keys()
    assert [row["policy"] for row in small["runs"]] == list(mixed_precision.POLICIES)
    for row in (*small["runs"], *record["runs"]):
        assert row["finite"]
        # Each optimiser has a scale of its own under float16, and none elsewhere.
        assert set(row["loss_scales"]) == (
            {"g", "d"} if row["policy"] == "mixed_float16" else set()
        )
    assert all(row["steps"] == 2 for row in small["runs"])
    assert all(row["steps"] == 200 for row in record["runs"])
    page = (common.ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    for row in record["policies"]:
        assert abs(row["fid_change"]) <= mixed_precision.LIMIT
        assert mixed_precision.line(row) in page
