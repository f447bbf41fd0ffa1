"""The Inception Score against TF-GAN and its bounds."""

import numpy as np
import pytest

from keras_sagan.metrics import load_tfgan_eval
from keras_sagan.metrics.inception_score import inception_score


def logits_of(count, seed=0, scale=3.0):
    return scale * np.random.default_rng(seed).normal(size=(count, 10))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0])
def test_equals_tfgan_in_a_single_pass_and_by_splits(scale):
    tf = pytest.importorskip("tensorflow")
    score = load_tfgan_eval().classifier_metrics.classifier_score_from_logits
    logits = logits_of(103, scale=scale)
    expected = float(score(tf.constant(logits)))
    assert inception_score(logits)[0] == pytest.approx(expected, rel=1e-10)
    bounds = [0, 25, 51, 77, 103]
    parts = [float(score(tf.constant(logits[i:j]))) for i, j in zip(bounds, bounds[1:])]
    np.testing.assert_allclose(inception_score(logits, 4), parts, rtol=1e-10)


def test_lies_between_one_and_the_number_of_classes():
    assert inception_score(np.zeros((7, 10)))[0] == pytest.approx(1.0)
    assert inception_score(1e4 * np.eye(10))[0] == pytest.approx(10.0)
    assert inception_score(np.full((5, 10), [1e4] + [0.0] * 9))[0] == pytest.approx(1.0)


def test_does_not_depend_on_the_order_or_on_a_shift_of_logits():
    logits = logits_of(40)
    expected = inception_score(logits)
    np.testing.assert_allclose(inception_score(logits[::-1] + 1e3), expected, rtol=1e-9)


def test_fewer_samples_than_splits_are_refused():
    with pytest.raises(ValueError, match="`logits` must have at least one .*10 splits.*9 samples"):
        inception_score(logits_of(9), 10)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [0.1, 3.0, 300.0])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_probabilities_are_refused_as_logits_and_score_the_same_when_declared(scale, dtype):
    logits = logits_of(60, scale=scale)
    probabilities = softmax(logits).astype(dtype)
    with pytest.raises(ValueError, match="`from_logits=True`.*without a softmax.*probabilities"):
        inception_score(probabilities)
    found = inception_score(probabilities, 3, from_logits=False)
    rtol = {"float64": 1e-10, "float32": 1e-5, "float16": 1e-2}[dtype]
    np.testing.assert_allclose(found, inception_score(logits, 3), rtol=rtol)


def test_one_hot_rows_are_probabilities():
    assert inception_score(np.eye(10), from_logits=False)[0] == pytest.approx(10.0)
    with pytest.raises(ValueError, match="`from_logits=True`.*Received: probabilities"):
        inception_score(np.eye(10))


@pytest.mark.parametrize("row", [[0.5, 0.2, 0.2], [1.2, -0.1, -0.1], [0.0, 0.0, 0.0]])
def test_one_row_of_logits_tells_that_all_are_logits(row):
    outputs = np.vstack([np.full((20, 3), 1 / 3), [row]])
    assert inception_score(outputs)[0] >= 1.0
    with pytest.raises(ValueError, match=r"`from_logits=False`.*Received: values in \["):
        inception_score(outputs, from_logits=False)


def test_logarithms_of_probabilities_are_logits():
    logits = logits_of(40)
    found = inception_score(np.log(softmax(logits)))
    np.testing.assert_allclose(found, inception_score(logits), rtol=1e-9)
