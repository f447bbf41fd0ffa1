"""The ablation in miniature, and how it goes on after an interruption."""

import json

import ablation
import ablation_page
import common
import pytest
import study
from short_runs import train_briefly

TINY = "--base_filters 4 --batch_size 2 --steps 1 --num_images 20 --num_real 40".split()
NAME = "attention-without_spectral-norm-d_rates-equal_seed-0"
OTHER = "attention-with_spectral-norm-d_rates-equal_seed-0"
PAPERS = "attention-with_spectral-norm-both_rates-ttur_seed-0"


@pytest.mark.slow
def test_the_papers_setting_has_all_three():
    run = ablation.all_runs(1)[PAPERS]
    assert run["learning_rates"] == {"generator": 5e-4, "discriminator": 2e-3}
    model = ablation.build(run, {"base_filters": 4})
    assert [model.ttur[f"{side}_learning_rate"] for side in "gd"] == [5e-4, 2e-3]
    assert len(model.attention_gammas()) == 2
    for network in (model.generator, model.discriminator):
        assert sum("vector_u" in x.path for x in network.variables) > 5


@pytest.mark.slow
def test_a_run_in_miniature_is_made_once_and_not_mixed_with_others(tmp_path, monkeypatch, capsys):
    train_briefly(monkeypatch)
    monkeypatch.setattr(ablation, "EPOCHS", 1)
    common_arguments = ["--workdir", str(tmp_path), *TINY]
    ablation.main(["--only", NAME, "--jobs", "0", *common_arguments])
    run = json.loads((tmp_path / f"{NAME}.json").read_text())
    assert run["fid"] > 0 and run["not_finite"] is None and run["attention_gamma"] == {}
    assert run["protocol"]["weights"] == "averaged (EMA)"
    assert (run["protocol"]["num_generated"], run["protocol"]["num_reference"]) == (20, 40)
    assert run["command"].startswith(f"python benchmarks/ablation.py --only {NAME} --jobs 0")
    assert "--steps 1" in run["command"] and run["seconds"] > run["training_seconds"] > 0

    # The other is made in a process of its own; the first one isn't made again.
    commands = []

    def stand_in(command, check, env):
        commands.append(command)
        better = {**run, **ablation.all_runs(1)[OTHER], "fid": run["fid"] - 2.0}
        (tmp_path / f"{OTHER}.json").write_text(json.dumps(better))

    monkeypatch.setattr(study.subprocess, "run", stand_in)
    result = ablation.main(
        ["--only", NAME, OTHER, "--json", str(tmp_path / "x" / "all.json"), *common_arguments]
    )
    assert len(commands) == 1 and commands[0][3] == OTHER and "--steps" in commands[0]
    assert result["runs"].keys() == {NAME, OTHER}
    assert ablation_page.differences(result["runs"], "attention") == [pytest.approx(-2.0)]
    assert ablation_page.differences(result["runs"], "rates") == []
    page = ablation_page.page(result)
    assert f"{run['fid']:.1f}" in page and "benchmarks/ablation.py" in page
    ablation.draw(result, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000
    with pytest.raises(ValueError, match="--workdir must hold runs of the same settings"):
        ablation.main(["--only", NAME, "--workdir", str(tmp_path)])
    other = json.loads((tmp_path / f"{OTHER}.json").read_text())
    (tmp_path / f"{OTHER}.json").write_text(json.dumps({**other, "protocol": {"seed": 1}}))
    with pytest.raises(ValueError, match="Runs must have one `protocol` to be compared"):
        ablation.main(["--only", NAME, OTHER, *common_arguments])
    with pytest.raises(SystemExit):
        ablation.main(["--only", "nothing", *common_arguments])
    assert "--only must name runs among" in capsys.readouterr().err


def test_all_combinations_have_all_seeds_and_the_papers_comes_with_the_first():
    runs = ablation.all_runs(3)
    assert len(runs) == 24 and len({str(run) for run in runs.values()}) == 24
    assert all(ablation.departures(run) <= 1 for run in list(runs.values())[:12])
    assert ablation.departures({"attention": "with", "spectral_norm": "both", "rates": "ttur"}) == 0


def test_a_sign_counts_beyond_two_standard_errors():
    assert ablation_page.verdict([-3.0, -2.0, -4.0]) == "agrees"
    assert ablation_page.verdict([3.0, 2.0, 4.0]) == "**doesn't agree**"
    assert "not significant" in ablation_page.verdict([-3.0, 4.0, 1.0])
    assert "not significant" in ablation_page.verdict(
        [-3.0]
    ) and "not significant" in ablation_page.verdict([])


def test_the_page_is_what_the_record_says():
    record = json.loads((common.RESULTS / "ablation.json").read_text(encoding="utf-8"))
    assert record["settings"] == ablation.DEFAULTS
    assert record["runs"].keys() == ablation.all_runs(3).keys()
    assert ablation.TABLE.read_text(encoding="utf-8") == ablation_page.page(record)
    assert ablation.LOG.read_text(encoding="utf-8") == ablation_page.log(record)
