"""The Fréchet distance against closed forms, scipy, and float64 oracles of another kind."""

import numpy as np
import pytest
import scipy.linalg

from keras_sagan.metrics.features import Moments, compute_moments, covariance, merge_moments
from keras_sagan.metrics.frechet_inception_distance import (
    frechet_distance,
    frechet_distance_of_samples,
)


def samples(count, dim, seed, scale=1.0, shift=0.0):
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dim, dim)) / np.sqrt(dim)
    return generator.normal(size=(count, dim)) @ mixing * scale + shift


def distance_of(first, second):
    first, second = compute_moments(first), compute_moments(second)
    return frechet_distance(first.mean, covariance(first), second.mean, covariance(second))


def oracle(first, second):
    """From the samples alone: no covariance, no eigenvalue, no matrix root."""
    a = (first - first.mean(0)) / np.sqrt(len(first) - 1)
    b = (second - second.mean(0)) / np.sqrt(len(second) - 1)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return np.sum((first.mean(0) - second.mean(0)) ** 2) + (a**2).sum() + (b**2).sum() - 2 * root


def test_two_gaussians_in_one_dimension_by_hand():
    assert frechet_distance([1.0], [[9.0]], [5.0], [[25.0]]) == pytest.approx(16.0 + 4.0, rel=1e-12)


def test_commuting_covariances_have_a_closed_form():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    first, second = np.array([1.0, 4, 9, 16, 25]), np.array([4.0, 1, 0.25, 100, 25])
    expected = np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    result = frechet_distance(
        np.zeros(5), (rotation * first) @ rotation.T, np.zeros(5), (rotation * second) @ rotation.T
    )
    assert result == pytest.approx(expected, rel=1e-12)


def test_equals_scipy_sqrtm():
    first, second = samples(300, 24, 0), samples(250, 24, 1, 1.2, 0.1)
    root = scipy.linalg.sqrtm(np.cov(first.T) @ np.cov(second.T))
    expected = (
        np.sum((first.mean(0) - second.mean(0)) ** 2)
        + np.trace(np.cov(first.T) + np.cov(second.T))
        - 2 * np.trace(np.real(root))
    )
    assert distance_of(first, second) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("counts", [(20, 30), (40, 500), (2, 2), (65, 64)])
def test_fewer_samples_than_dimensions(counts):
    first, second = samples(counts[0], 64, 0), samples(counts[1], 64, 1, 1.1, 0.2)
    assert distance_of(first, second) == pytest.approx(oracle(first, second), rel=1e-9)


@pytest.mark.parametrize("count", [200, 12])
def test_equals_the_symmetric_root(count):
    first, second = samples(count, 24, 0), samples(count, 24, 1, scale=1.3, shift=0.2)
    covs = [np.cov(x, rowvar=False) for x in (first, second)]
    values, vectors = np.linalg.eigh(covs[0])
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    middle = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covs[1] @ root), 0.0)).sum()
    gap = np.sum((first.mean(0) - second.mean(0)) ** 2)
    expected = gap + np.trace(covs[0]) + np.trace(covs[1]) - 2.0 * middle
    assert distance_of(first, second) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance_of_samples(first, second) == pytest.approx(expected, rel=1e-5)


def test_badly_scaled_features_keep_their_digits():
    scales = 10.0 ** np.random.default_rng(3).uniform(-5, 4, size=64)
    first, second = samples(200, 64, 0) * scales, samples(200, 64, 1, 1.1) * scales
    assert distance_of(first, second) == pytest.approx(oracle(first, second), rel=1e-9)


@pytest.mark.parametrize("count", [10, 500])
def test_identical_sets_are_at_distance_zero_and_never_below(count):
    first = samples(count, 64, 0)
    result = distance_of(first, first)
    assert 0.0 <= result < 1e-10 * np.trace(np.cov(first.T))


def test_is_symmetric_and_zero_covariances_are_allowed():
    first, second = samples(20, 32, 0), samples(30, 32, 1, 2.0)
    assert distance_of(first, second) == pytest.approx(distance_of(second, first), rel=1e-10)
    zero = np.zeros((3, 3))
    assert frechet_distance(np.zeros(3), zero, np.ones(3), zero) == 3.0
    assert frechet_distance(np.zeros(3), zero, np.zeros(3), np.eye(3)) == pytest.approx(3.0)


def test_rounding_below_zero_in_a_covariance_is_harmless():
    cov = np.diag([1.0, -1e-17])
    result = frechet_distance([0.0, 0.0], cov, [0.0, 0.0], cov)
    assert np.isfinite(result) and result >= 0.0


