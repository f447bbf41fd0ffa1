"""The kernel distance against TF-GAN, a closed form, and a double loop."""

import numpy as np
import pytest

from keras_sagan.metrics import load_tfgan_eval
from keras_sagan.metrics.kernel_inception_distance import kernel_distance


def samples(count, seed, shift=0.0, dim=8):
    return np.random.default_rng(seed).normal(size=(count, dim)) + shift


@pytest.mark.parametrize("counts", [(300, 300), (257, 130), (100, 331), (40, 30)])
def test_equals_tfgan_and_its_standard_error(counts):
    tf = pytest.importorskip("tensorflow")
    first, second = samples(counts[0], 0), samples(counts[1], 1, 0.3)
    function = load_tfgan_eval().classifier_metrics
    expected = function.kernel_classifier_distance_and_std_from_activations(
        tf.constant(first), tf.constant(second), max_block_size=64
    )
    result = kernel_distance(first, second, max_block_size=64)
    np.testing.assert_allclose(result, [float(value) for value in expected], rtol=1e-10)
    assert np.isnan(result[1]) == (max(counts) <= 64)


def test_equals_its_definition_term_by_term():
    first, second = samples(5, 0), samples(4, 1, 0.5)

    def mean(x, y, leave_out):
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if i != j or not leave_out]
        return np.mean([(np.dot(x[i], y[j]) / 8 + 1) ** 3 for i, j in pairs])

    expected = mean(first, first, True) + mean(second, second, True)
    expected -= 2 * mean(first, second, False)
    assert kernel_distance(first, second)[0] == pytest.approx(expected, rel=1e-12)


def test_is_unbiased_for_few_samples():
    """In one dimension, for x ~ N(0, 1) and y ~ N(1, 1), E k(x, y) is a sum of moments."""
    # (xy + 1)³: E = E[x³]E[y³] + 3 E[x²]E[y²] + 3 E[x]E[y] + 1, for independent x and y.
    moments_0, moments_1 = (0.0, 1.0, 0.0), (1.0, 2.0, 4.0)

    def kernel(a, b):
        return a[2] * b[2] + 3 * a[1] * b[1] + 3 * a[0] * b[0] + 1

    expected = kernel(moments_0, moments_0) + kernel(moments_1, moments_1)
    expected -= 2 * kernel(moments_0, moments_1)
    estimates = [
        kernel_distance(samples(6, 2 * i, dim=1), samples(6, 2 * i + 1, 1.0, dim=1))[0]
        for i in range(4000)
    ]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - expected) < 4 * error and error < 0.1 * expected


def test_is_symmetric_and_does_not_depend_on_the_order():
    first, second = samples(50, 0), samples(60, 1, 0.2)
    expected = kernel_distance(first, second)[0]
    assert kernel_distance(second, first)[0] == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(first[::-1], second)[0] == pytest.approx(expected, rel=1e-12)


def test_grows_with_the_shift_and_is_about_zero_without():
    distances = [kernel_distance(samples(400, 0), samples(400, 1, s))[0] for s in (0, 0.3, 0.6, 1)]
    assert distances == sorted(distances) and abs(distances[0]) < 0.05 < distances[1]


@pytest.mark.parametrize("counts", [(1, 5), (5, 1), (300, 3)])
def test_too_few_samples_are_refused(counts):
    with pytest.raises(ValueError, match=rf"`real` and `generated` .*Received: {counts[0]} real"):
        kernel_distance(samples(counts[0], 0), samples(counts[1], 1), max_block_size=64)
