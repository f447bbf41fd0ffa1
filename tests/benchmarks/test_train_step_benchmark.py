"""The training step against its textbook form: results, operations, and the record."""

import argparse
import json

import common
import pytest
import train_step


def settings(**changes):
    defaults = {"image_size": 64, "base_filters": 32, "batch_size": 16, "num_classes": 10}
    return argparse.Namespace(**{**defaults, **changes})


@pytest.mark.slow
def test_the_textbook_step_agrees():
    small = settings(image_size=32, base_filters=4, batch_size=4)
    assert train_step.largest_error(small, train_step.batch_of(small)) < train_step.TOLERANCE


@pytest.mark.slow
def test_at_most_0_65_of_the_textbooks_operations():
    counts = {form: train_step.flops_of(settings(), form) for form in train_step.FORMS}
    assert max(counts[form] for form in counts if form != "textbook") <= 0.65 * counts["textbook"]
    record = json.loads((common.RESULTS / "train_step.json").read_text())
    for row in record["rows"]:
        if row["form"] in counts:
            assert abs(row["gflop"] * 1e9 / counts[row["form"]] - 1) < 0.01


def test_the_record_keeps_what_the_page_says():
    record = json.loads((common.RESULTS / "train_step.json").read_text())
    assert record["error"] < train_step.TOLERANCE
    page = (common.ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for row in record["rows"]:
        numbers = [row["seconds"], row["times_the_textbook"], row["times_the_peer"]]
        name = row["form"].split(",")[0]
        assert f"| {' | '.join(f'{x:.2f}' for x in numbers)} |" in page, name
    figures = {row["form"]: row for row in record["rows"]}
    assert figures["SAGAN"]["times_the_peer"] >= 2.0
    for row in record["rows"][:3]:
        assert f"{row['peak_mb']:,.0f} MB" in page
