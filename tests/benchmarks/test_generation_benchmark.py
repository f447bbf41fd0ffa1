"""The benchmark of `generate` in miniature, and its record."""

import json

import common
import generation
import pytest


@pytest.mark.slow
def test_the_textbook_generator_agrees_and_the_record_keeps_what_is_promised(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "peak_in_new_process", lambda *_, **form: 1.0)
    monkeypatch.setattr(generation, "SIZE", 16)
    monkeypatch.setattr(generation, "ATTENTION", 8)
    path = tmp_path / "generation.json"
    arguments = "--base_filters 8 --count 3 --batch_size 2 --rounds 1 --json".split()
    generation.main([*arguments, str(path)])  # Raises where the two disagree.
    small = json.loads(path.read_text())
    record = json.loads((common.RESULTS / "generation.json").read_text())
    assert small.keys() == record.keys()
    assert record["largest_difference_in_grey_levels"] <= 1
    assert small["rows"][0].keys() == record["rows"][0].keys()
    assert [row["form"] for row in small["rows"]] == [row["form"] for row in record["rows"][:2]]
    page = (common.ROOT / "benchmarks" / "logs" / "performance.md").read_text(encoding="utf-8")
    for row in record["rows"]:
        ratios = (row["times_the_textbook"], row["times_the_peer"])
        numbers = [f"{row['images_per_second']:.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
        assert f" | {' | '.join(numbers)} |" in page
    assert generation.peak("generate", 8, 64, 64) > 64 * 16 * 16 * 8 * 4  # A map of the last block.
    assert record["rows"][1]["times_the_peer"] >= 2.0
    assert record["rows"][1]["times_the_textbook"] > 1.0
