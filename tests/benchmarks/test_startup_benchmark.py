"""The parts of a start, and their record."""

import json

import common
import startup


def test_every_part_of_a_start_is_seen_and_the_record_keeps_what_is_promised():
    parts = startup.run_example(["--base_filters", "4", "--batch_size", "8"])
    record = json.loads((common.RESULTS / "startup.json").read_text())
    assert parts.keys() == record["first_step_seconds"].keys()
    assert all(seconds > 0 for seconds in parts.values())
    assert record["import_seconds"]["keras_sagan"] <= 0.3
