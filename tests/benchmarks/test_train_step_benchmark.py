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


SMALL = settings(image_size=16, base_filters=4, batch_size=4)


@pytest.mark.slow
def test_the_textbook_step_agrees():
    assert train_step.largest_error(SMALL, train_step.batch_of(SMALL)) < train_step.TOLERANCE


@pytest.mark.slow
def test_at_most_0_65_of_the_textbooks_operations():
    """In the record. Narrow layers on small maps, which are counted here, save less."""
    record = json.loads((common.RESULTS / "train_step.json").read_text())
    counts = {row["form"]: row["gflop"] for row in record["rows"] if row["form"] in FORMS}
    assert max(counts[form] for form in FORMS if form != "textbook") <= 0.65 * counts["textbook"]
    found, textbook = (train_step.flops_of(SMALL, form) for form in ("SAGAN", "textbook"))
    assert 0.5 * textbook < found <= 0.75 * textbook


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
