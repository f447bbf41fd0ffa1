"""Precision, recall, density and coverage against `prdc` and a definition in loops."""

import numpy as np
import pytest

from keras_sagan.ops import manifold
from keras_sagan.ops.manifold import manifold_scores


def samples(count, seed, scale=1.0, shift=0.0, dim=6):
    return np.random.default_rng(seed).normal(size=(count, dim)) * scale + shift


CASES = [
    (samples(300, 0), samples(300, 1, 0.7, 0.2), 5),
    (samples(120, 0), samples(200, 1, 1.5), 3),
    (samples(50, 0, shift=100.0), samples(40, 1, 1.1, 100.0), 1),
    (samples(30, 0), samples(30, 1, shift=50.0), 5),
]


@pytest.mark.parametrize("real, generated, nearest_k", CASES)
def test_equals_prdc(real, generated, nearest_k, capsys):
    prdc = pytest.importorskip("prdc")
    expected = prdc.compute_prdc(real, generated, nearest_k)
    result = manifold_scores(real, generated, nearest_k)._asdict()
    assert result == pytest.approx({name: float(x) for name, x in expected.items()}, abs=1e-12)


def test_equals_the_definition_in_loops():
    real, generated = samples(25, 0), samples(20, 1, 0.8)
    k = 2

    def radius(x, among):
        return sorted(np.linalg.norm(x - y) for y in among)[k]

    around_real = [radius(x, real) for x in real]
    around_generated = [radius(x, generated) for x in generated]
    near = np.array([[np.linalg.norm(x - y) for y in generated] for x in real])
    in_real = [[near[i, j] < around_real[i] for j in range(20)] for i in range(25)]
    in_generated = [[near[i, j] < around_generated[j] for j in range(20)] for i in range(25)]
    expected = (
        np.mean(np.any(in_real, axis=0)),
        np.mean(np.any(in_generated, axis=1)),
        np.sum(in_real) / (k * 20),
        np.mean(np.any(in_real, axis=1)),
    )
    assert manifold_scores(real, generated, k) == pytest.approx(expected, abs=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch):
    real, generated, nearest_k = CASES[0]
    expected = manifold_scores(real, generated, nearest_k)
    monkeypatch.setattr(manifold, "_ROWS", 7)
    assert manifold_scores(real, generated, nearest_k) == expected


def test_equal_sets_and_distant_sets():
    real = samples(40, 0)
    assert manifold_scores(real, real, 3)[:2] == (1.0, 1.0)
    assert manifold_scores(real, real + 1e3, 3) == (0.0, 0.0, 0.0, 0.0)


def test_an_outlier_raises_precision_but_not_density():
    real = np.concatenate([samples(60, 0), [[30.0] * 6]])
    between = samples(60, 1, 0.1, 15.0)  # far from every real image but the outlier
    scores = manifold_scores(real, between, 5)
    assert scores.precision > 0.9 and scores.density < 0.25


@pytest.mark.parametrize("nearest_k", [0, 10, 12])
def test_more_neighbours_than_samples_are_refused(nearest_k):
    with pytest.raises(ValueError, match=f"`nearest_k` must be .*Received: nearest_k={nearest_k}"):
        manifold_scores(samples(20, 0), samples(10, 1), nearest_k)
