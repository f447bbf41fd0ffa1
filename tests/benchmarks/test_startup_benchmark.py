"""The parts of a start, in both forms of the step, and their record."""

import json

import common
import pytest
import startup


@pytest.mark.slow
def test_every_part_of_a_start_is_seen_and_the_record_keeps_what_is_promised():
    arguments = ["--base_filters", "4", "--batch_size", "8"]
    textbook, product = (startup.run_example(form, arguments) for form in startup.FORMS)
    startup.check_losses(textbook, product)
    record = json.loads((common.RESULTS / "startup.json").read_text())
    for form, run in zip(startup.FORMS, (textbook, product)):
        assert run["seconds"].keys() == record["first_step_seconds"][form].keys()
        assert all(seconds > 0 for seconds in run["seconds"].values())
        assert run["peak_mb"] > 100.0
    assert record["import_seconds"]["keras_sagan"] <= 0.3
    with pytest.raises(ValueError, match="losses must agree"):
        startup.check_losses(textbook, {"losses": [1.1 * x for x in product["losses"]]})
