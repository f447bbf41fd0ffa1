"""The pages of the documentation show a part of the logs, and nothing else."""

import common
import pytest


@pytest.mark.parametrize("name", ["performance", "precision"])
def test_the_tables_of_a_page_are_in_its_log(name):
    page = (common.ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    log = (common.ROOT / "benchmarks" / "logs" / f"{name}.md").read_text(encoding="utf-8")
    assert len(page.split()) <= 900
    if name == "precision":  # Its second table is checked in `test_precision.py`.
        page = page.split("## ")[0]
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) > 15 and set(rows) <= set(log.splitlines())
