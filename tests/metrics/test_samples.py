"""What every function on features refuses."""

import numpy as np
import pytest

from keras_sagan.metrics.features import check_features


def test_arrays_come_back_in_float64():
    first, second = check_features(a=np.ones((2, 3), "float16"), b=[[1, 2, 3]])
    assert first.dtype == second.dtype == np.float64 and second.shape == (1, 3)


@pytest.mark.parametrize("value", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0))])
def test_other_shapes_are_refused(value):
    with pytest.raises(ValueError, match=r"`real` must have shape \(num_samples, dim\).*Received"):
        check_features(real=value)


def test_another_width_is_refused():
    with pytest.raises(ValueError, match=r"`generated` must have shape .*, 3\).*shape=\(2, 4\)"):
        check_features(real=np.zeros((2, 3)), generated=np.zeros((2, 4)))


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_the_first_sample_that_is_not_finite_is_named(bad):
    value = np.zeros((5, 2))
    value[3:, 1] = bad
    with pytest.raises(ValueError, match="`logits` must be finite.*in 2 of 5 .*at index 3"):
        check_features(logits=value)
