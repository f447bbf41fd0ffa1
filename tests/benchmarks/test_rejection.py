"""The benchmark of selected samples runs, and its record is what the guide says."""

import json

import common
import numpy as np
import pytest
import rejection
import tiny_networks as tiny


@pytest.mark.slow
def test_a_small_measurement():
    model = tiny.build_sagan_of_pictures(1, seed=0)
    real = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), "uint8")
    generator = model.ema_generator.get_weights()
    rejection.finetune(model, real, np.arange(4, dtype="int32"), steps=1)
    for before, after in zip(generator, model.ema_generator.get_weights()):
        np.testing.assert_array_equal(before, after)
    rows = rejection.measure(model, real, 4, seed=0)
    assert [row["method"] for row in rows] == list(rejection.METHODS)


def test_the_guide_says_what_was_recorded():
    record = json.loads((common.RESULTS / "rejection.json").read_text())
    guide = (common.ROOT / "docs" / "guides" / "visualization.md").read_text(encoding="utf-8")
    count = len(rejection.METHODS)
    for rows in zip(record["rows"][:count], record["rows"][count:], strict=True):
        cells = [f"{row['fid']:.1f} | {row['acceptance_rate']:.0%}" for row in rows]
        assert f"| {' | '.join(cells)} |".replace("%", " %") in guide
