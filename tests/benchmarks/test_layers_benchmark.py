"""Every layer equals its textbook form, and the record says how much faster it is."""

import json

import common
import layers
import pytest


@pytest.mark.slow
def test_layers_agree_and_the_record_keeps_what_is_promised(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "peak_in_new_process", lambda *_, **form: 1.0)
    path = tmp_path / "layers.json"
    arguments = "--batch_size 2 --size 8 --channels 16 --num_classes 5 --rounds 1 --json".split()
    layers.main([*arguments, str(path)])  # Raises where two disagree.
    small = json.loads(path.read_text())
    record = json.loads((common.RESULTS / "layers.json").read_text())
    page = (common.ROOT / "benchmarks" / "logs" / "performance.md").read_text(encoding="utf-8")
    assert small.keys() == record.keys()
    assert [row["layer"].split(",")[0] for row in small["rows"]] == [
        row["layer"].split(",")[0] for row in record["rows"]
    ]
    for small_row, row in zip(small["rows"], record["rows"]):
        assert small_row.keys() == row.keys()
        numbers = (row["textbook_ms"], row["ms"], row["times_faster"])
        memory = " | ".join(f"{row[key]:.0f}" for key in ("textbook_peak_mb", "peak_mb"))
        assert f"| {' | '.join(f'{x:#.3g}'.rstrip('.') for x in numbers)} | {memory} |" in page
    # Bytes; a map of 64 x 64, batch 3: too large to fit in what other tests have freed.
    scores = 4 * 3 * 64**2 * 32**2
    assert layers.peak("SelfAttention2D", "product", (3, 64, 16, 5)) > 0.9 * scores
    faster = {row["layer"]: row["times_faster"] for row in record["rows"]}
    assert min(faster.values()) > 0.9
    assert min(faster['SNConv2D, "up"'], faster['SNConv2D, "down"']) > 1.6
