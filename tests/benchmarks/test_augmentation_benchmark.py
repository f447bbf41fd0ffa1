"""The comparison of `DifferentiableAugmentation` with the authors' code, and its record."""

import json

import augmentation
import common


def test_the_record_keeps_the_limit():
    rows = json.loads((common.RESULTS / "augmentation.json").read_text())["rows"]
    assert len(rows) == len(augmentation.POLICIES) * len(augmentation.SHAPES)
    assert max(max(row["value"], row["gradient"]) for row in rows) <= augmentation.LIMIT


def test_a_difference_is_found(tmp_path, monkeypatch):
    """Of a peer that ignores its random numbers."""
    monkeypatch.setattr(augmentation, "SHAPES", ((8, 8, 1),))
    monkeypatch.setattr(augmentation, "POLICIES", ("color",))
    peer, output = tmp_path / "peer.py", tmp_path / "record.json"
    peer.write_text("def DiffAugment(x, policy):\n    return 2.0 * x\n")
    arguments = ["--peer", str(peer), "--count", "2", "--json", str(output)]
    assert augmentation.main(arguments) == 1
    (row,) = json.loads(output.read_text())["rows"]
    assert row["value"] > 0.1 and row["gradient"] > 0.1
