"""A training step stays readable: few files, and few moves between them."""

import json

import common
import pytest
import walk


@pytest.mark.slow
def test_a_batch_goes_through_few_files():
    found = walk.measure(image_size=8, attention_resolutions=[4])
    record = json.loads((common.RESULTS / "walk.json").read_text())
    assert len(found["files"]) <= 14 and found["moves"] <= 520
    assert sorted(found["files"]) == sorted(record["files"])
