"""The benchmark of the Fréchet distance, in miniature, and its record."""

import json

import common
import fid


def test_the_benchmark_runs_and_the_record_keeps_what_is_promised(tmp_path):
    output = tmp_path / "fid.json"
    arguments = ["--dim", "32", "--samples", "100", "20", "--stream", "500", "1000"]
    fid.main([*arguments, "--repeats", "1", "--json", str(output)])
    small = json.loads(output.read_text())
    record = json.loads((common.RESULTS / "fid.json").read_text())
    assert small.keys() == record.keys()
    for row in (*small["distances"], *record["distances"]):
        assert row["of samples"]["relative_error"] < 1e-5
        assert row["of streamed moments"]["relative_error"] < 1e-5
    assert [row["samples"] for row in record["distances"]] == [3000, 1000]
    assert all(row["of samples"]["times_faster"] >= 6 for row in record["distances"])
    few, many = (row["peak_mb"] for row in record["streamed"])
    assert many <= few + 100
