"""A run that is really killed goes on to the same bits: the recorded benchmark, shortened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mode, kills", [("plain", 3), ("xla", 1), ("mirrored", 1)])
def test_killed_and_started_again_equals_undisturbed(mode, kills, tmp_path):
    output = tmp_path / "result.json"
    script = [sys.executable, str(ROOT / "benchmarks" / "kill_test.py"), "--modes", mode]
    counts = ["--kills", str(kills), "--other_kills", str(kills)]
    result = subprocess.run(
        [*script, *counts, "--json", str(output)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    (run,) = json.loads(output.read_text())["runs"]
    assert run["kills"] == kills and run["same_bits"]
    # Kills may precede the first checkpoint; those after the first step can't.
    assert run["starts_that_restored"] >= kills - run["kills_before_the_first_step"]
    assert run["steps"] > max(run["killed_after_steps"]) > 0
