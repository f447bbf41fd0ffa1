"""A training step stays readable: few files, and few moves between them."""

import json

import common
import pytest
import walk

MOST_FILES = {"fit": 14, "fit_with_checkpoints": 18, "evaluate_generator": 12}


@pytest.mark.slow
def test_a_batch_goes_through_few_files():
    found = walk.measure()
    record = json.loads((common.RESULTS / "walk.json").read_text())["calls"]
    assert found.keys() == record.keys() == MOST_FILES.keys()
    for name, most in MOST_FILES.items():
        assert len(found[name]["files"]) <= most, name
        assert sorted(found[name]["files"]) == sorted(record[name]["files"])
    assert found["fit"]["moves"] <= 520
