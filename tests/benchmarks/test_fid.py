"""The benchmark of the Fréchet distance, in miniature, and its record."""

import json

import common
import fid
import pytest


@pytest.mark.slow
def test_the_benchmark_runs_and_the_record_keeps_what_is_promised(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "peak_in_new_process", lambda *_, **sizes: fid.peak(**sizes) + 1)
    output = tmp_path / "fid.json"
    arguments = ["--dim", "32", "--sets", "100:1", "20:0", "--stream", "500", "1000"]
    fid.main([*arguments, "--repeats", "1", "--json", str(output)])
    small = json.loads(output.read_text())
    record = json.loads((common.RESULTS / "fid.json").read_text())
    assert small.keys() == record.keys()
    for row in (*small["distances"], *record["distances"]):
        for name in ("of samples", "of streamed moments"):
            assert row[name]["relative_error"] < 1e-8
            # TF-GAN takes no root of what is below 1e-10; docs/precision.md shows what that does.
            assert row[name]["from_tfgan"] < 1e-5 or row["TF-GAN"]["relative_error"] > 1e-5
    flat = [row for row in record["distances"] if row["variances"] == "k^-0"]
    assert all(row["TF-GAN"]["relative_error"] < 1e-5 for row in flat)
    assert {row["samples"] < row["dim"] for row in flat} == {False, True}
    assert {row["samples"] for row in record["distances"]} == {3000, 1000}
    for row in record["distances"]:
        assert row["of samples"]["times_faster"] >= 6
        assert row["of streamed moments"]["times_faster"] >= 6
        assert row["of samples"]["peak_mb"] > 0
    on_avx2 = json.loads((common.RESULTS / "fid_avx2.json").read_text())
    assert set(on_avx2["hardware"]["limits"].values()) == {"Haswell", "AVX2"}
    # The metric computes the distance from moments; the distance from samples reaches only 5.7.
    assert all(row["of streamed moments"]["times_faster"] >= 6 for row in on_avx2["distances"])
    few, many = (row["peak_mb"] for row in record["streamed"])
    assert many <= few + 100
