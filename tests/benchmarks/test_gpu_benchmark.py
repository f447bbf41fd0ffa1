"""The benchmark for GPUs with tiny networks on a CPU, where TensorFlow can't be imported."""

import importlib.util
import json
import os
import subprocess
import sys

import common
import pytest
from on_backends import SETTINGS

# Measure JAX in this process: each new one would take seconds to start.
ON_JAX = """
import gpu

start, forms = gpu.in_new_process, {"--measure": gpu.measure, "--flops": gpu.count_flops}
gpu.in_new_process = lambda form, argument, *others, **variables: (
    start(form, argument, *others, **variables)
    if "torch" in others
    else forms[form](argument)
)
gpu.main()
"""


@pytest.mark.slow
def test_tiny_networks_fill_the_record_without_tensorflow(tmp_path):
    pytest.importorskip("jax")
    missing, peer = tmp_path / "missing" / "tensorflow", tmp_path / "peer.py"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ModuleNotFoundError(name='tensorflow')")
    peer.write_text("import sys\nprint('READY', flush=True)\nfor _ in sys.stdin: print(2.0)")
    path = [str(missing.parent), str(common.ROOT), str(common.ROOT / "benchmarks")]
    path.append(os.environ.get("PYTHONPATH", ""))
    command = [sys.executable, "-c", ON_JAX, "--smoke", "--steps=1"]
    command += ["--json", str(tmp_path / "gpu.json"), "--profile", str(tmp_path / "profile")]
    command += ["--peer", f"other={sys.executable} -u {peer}"]
    done = subprocess.run(
        command,
        env={**os.environ, **SETTINGS, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "gpu.json").read_text())
    first, second, *others = record["rows"]
    assert record["card"] == first["card"] == "cpu"
    assert "--peer=other=COMMAND" in record["command"]
    assert first["forms"].keys() == {"fit", "plain", "other"}
    assert first["forms"]["other"]["ms"] == 2000.0
    assert second["is_second_start"] and second["first_step_seconds"] > 0
    assert len(others) == (importlib.util.find_spec("torch") is not None)
    for row in (first, *others):
        assert row["error_of_first_losses"] < 1e-3 and row["first_step_seconds"] > 0
        assert row["tflop"] > 0 and row["peak_tflops"] > 0 and row["steps"] == 1
        for form in row["forms"].values():
            seconds = row["batch_size"] / form["images_per_second"]
            assert seconds == pytest.approx(form["ms"] / 1e3, rel=1e-3)
            assert form["times_faster_than_fit"] > 0 and form["share_of_peak"] >= 0
        assert row["forms"]["fit"]["ms_without_waiting"] > 0
    assert first["memory_mb"]["temp"] > 0 and first["memory_mb"]["arguments"] > 0
    assert 0.9 < sum(first["kernels"]["kinds"].values()) < 1.1
