"""The memory that blocks of queries save, and the record of it."""

import json
import sys

import attention
import common
import pytest

# The form that takes less comes first.
PEAKS = f"""
import sys
sys.path[:0] = {sys.path}
import attention
print([attention.peak(form, size=128, batch=1) for form in ("auto", "whole")])
"""


@pytest.mark.slow
def test_blocks_take_an_eighth_of_the_memory_or_less():
    chunked, whole = common.in_new_process("-c", PEAKS)
    assert whole > 6e8 and chunked <= whole / 8


def test_the_record_is_of_forms_that_agree_and_keeps_what_is_promised(monkeypatch):
    monkeypatch.setattr(common, "peak_in_new_process", lambda *_, **arguments: 1.0)
    rows = attention.measure(8, batch=1, rounds=1)
    record = json.loads((common.RESULTS / "attention.json").read_text())
    assert rows[0].keys() == record["rows"][0].keys()
    checked = [row for row in record["rows"] if row["form"] in attention.FORMS]
    assert all(row["error"] <= attention.TOLERANCE for row in [*rows[:4], *checked])
    forms = [*attention.FORMS, *attention.PATTERNS]
    assert [row["form"] for row in record["rows"]] == forms * 3 + [*attention.FORMS]
    assert [row["form"] for row in rows] == [*attention.FORMS, *attention.PATTERNS]
    figures = {(row["map"], row["form"]): row for row in record["rows"]}
    large, whole = (figures["128 x 128", form] for form in ("auto", "whole"))
    assert large["times_less_memory"] >= 8 and large["peak_mb"] <= whole["peak_mb"] / 8
    assert large["ms"] <= 1.2 * whole["ms"] and large["times_faster"] >= whole["times_faster"] / 1.2