def test_moments_equal_numpy():
    features = samples(50, 7, 0, 3.0, 10.0)
    moments = compute_moments(features.astype("float32").tolist())
    assert moments.count == 50 and moments.scatter.dtype == np.float64
    np.testing.assert_allclose(moments.mean, features.mean(0), rtol=1e-6)
    np.testing.assert_allclose(covariance(moments), np.cov(features.T), rtol=1e-5)


def test_merging_pieces_equals_one_pass_over_badly_scaled_features():
    scales = 10.0 ** np.linspace(-6, 6, 16)
    features = (samples(1000, 16, 0) + 1e4) * scales
    merged = None
    for start, stop in ((0, 1), (1, 8), (8, 500), (500, 999), (999, 1000)):
        merged = merge_moments(merged, compute_moments(features[start:stop]))
    whole = compute_moments(features)
    assert merged.count == 1000
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    deviations = np.sqrt(np.diag(whole.scatter))
    error = np.abs(merged.scatter - whole.scatter) / np.outer(deviations, deviations)
    assert error.max() < 1e-10


def test_merging_does_not_change_its_arguments():
    first, second = compute_moments(samples(5, 3, 0)), compute_moments(samples(5, 3, 1))
    before = first.scatter.copy(), second.scatter.copy()
    merge_moments(first, second)
    np.testing.assert_array_equal(first.scatter, before[0])
    np.testing.assert_array_equal(second.scatter, before[1])


@pytest.mark.parametrize("features", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0))])
def test_features_of_the_wrong_shape_are_refused(features):
    with pytest.raises(ValueError, match=r"`features` must have shape .*Received: features.shape"):
        compute_moments(features)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="`features` must be finite.*in 1 of 2 samples"):
        compute_moments([[0.0, bad], [1.0, 1.0]])


def test_merging_different_widths_is_refused():
    with pytest.raises(ValueError, match="`first` and `second` must have features of the same"):
        merge_moments(compute_moments(np.ones((2, 3))), compute_moments(np.ones((2, 4))))


def test_a_covariance_of_one_sample_is_refused():
    with pytest.raises(ValueError, match="`moments` must be of at least 2 .*moments.count=1"):
        covariance(Moments(1, np.zeros(2), np.zeros((2, 2))))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean_1", np.zeros((2, 2))),
        ("mean_1", np.zeros(0)),
        ("cov_1", np.zeros(2)),
        ("mean_2", np.zeros(3)),
        ("cov_2", np.zeros((3, 3))),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, value):
    arguments = {
        "mean_1": np.zeros(2),
        "cov_1": np.eye(2),
        "mean_2": np.zeros(2),
        "cov_2": np.eye(2),
    }
    arguments[name] = value
    with pytest.raises(ValueError, match=rf"`{name}` must have shape .*Received: {name}.shape"):
        frechet_distance(**arguments)


def test_statistics_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="`cov_2` must be finite"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.full((2, 2), np.nan))


@pytest.mark.parametrize("counts", [(500, 300), (20, 30), (65, 64), (40, 500), (64, 64)])
def test_from_samples_the_distance_is_that_of_their_moments(counts):
    first, second = samples(counts[0], 64, 0), samples(counts[1], 64, 1, 1.1, 0.2)
    assert frechet_distance_of_samples(first, second) == pytest.approx(
        oracle(first, second), rel=1e-8
    )


def test_from_samples_two_are_the_least():
    with pytest.raises(ValueError, match="`moments` must be of at least 2 samples"):
        frechet_distance_of_samples([[1.0]], [[1.0], [2.0]])


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_fast_form_is_left_where_it_would_lose_digits(power):
    """Spectra that fall as k^-power: the squared form alone would be off by more than 1e-7."""
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(100, 100)))[0]
    scales = np.arange(1.0, 101.0) ** -power
    first, second = (
        (np.random.default_rng(seed).normal(size=(400, 100)) * scales * factor) @ rotation
        for seed, factor in ((0, 1.0), (1, 1.01))
    )
    assert distance_of(first, second) == pytest.approx(oracle(first, second), rel=1e-7)


def test_grows_with_the_shift_and_does_not_depend_on_the_order():
    first = samples(200, 16, 0)
    distances = [frechet_distance_of_samples(first, first + s) for s in (0, 0.1, 0.2, 0.5)]
    np.testing.assert_allclose(distances, [0, 0.16, 0.64, 4.0], rtol=1e-9, atol=1e-9)
    other = samples(150, 16, 1)
    expected = frechet_distance_of_samples(first, other)
    assert frechet_distance_of_samples(first[::-1], other) == pytest.approx(expected, rel=1e-9)
