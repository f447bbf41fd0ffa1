"""The benchmark of inversion runs, and its record meets the goal and is what the guide says."""

import json

import common
import inversion
import pytest


@pytest.mark.slow
def test_a_small_measurement():
    rows = inversion.main(["--samples", "2", "--real", "1"], restarts=1, steps=1)["rows"]
    assert [row["count"] for row in rows] == [2, 1]


def test_the_record_meets_the_goal_and_is_in_the_guide():
    own, real = json.loads((common.RESULTS / "inversion.json").read_text())["rows"]
    assert own["share_at_30_db"] >= inversion.GOAL["share"] and own["classes_found"] == 1
    guide = (common.ROOT / "docs" / "guides" / "visualization.md").read_text(encoding="utf-8")
    guide = " ".join(guide.split())
    assert f"for {own['count']} samples of the trained Fashion-MNIST model, " in guide
    assert f"ratio (PSNR) is {own['lowest_psnr']} dB" in guide
    assert (
        f"for {real['count']} training images, the median PSNR is {real['median_psnr']} dB, "
        in guide
    )
    assert f"the class is right for {real['classes_found']:.0%} (".replace("%", " %") in guide
