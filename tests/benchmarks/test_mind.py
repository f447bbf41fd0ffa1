"""The benchmark of MIND, in miniature, and its record."""

import json

import common
import mind


def test_the_benchmark_runs_and_the_record_keeps_what_is_promised(tmp_path):
    output = tmp_path / "mind.json"
    mind.main(["--dim", "8", "--counts", "20", "--repeats", "1", "--json", str(output)])
    record = json.loads((common.RESULTS / "mind.json").read_text())
    assert json.loads(output.read_text()).keys() == record.keys()
    rows = [row for row in record["rows"] if row["score"] == "MIND, 100 directions"]
    assert record["settings"]["dim"] == 2048 and len(rows) == len(record["settings"]["counts"])
    assert all(row["times_faster"] >= 20 for row in rows)
    guide = (common.ROOT / "docs" / "guides" / "evaluation.md").read_text(encoding="utf-8")
    guide = " ".join(guide.split())
    few, precise = ([x["times_faster"] for x in record["rows"][i::3]] for i in (1, 2))
    assert f"{few[0]:.0f} times as fast as FID for 1,000 images and {few[1]:.0f} times as" in guide
    assert f"MIND is {precise[0]:.1f} and {precise[1]:.1f} times as fast" in guide
