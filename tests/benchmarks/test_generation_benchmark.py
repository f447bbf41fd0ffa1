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
    record = json.loads((common.RESULTS / "generation.json").read_text())
    assert small.keys() == record.keys()
    assert record["largest_difference_in_grey_levels"] <= 1
    assert small["rows"][0].keys() == record["rows"][0].keys()
    assert generation.peak("generate", 8, 3, 2) >= 0
    rows = {row["form"]: row for row in record["rows"]}
    assert rows["generate"]["times_the_peer"] >= 2.0
    assert rows["generate"]["times_the_textbook"] > 1.0
