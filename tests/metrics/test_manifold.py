"""Precision, recall, density and coverage against `prdc` and a definition in loops."""

import tracemalloc

import numpy as np
import pytest

from keras_sagan.metrics import precision_recall
from keras_sagan.metrics.precision_recall import manifold_scores


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
    monkeypatch.setattr(precision_recall, "ROWS", 7)
    assert manifold_scores(real, generated, nearest_k) == expected


@pytest.mark.slow
def test_features_are_not_copied_as_a_whole():
    rng = np.random.default_rng(0)
    real, generated = (rng.normal(size=(1500, 2048)).astype("float32") for _ in range(2))
    tracemalloc.start()
    manifold_scores(real, generated, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # In float64 they take twice as much, and a shifted copy and the distinct ones as much again.
    assert peak < 4 * (real.nbytes + generated.nbytes)


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float16", "float32")])
def test_features_of_any_precision(dtypes):
    real, generated = (samples(40, i).astype(dtype) for i, dtype in enumerate(dtypes))
    expected = by_definition(real.astype(float), generated.astype(float), 3)
    assert manifold_scores(real, generated, 3) == pytest.approx(expected, abs=1e-12)


def test_progress_is_told():
    told = []
    manifold_scores(
        samples(700, 0), samples(600, 1), 3, lambda done, total: told.append((done, total))
    )
    assert told[-1] == (1300, 1300) and len(told) > 2
    assert [done for done, _ in told] == sorted({done for done, _ in told})


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


@pytest.mark.parametrize("shift", [0, 1, 1000])
def test_the_border_is_outside(shift):
    """Radii of 2 end exactly at other samples: `<=` would give 2/3, also of recall."""
    first, second = np.array([[0.0], [2.0], [4.0]]), np.array([[-2.0], [6.0], [19.0]])
    scores = manifold_scores(first + shift, second + shift, 1)
    assert scores == (0.0, 1.0, 0.0, 0.0)
    assert manifold_scores(second + shift, first + shift, 1)[:2] == (1.0, 0.0)


def by_definition(real, generated, k):
    """Each distance from its own difference, and the border outside."""
    among_real, among_generated, across = (
        ((a[:, None] - b) ** 2).sum(axis=-1)
        for a, b in ((real, real), (generated, generated), (real, generated))
    )
    in_real = across < np.sort(among_real, axis=1)[:, k, None]
    in_generated = across < np.sort(among_generated, axis=1)[:, k]
    return (
        in_real.any(axis=0).mean(),
        in_generated.any(axis=1).mean(),
        in_real.sum() / (k * len(generated)),
        in_real.any(axis=1).mean(),
    )


@pytest.mark.parametrize("dim, side", [(1, 81), (3, 5)])
@pytest.mark.parametrize("nearest_k", [1, 4])
def test_many_equal_distances_are_equal_as_in_prdc(dim, side, nearest_k, capsys):
    """Points of a grid: half of all distances occur many times, but no point does."""
    prdc = pytest.importorskip("prdc")
    rng = np.random.default_rng(dim)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * dim), -1).reshape(-1, dim)
    real, generated = np.split(rng.permutation(grid)[:80].astype(float), [45])
    scores = manifold_scores(real, generated, nearest_k)
    assert scores == pytest.approx(by_definition(real, generated, nearest_k), abs=1e-12)
    expected = prdc.compute_prdc(real, generated, nearest_k)
    assert scores._asdict() == pytest.approx(expected, abs=1e-12)
