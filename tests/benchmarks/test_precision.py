"""The table of benchmarks/logs/precision.md keeps its limits, and is what the record says."""

import json

import precision
import pytest


@pytest.mark.slow
def test_every_stage_keeps_its_limit_on_smaller_features():
    rows = precision.measure(dim=96, count=300)
    assert {row[0] for row in rows} >= set(precision.ALLOWED) and len(rows) > 40
    for stage, kind, against, error in rows:
        allowed = precision.ALLOWED.get(stage)
        assert allowed is None or error <= allowed, (stage, kind, against, error)


def test_the_recorded_table_keeps_them_too_and_is_what_the_page_shows():
    result = json.loads(precision.RESULTS.read_text(encoding="utf-8"))
    assert result["settings"] == {"dim": 2048, "samples": 3000}
    for stage, kind, against, error in result["rows"]:
        allowed = precision.ALLOWED.get(stage)
        assert allowed is None or error <= allowed, (stage, kind, against, error)
    for package in ("TF-GAN", "scipy", "pytorch-fid", "torch-fidelity", "prdc"):
        assert any(package in row[2] for row in result["rows"]), package
    assert precision.TABLE.read_text(encoding="utf-8") == precision.page(result)
    page = (precision.common.ROOT / "docs" / "precision.md").read_text(encoding="utf-8")
    assert precision.tfgan_table(result) in page
