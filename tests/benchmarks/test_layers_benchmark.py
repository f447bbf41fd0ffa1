"""Every layer equals its textbook form, and the record says how much faster it is."""

import json

import common
import layers


def test_layers_agree_and_the_record_keeps_what_is_promised(tmp_path):
    path = tmp_path / "layers.json"
    arguments = "--batch_size 2 --size 8 --channels 16 --num_classes 5 --rounds 1 --json".split()
    layers.main([*arguments, str(path)])  # Raises where two disagree.
    small = json.loads(path.read_text())
    record = json.loads((common.RESULTS / "layers.json").read_text())
    assert small.keys() == record.keys()
    assert [row["layer"].split(",")[0] for row in small["rows"]] == [
        row["layer"].split(",")[0] for row in record["rows"]
    ]
    faster = {row["layer"]: row["times_faster"] for row in record["rows"]}
    assert min(faster.values()) > 0.9
    assert min(faster['SNConv2D, "up"'], faster['SNConv2D, "down"']) > 1.6
