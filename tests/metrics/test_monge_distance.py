"""MIND against its definition, a closed form, scipy and a value of torch-fidelity."""

import numpy as np
import pytest

from keras_sagan.metrics import MongeInceptionDistance
from keras_sagan.metrics.monge_inception_distance import monge_distance


def samples(count, seed, shift=0.0, dim=8):
    return np.random.default_rng(seed).normal(size=(count, dim)) + shift


def test_equals_its_definition():
    """Along each direction, sort both sets and take the mean of the squared differences."""
    real, generated, directions = samples(50, 0), samples(50, 1, 0.3), samples(70, 2)
    terms = []
    for u in directions:
        u = u / np.sqrt(np.sum(u**2))
        pairs = zip(sorted(float(u @ x) for x in real), sorted(float(u @ y) for y in generated))
        terms.append(np.mean([(a - b) ** 2 for a, b in pairs]))
    value = monge_distance(real, generated, directions)
    assert value == pytest.approx(3 * 8 * np.mean(terms), rel=1e-6)
    # The mean of both sets changes nothing, although projections are in float32.
    assert monge_distance(real + 100, generated + 100, directions) == pytest.approx(value, rel=1e-6)


def test_equals_torch_fidelity():
    """`mind_features_to_metric` of commit 5e211a9 returned this number for these arrays.

    `torch.randn` was replaced by a function that returns `directions`.
    """
    generated, real, directions = (
        (np.arange(6000).reshape(-1, 20) * step % 101 / 101).astype("float32")
        for step in (7, 13, 37)
    )
    value = monge_distance(real**2, generated, directions[:40] - 0.5)
    assert value == pytest.approx(0.9007880464196205, rel=1e-6)


def test_one_direction_is_the_optimal_assignment():
    optimize = pytest.importorskip("scipy.optimize")
    real, generated, direction = samples(30, 0), samples(30, 1, 0.5), samples(1, 2)
    first, second = (x @ direction[0] / np.linalg.norm(direction) for x in (real, generated))
    cost = np.subtract.outer(first, second) ** 2
    expected = 3 * 8 * cost[optimize.linear_sum_assignment(cost)].mean()
    assert monge_distance(real, generated, direction) == pytest.approx(expected, rel=1e-6)


def test_shifted_samples_are_at_three_times_the_squared_shift():
    """(uᵀs)² is |s|² / dim on average over all directions u, and exactly over a basis."""
    real, shift = samples(40, 0), np.arange(8.0)
    value = monge_distance(real, real + shift, np.eye(8))
    assert value == pytest.approx(3 * np.sum(shift**2), rel=1e-6)


def test_the_metric_draws_directions_and_a_subset_of_the_larger_side():
    real, generated = samples(70, 0), samples(50, 1, 0.4)
    metric = MongeInceptionDistance(lambda x: x, num_projections=30, seed=5)
    metric.update_features(real, real=True)
    metric.update_features(generated, real=False)
    rng = np.random.default_rng(5)
    directions, chosen = rng.standard_normal((30, 8)), rng.choice(70, 50, replace=False)
    assert metric.result() == pytest.approx(monge_distance(real[chosen], generated, directions))


def test_progress_is_told():
    told = []
    monge_distance(samples(9, 0), samples(9, 1), samples(300, 2), lambda *x: told.append(x))
    assert told == [(256, 300), (300, 300)]


def test_sets_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="same number of samples. Received: 5 real and 4 gen"):
        monge_distance(samples(5, 0), samples(4, 1), samples(3, 2))


def test_a_direction_of_zeros_is_refused():
    directions = np.eye(8)[:3]
    directions[1] = 0
    with pytest.raises(ValueError, match="no row of zeros. Received: zeros in row 1"):
        monge_distance(samples(5, 0), samples(5, 1), directions)
