"""The benchmark of `generate` in miniature, and its record."""

import json

import common
import generation


def test_the_textbook_generator_agrees_and_the_record_keeps_what_is_promised(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "peak_in_new_process", lambda *_, **form: 1.0)
    path = tmp_path / "generation.json"
    arguments = "--base_filters 8 --count 3 --batch_size 2 --rounds 1 --json".split()
    generation.main([*arguments, str(path)])  # Raises where the two disagree.
    small = json.loads(path.read_text())
    record, wide = (
        json.loads((common.RESULTS / f"generation{kind}.json").read_text())
        for kind in ("", "_avx512")
    )
    assert small.keys() == wide.keys() == record.keys()
    assert record["largest_difference_in_grey_levels"] <= 1
    assert small["rows"][0].keys() == wide["rows"][0].keys()
    page = (common.ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for row in wide["rows"]:
        assert f" {row['images_per_second']:.0f} " in page
    assert f"({wide['rows'][1]['times_the_peer']:.2f} times as many as it)" in page
    assert generation.peak("generate", 8, 8, 8) > 8 * 32 * 32 * 8 * 4  # A map of the last block.
    rows = {row["form"]: row for row in record["rows"]}
    assert rows["generate"]["times_the_peer"] >= 2.0
    assert rows["generate"]["times_the_textbook"] > 1.0
