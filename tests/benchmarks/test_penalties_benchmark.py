"""The benchmark of the cost of R1 runs."""

import penalties
import pytest


@pytest.mark.slow
def test_a_small_measurement():
    tiny = {"image_size": 8, "base_filters": 4, "attention_resolutions": [], "d_steps": 1}
    rows = penalties.measure("sagan_fashion_mnist_32", tiny, 4, ["tensorflow"], rounds=1)
    assert [row["times_without"] > 0 for row in rows] == [True] * 3
