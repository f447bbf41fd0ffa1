"""The extrapolated Fréchet distance, where the true one is known."""

import numpy as np
import pytest

from keras_sagan.metrics.frechet_inception_distance import (
    compute_moments,
    covariance,
    frechet_distance,
)
from keras_sagan.metrics.frechet_inception_distance_infinity import frechet_distance_infinity

DIM = 8


def test_comes_nearer_to_the_true_distance_than_the_whole_set_does():
    true = DIM * 0.1**2
    plain, infinite = [], []
    for seed in range(8):
        generated = np.random.default_rng(seed).normal(size=(400, DIM)) + 0.1
        moments = compute_moments(generated)
        arguments = (np.zeros(DIM), np.eye(DIM))
        plain.append(frechet_distance(*arguments, moments.mean, covariance(moments)))
        infinite.append(frechet_distance_infinity(*arguments, generated, seed=seed)[0])
    assert np.mean(plain) > 1.3 * true
    assert abs(np.mean(infinite) - true) < 0.5 * abs(np.mean(plain) - true)


def test_the_line_and_its_points():
    generated = np.random.default_rng(0).normal(size=(200, DIM))
    intercept, slope, counts, distances = frechet_distance_infinity(
        np.zeros(DIM), np.eye(DIM), generated, num_points=5
    )
    assert counts.tolist() == [20, 65, 110, 155, 200] and slope > 0
    moments = compute_moments(generated)
    whole = frechet_distance(np.zeros(DIM), np.eye(DIM), moments.mean, covariance(moments))
    assert distances[-1] == pytest.approx(whole, rel=1e-9)
    residual = distances - (intercept + slope / counts)
    assert abs(residual.sum()) < 1e-9 and abs((residual / counts).sum()) < 1e-9
    again = frechet_distance_infinity(np.zeros(DIM), np.eye(DIM), generated, num_points=5)
    assert again[0] == intercept


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="`generated` must have at least 20 .*Received: 19"):
        frechet_distance_infinity(np.zeros(2), np.eye(2), np.zeros((19, 2)))
