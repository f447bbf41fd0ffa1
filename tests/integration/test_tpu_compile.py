"""The training step as a TPU replica runs it: what it is made of, and the TPU compiler's word."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tiny_networks
import tpu_compile

from keras_sagan import SAGAN

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "tpu_compile.py"
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("tpu_compile_*.json"))


def tiny_step(num_classes):
    model = SAGAN(
        tiny_networks.build_generator(num_classes),
        tiny_networks.build_discriminator(num_classes),
        tiny_networks.LATENT_DIM,
        num_classes,
        ema_momentum=0.9,
        seed=0,
    )
    model.compile()
    return tpu_compile.export_step(model, batch_size=4)


@pytest.fixture(scope="module")
def preset_step():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4, seed=0)
    model.compile()
    return tpu_compile.export_step(model, batch_size=4), model


@pytest.mark.slow
def test_step_has_static_shapes_and_no_host_calls(preset_step):
    text, model = preset_step
    assert tpu_compile.find_problems(text) == []
    main = next(line for line in text.splitlines() if "func.func @main(" in line)
    assert "tensor<4x32x32x1xui8>" in main and "tensor<4xi32>" in main


@pytest.mark.slow
def test_step_updates_everything(preset_step):
    text, model = preset_step
    module = next(line for line in text.splitlines() if line.startswith("module "))
    # An updated variable takes the place of its old value.
    updated = module.count("may_alias")
    optimizers = [*model.g_optimizer.variables, *model.d_optimizer.variables]
    rates = 2  # The learning rates stay as they are.
    networks = [*model.generator.variables, *model.discriminator.variables]
    averages = len(model.ema_generator.variables)
    counters = 1 + sum(len(metric.variables) for metric in model.metrics)
    assert updated == len(networks) + averages + len(optimizers) - rates + counters


@pytest.mark.slow
def test_step_without_labels_has_no_problems():
    assert tpu_compile.find_problems(tiny_step(None)) == []


@pytest.mark.parametrize(
    "line, message",
    [
        ("%1 = stablehlo.add %0, %0 : tensor<?x4xf32>", "Shapes aren't static"),
        ("%1 = stablehlo.add %0, %0 : tensor<4x?xf32, #stablehlo.bounds<?, 8>>", "Shapes"),
        ("%1 = stablehlo.dynamic_reshape %0, %2 : tensor<4xf32>", "dynamic_reshape"),
        ("%1 = stablehlo.real_dynamic_slice %0, %2", "real_dynamic_slice"),
        ("%1 = stablehlo.set_dimension_size %0, %2, dim = 0", "set_dimension_size"),
        ("module @m attributes {mhlo.is_dynamic = true}", "is_dynamic"),
        ("%1 = stablehlo.custom_call @xla_python_cpu_callback(%0)", "xla_python_cpu_callback"),
        ('%1 = "stablehlo.custom_call"(%0) <{call_target_name = "f"}>', "Custom calls"),
        ('%1 = "stablehlo.infeed"(%0)', "host or come from it: stablehlo.infeed"),
        ('%1 = "stablehlo.outfeed"(%0)', "stablehlo.outfeed"),
        ('%1 = "stablehlo.send"(%0)', "stablehlo.send"),
        ('%1 = "stablehlo.recv"(%0)', "stablehlo.recv"),
        ("%1 = mhlo.copy %0 : tensor<i32>", "aren't StableHLO: mhlo.copy"),
    ],
)
def test_problems_are_found(line, message):
    assert any(message in problem for problem in tpu_compile.find_problems(line))


def test_slices_at_a_traced_place_are_static():
    line = "%1 = stablehlo.dynamic_slice %0, %2, sizes = [4] : (tensor<8xf32>, tensor<i32>)"
    assert tpu_compile.find_problems(line) == []
    assert tpu_compile.find_problems("%1 = stablehlo.dynamic_update_slice %0, %2, %3") == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--topology", "v9z"], "must be of v5e, v6e, v5p. Received: v9z"),
        (["--policy", "int8"], "must be of float32, mixed_bfloat16. Received: int8"),
        (["--batch_size", "0"], "`--batch_size` must be a positive integer. Received: 0"),
        (["--preset", "sagan_moon"], "Received: name='sagan_moon'"),
        (["--recipe", "cake"], "Received: recipe='cake'"),
    ],
)
def test_wrong_calls_are_named(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(tpu_compile.util, "find_spec", lambda name: True)
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
        "chip": "v5e",
        "device_kind": "a chip",
        "hbm_bytes": int(hbm),
        "flops": 1,
        "bytes_accessed": 1,
        "memory_bytes": {**sizes, "total": int(hbm * (1 - spare))},
        "fits": spare >= 0,
        "spare": spare,
    }
    monkeypatch.setattr(tpu_compile.util, "find_spec", lambda name: True)
    monkeypatch.setattr(tpu_compile, "export_step", lambda model, batch_size: "")
    monkeypatch.setattr(tpu_compile, "find_problems", lambda text: problems)
    monkeypatch.setattr(tpu_compile, "compile_step", lambda text, chip: report)
    arguments = ["--preset", "sagan_fashion_mnist_32", "--base_filters", "4"]
    assert tpu_compile.main([*arguments, "--min_spare", str(min_spare)]) == code
    printed = capsys.readouterr().out
    assert ("Bad" if problems else f"{spare:.1%}" if spare > 0 else "DOES NOT FIT") in printed


@pytest.mark.slow
def test_tpu_compiler_takes_the_step(tmp_path):
    # A folder apart: beside JAX it would have every other test look for a TPU.
    folder = os.environ.get("KERAS_SAGAN_LIBTPU", "")
    for package in ("jax", *([] if folder else ["libtpu"])):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} isn't installed: {tpu_compile.PIP}")
    keras.config.set_dtype_policy("mixed_bfloat16")
    step, result = tmp_path / "step.mlir", tmp_path / "result.json"
    step.write_text(tiny_step(tiny_networks.CLASSES))
    code = (
        "import json, sys; from pathlib import Path; import tpu_compile as t; "
        "report = t.compile_step(Path(sys.argv[1]).read_text(), 'v5e'); "
        "Path(sys.argv[2]).write_text(json.dumps(report)); print(t.describe(report))"
    )
    # A process of its own: JAX is told here that there is no TPU.
    process = subprocess.run(
        [sys.executable, "-c", code, str(step), str(result)],
        cwd=SCRIPT.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    report = json.loads(result.read_text())
    assert report["device_kind"] == "TPU v5 lite" and report["fits"] and report["flops"] > 1e5
    memory = report["memory_bytes"]
    # All updated variables take the place of the old ones.
    assert 0 < memory["output"] - memory["alias"] < 1e5
    assert "GFLOP" in process.stdout and "to spare" in process.stdout


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_recorded_results_add_up(path):
    record = json.loads(path.read_text())
    assert record["fits"] and not record["step"]["problems"]
    for report in record["reports"]:
        memory = dict(report["memory_bytes"])
        total = memory.pop("total")
        assert total == sum(memory.values()) - 2 * memory["alias"]
        assert report["spare"] == round(1 - total / report["hbm_bytes"], 4) > 0
        # The documentation's table has the same figures.
        row = tpu_compile.row(record["settings"], report)
        assert f"{row}\n" in (ROOT / "docs" / "tpu.md").read_text(encoding="utf-8")


def test_recorded_imagenet_step_has_memory_to_spare():
    name = "tpu_compile_sagan_imagenet_128_official_v5e_bfloat16.json"
    record = json.loads((ROOT / "benchmarks" / "results" / name).read_text())
    settings, (report,) = record["settings"], record["reports"]
    assert settings["recipe"] == "official" and settings["batch_size"] == 32
    assert settings["policy"] == "mixed_bfloat16" and settings["base_filters"] is None
    assert report["chip"] == "v5e" and report["spare"] >= 0.4
    # The example's header has the same figures.
    header = (ROOT / "examples" / "imagenet_tpu.py").read_text(encoding="utf-8").split('"""')[1]
    header = " ".join(header.split())
    memory = report["memory_bytes"]["total"] / 1e9
    assert "32 images on a v5e in mixed_bfloat16" in header
    said = (
        f"{report['flops'] / 1e9:,.0f} GFLOP and {report['bytes_accessed'] / 1e9:.1f} GB accessed"
    )
    assert f"{said}, {memory:.2f} GB of {report['hbm_bytes'] / 1e9:.0f} GB in use" in header
    assert f"({report['spare']:.1%}".replace("%", " %") + " to spare)" in header


def test_every_row_of_the_page_is_recorded():
    page = (ROOT / "docs" / "tpu.md").read_text(encoding="utf-8")
    records = [json.loads(path.read_text()) for path in RESULTS]
    rows = {tpu_compile.row(x["settings"], report) for x in records for report in x["reports"]}
    assert {line for line in page.splitlines() if re.match(r"\| \w+ \| v\d", line)} == rows
