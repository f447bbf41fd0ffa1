"""The training step against its textbook form: results, operations, and the record."""

import argparse
import json

import common
import pytest
import train_step
from train_step import FORMS


def settings(**changes):
    defaults = {"image_size": 64, "base_filters": 32, "batch_size": 16, "num_classes": 10}
    return argparse.Namespace(**{**defaults, **changes})


@pytest.mark.slow
def test_the_textbook_step_agrees():
    small = settings(image_size=16, base_filters=4, batch_size=4)
    assert train_step.largest_error(small, train_step.batch_of(small)) < train_step.TOLERANCE


@pytest.mark.slow
def test_at_most_0_65_of_the_textbooks_operations():
    """The record counts all forms; the one that is taken by itself is counted again, at 32 px."""
    record = json.loads((common.RESULTS / "train_step.json").read_text())
    counts = {row["form"]: row["gflop"] for row in record["rows"] if row["form"] in FORMS}
    assert max(counts[form] for form in FORMS if form != "textbook") <= 0.65 * counts["textbook"]
    rows = json.loads((common.RESULTS / "train_step_sweep.json").read_text())["rows"]
    (row,) = (x for x in rows if (x["image_size"], x["form"]) == (32, "SAGAN"))
    found = train_step.flops_of(settings(image_size=32), "SAGAN") / 1e9
    assert found == pytest.approx(row["gflop"], rel=0.01)


def test_the_record_keeps_what_the_page_says():
    record = json.loads((common.RESULTS / "train_step.json").read_text())
    assert record["error"] < train_step.TOLERANCE
    page = (common.ROOT / "benchmarks" / "logs" / "performance.md").read_text(encoding="utf-8")
    for row in record["rows"]:
        numbers = [row["seconds"], row["times_the_textbook"], row["times_the_peer"]]
        name = row["form"].split(",")[0]
        assert f"| {' | '.join(f'{x:.2f}' for x in numbers)} |" in page, name
    figures = {row["form"]: row for row in record["rows"]}
    assert figures["SAGAN"]["times_the_peer"] >= 2.0
    for row in record["rows"][:3]:
        assert f"{row['peak_mb']:,.0f} MB" in page
