"""The parts of a start, and their record. `test_train_step_benchmark.py` compares the forms."""

import json

import common
import pytest
import startup


@pytest.mark.slow
def test_every_part_of_a_start_is_seen_and_the_record_keeps_what_is_promised():
    arguments = "--base-filters 4 --batch-size 4 --fid-images 0".split()
    found = {form: startup.run_example(form, arguments) for form in startup.FORMS}
    record = json.loads((common.RESULTS / "startup.json").read_text())
    for form, run in found.items():
        assert run["seconds"].keys() == record["first_step_seconds"][form].keys()
        assert all(seconds > 0 for seconds in run["seconds"].values())
        assert run["peak_mb"] > 100.0
    assert record["import_seconds"]["keras_sagan"] <= 0.3
    startup.check_losses(*found.values())
    product = found["SAGAN"]
    with pytest.raises(ValueError, match="losses must agree"):
        startup.check_losses(product, {"losses": [1.1 * x for x in product["losses"]]})
