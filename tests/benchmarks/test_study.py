"""A study makes each run once, and never mixes runs of different settings."""

import json
import pathlib

import common
import pytest
import study

SETTINGS = {"steps": 3}


def all_runs(seeds):
    return {f"run_{seed}": {"seed": seed} for seed in range(seeds)}


def make(run, settings, scratch, options):
    return {"score": 10 * run["seed"] + settings["steps"]}


def main(*words):
    return study.main("a/my_study.py", "", SETTINGS, all_runs, make, [*words], seeds=2)


def test_records_and_checkpoints_have_their_own_folders():
    options, _, _ = study.main("a/my_study.py", "", SETTINGS, lambda seeds: {}, make, [])
    assert options.workdir == common.RESULTS / "my_study"
    assert options.scratch == pathlib.Path("runs/my_study")


def test_finished_runs_are_not_made_again(tmp_path, monkeypatch):
    words = ["--workdir", str(tmp_path), "--steps", "4"]
    _, settings, found = main("--only", "run_1", "--jobs", "0", *words)
    assert settings == {"steps": 4} and found["run_1"]["score"] == 14
    assert found["run_1"]["command"].endswith("--only run_1 --jobs 0 --steps 4")
    commands = []

    def stand_in(command, check, env):
        commands.append(command)
        other = {**found["run_1"], "seed": 0, "score": 4}
        (tmp_path / "run_0.json").write_text(json.dumps(other))

    monkeypatch.setattr(study.subprocess, "run", stand_in)
    _, _, found = main(*words)  # Each missing run is a process of its own.
    assert [command[3] for command in commands] == ["run_0"] and "--steps" in commands[0]
    assert {name: record["score"] for name, record in found.items()} == {"run_0": 4, "run_1": 14}
    shared = study.collect(found)
    assert shared["settings"] == {"steps": 4} and shared["runs"].keys() == {"run_0", "run_1"}
    assert "settings" not in shared["runs"]["run_0"]


def test_runs_of_different_settings_are_refused(tmp_path, capsys):
    main("--jobs", "0", "--workdir", str(tmp_path))
    with pytest.raises(ValueError, match="--workdir must hold runs of the same settings.*run_0"):
        main("--jobs", "0", "--workdir", str(tmp_path), "--steps", "4")
    with pytest.raises(SystemExit):
        main("--only", "nothing")
    assert "--only must name runs among ['run_0', 'run_1']" in capsys.readouterr().err
    records = {str(seed): {"settings": {}, "versions": {"keras": seed}} for seed in (1, 2)}
    with pytest.raises(ValueError, match="Runs must have one `versions` to be compared.*2 with"):
        study.collect(records)
