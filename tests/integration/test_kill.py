"""A run that is really killed goes on to the same bits: the recorded benchmark, shortened."""

import json
from pathlib import Path

import kill_test
import pytest
from on_backends import SETTINGS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mirrored", "jax", "torch"])
def test_killed_and_started_again_equals_undisturbed(mode, monkeypatch):
    if mode in ("jax", "torch"):
        pytest.importorskip(mode)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(kill_test, "MOST_STEPS", 4)
    run = kill_test.run_mode(mode, kills=1, seed=0)
    assert run["kills"] == 1 and run["same_bits"] and not run["damaged_checkpoints"]
    assert run["largest_difference_of_an_epochs_figure"] <= kill_test.ROUNDING[mode]
    # A kill may precede the first checkpoint; one after the first step can't.
    assert run["starts_that_restored"] >= 1 - run["kills_before_a_first_step_was_done"]
    assert run["steps"] > max(run["killed_after_steps"]) > 0


def test_what_is_counted():
    rows = [
        {"from_step": 0, "step": 16, "incomplete": ["step-17"]},
        {"from_step": 16, "step": 16, "incomplete": []},
        {"from_step": 16, "step": 17, "incomplete": []},
        {"from_step": 17, "step": 17, "incomplete": ["step-18"]},
    ]
    counts = kill_test.counts_of(rows)
    assert counts["kills"] == 4 and counts["kills_within_writing_or_removing"] == 2
    assert counts["kills_before_a_first_step_was_done"] == 2


def test_the_page_has_what_was_recorded():
    record = json.loads((ROOT / "benchmarks" / "results" / "kill_test.json").read_text())
    page = (ROOT / "benchmarks" / "logs" / "checkpoints.md").read_text(encoding="utf-8")
    assert kill_test.table(record["runs"]) in page
    assert record["all_well"] and all(run["same_bits"] for run in record["runs"])
    runs = {run["mode"]: run for run in record["runs"]}
    assert runs.keys() == kill_test.DEVICES.keys() and runs["plain"]["kills"] == 25
    for run in runs.values():
        lives = [*zip(run["began_after_steps"], run["killed_after_steps"])]
        assert len(lives) == run["kills"] and lives[-1][1] < run["steps"]
        done = [end - start for start, end in lives]
        assert done.count(0) == run["kills_before_a_first_step_was_done"] and min(done) >= 0
    minutes = sum(run["seconds"] for run in runs.values()) / 60
    assert f"{record['versions']['tensorflow']}; {minutes:.0f} minutes." in page
