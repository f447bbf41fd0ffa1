"""What works where: found again on this machine, and the table and the record say the same."""

import json

import common
import pytest
import support_matrix
import tensorflow as tf
from replicas import two_replicas

PAGE = (common.ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
RECORD = json.loads((common.RESULTS / "support_matrix.json").read_text())["found"]


@pytest.mark.slow
@pytest.mark.parametrize("row", ["one", "mirrored"])
def test_combinations_are_found_as_recorded(row, monkeypatch):
    train, one = support_matrix.train, tf.distribute.get_strategy()

    def train_eagerly_in_float32(strategy, jit_compile, policy, synchronized=False):
        tf.config.run_functions_eagerly(policy == "float32" and not jit_compile)
        try:
            return train(strategy, jit_compile, policy, synchronized)
        finally:
            tf.config.run_functions_eagerly(False)

    monkeypatch.setattr(support_matrix, "train", train_eagerly_in_float32)
    expected = support_matrix.train(one, False, "float32")[2]
    strategy = one if row == "one" else two_replicas()
    # The rest takes a minute; `python benchmarks/support_matrix.py` tries it. A cell of
    # mixed_bfloat16 is among those of `test_multi_worker.py`.
    found = support_matrix.attempt_all(strategy, expected, ("mixed_float16",))
    assert found == {key: RECORD[row][key] for key in found} and len(found) >= 2


@pytest.mark.slow
def test_a_tpu_strategy_refuses_what_it_cannot_do():
    found = support_matrix.attempt_tpu()
    assert found == RECORD["tpu"]
    refused = {key for key, text in found.items() if text.startswith("refused: ")}
    assert {x for x in found if "True" in x or "float16" in x.split("_")} == refused


def test_the_page_has_what_was_found():
    assert support_matrix.table(RECORD) in PAGE
    for text in support_matrix.reasons(RECORD):
        assert f"- {text}\n" in PAGE
    cells = [text for row in RECORD.values() for text in row.values()]
    assert all(text.split(":")[0] in ("works", "refused", "not tried") for text in cells)
    assert RECORD.keys() == {"one", "mirrored", "multi_worker", "tpu"}
