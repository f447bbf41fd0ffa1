"""The training step of JAX as the TPU compiler takes it, for one chip and for eight."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tpu_compile

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("tpu_compile_*.json"))
RECORD = json.loads(
    (
        ROOT / "benchmarks/results/tpu_compile_sagan_imagenet_128_official_v5e_bfloat16.json"
    ).read_text()
)


@pytest.mark.parametrize(
    "line, problem",
    [
        ("%1 = f32[4] infeed(%0)", "infeed"),
        ("%1 = token[] outfeed(%0)", "outfeed"),
        ("%1 = (f32[4], u32[]) send(%0), channel_id=1", "send"),
        ('%1 = f32[] custom-call(%0), custom_call_target="xla_python_cpu_callback"', "callback"),
    ],
)
def test_problems_are_found(line, problem):
    (found,) = tpu_compile.find_problems(line)
    assert "calls its host" in found and problem in found
    assert tpu_compile.find_problems("%1 = f32[4]{0} add(%0, %0)") == []


def test_collectives_are_counted_by_kind():
    text = """
    %1 = f32[4] all-reduce(%0), replica_groups={}
    %2 = (f32[4], f32[4]) all-reduce-start(%1)
    %3 = f32[4] all-reduce-done(%2)
    %4 = f32[8] all-gather(%3)
    """
    assert tpu_compile.count_collectives(text) == {"all-reduce": 2, "all-gather": 1}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--topology", "v9z"], "must be of v5e, v6e, v5p for one chip, with a shape"),
        (["--topology", "v5e:eight"], "v5e:2x4 for several. Received: v5e:eight"),
        (["--policy", "int8"], "must be of float32, mixed_bfloat16. Received: int8"),
        (["--batch_size", "0"], "`--batch_size` must be a positive integer. Received: 0"),
        (["--preset", "sagan_moon"], "Received: name='sagan_moon'"),
        (["--recipe", "cake"], "Received: recipe='cake'"),
    ],
)
def test_wrong_calls_are_named(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(tpu_compile.util, "find_spec", lambda name: True)
    monkeypatch.setattr(tpu_compile, "NO_TPU", {})  # Other tests have their own environment.
    with pytest.raises(SystemExit) as error:
        tpu_compile.main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["jax", "libtpu"])
def test_missing_compiler_says_the_pip_line(monkeypatch, capsys, missing):
    monkeypatch.setattr(tpu_compile.util, "find_spec", lambda name: name != missing or None)
    with pytest.raises(SystemExit) as error:
        tpu_compile.main([])
    assert error.value.code == 2
    assert f'needs {missing}: pip install "jax[tpu]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "spare, min_spare, problems, code",
    [(0.5, 0.4, [], 0), (0.3, 0.4, [], 1), (-0.1, 0.0, [], 1), (0.5, 0.0, ["Bad"], 1)],
)
def test_exit_code(monkeypatch, capsys, spare, min_spare, problems, code):
    hbm = 16e9
    sizes = dict.fromkeys(("argument", "output", "alias", "temporary", "program"), 0)
    report = {
        "topology": "v5e",
        "chips": 1,
        "device_kind": "a chip",
        "hbm_bytes": int(hbm),
        "flops": 1,
        "bytes_accessed": 1,
        "memory_bytes": {**sizes, "total": int(hbm * (1 - spare))},
        "collectives": {},
        "problems": problems,
        "fits": spare >= 0,
        "spare": spare,
    }
    monkeypatch.setattr(tpu_compile.util, "find_spec", lambda name: True)
    monkeypatch.setattr(tpu_compile, "NO_TPU", {})
    monkeypatch.setattr(tpu_compile, "compile_step", lambda model, batch_size, topology: report)
    arguments = ["--preset", "sagan_fashion_mnist_32", "--base_filters", "4"]
    assert tpu_compile.main([*arguments, "--min_spare", str(min_spare)]) == code
    printed = capsys.readouterr().out
    assert ("Bad" if problems else f"{spare:.1%}" if spare > 0 else "DOES NOT FIT") in printed


COMPILE = """
import json, os, sys
from pathlib import Path
import tpu_compile
os.environ.update(tpu_compile.NO_TPU)
import keras, tiny_networks
keras.config.set_dtype_policy("mixed_bfloat16")
model = tiny_networks.build_small_sagan(ema_momentum=0.9)
model.compile()
report = tpu_compile.compile_step(model, 4, "v5e:2x4")
Path(sys.argv[1]).write_text(json.dumps(report))
print(tpu_compile.describe(report))
"""


@pytest.mark.slow
def test_tpu_compiler_takes_the_step_for_eight_chips(tmp_path):
    # A folder apart: beside JAX it would have every other test look for a TPU.
    folder = os.environ.get("KERAS_SAGAN_LIBTPU", "")
    for package in ("jax", *([] if folder else ["libtpu"])):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} isn't installed: {tpu_compile.PIP}")
    process = subprocess.run(
        [sys.executable, "-c", COMPILE, str(tmp_path / "result.json")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    report = json.loads((tmp_path / "result.json").read_text())
    assert report["device_kind"] == "TPU v5 lite" and report["chips"] == 8
    assert report["fits"] and not report["problems"] and report["flops"] > 1e4
    memory = report["memory_bytes"]
    # All updated variables take the place of the old ones.
    assert 0 <= memory["output"] - memory["alias"] < 1e5
    # Gradients and batch statistics are those of all chips.
    assert report["collectives"]["all-reduce"] >= 2
    assert "GFLOP" in process.stdout and "to spare" in process.stdout


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_recorded_results_add_up(path):
    record = json.loads(path.read_text())
    assert record["fits"]
    for report in record["reports"]:
        memory = dict(report["memory_bytes"])
        total = memory.pop("total")
        assert total == sum(memory.values()) - 2 * memory["alias"]
        assert report["spare"] == round(1 - total / report["hbm_bytes"], 4) > 0
        assert report["problems"] == []
        assert bool(report["collectives"]) == (report["chips"] > 1)


def test_recorded_imagenet_step_has_memory_to_spare():
    settings, (one, eight) = RECORD["settings"], RECORD["reports"]
    assert settings["recipe"] == "official" and settings["batch_size"] == 32
    assert settings["policy"] == "mixed_bfloat16" and settings["base_filters"] is None
    assert (one["topology"], eight["topology"], eight["chips"]) == ("v5e", "v5e:2x4", 8)
    assert min(one["spare"], eight["spare"]) >= 0.4
    # The example's header has the same figures.
    header = (ROOT / "examples" / "imagenet_tpu.py").read_text(encoding="utf-8").split('"""')[1]
    header = " ".join(header.split())
    memory = one["memory_bytes"]["total"] / 1e9
    assert "32 images on a v5e in mixed_bfloat16" in header
    said = f"{one['flops'] / 1e9:,.0f} GFLOP and {one['bytes_accessed'] / 1e9:.1f} GB accessed"
    assert f"{said}, {memory:.2f} GB of {one['hbm_bytes'] / 1e9:.0f} GB in use" in header
    assert f"({one['spare']:.1%}".replace("%", " %") + " to spare)" in header


def test_the_page_has_what_is_recorded():
    page = (ROOT / "docs" / "guides" / "scaling.md").read_text(encoding="utf-8")
    records = [json.loads(path.read_text()) for path in RESULTS]
    rows = {tpu_compile.row(x["settings"], report) for x in records for report in x["reports"]}
    assert {line for line in page.splitlines() if re.match(r"\| \w+ \| v\d", line)} == rows
