import keras
import numpy as np
import pytest

from keras_sagan.checks import check_labels


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_good_labels_pass(dtype):
    assert tuple(check_labels(np.arange(10).astype(dtype), 10).shape) == (10,)
    assert tuple(check_labels([0, 9], 10).shape) == (2,)
    assert tuple(check_labels(np.zeros((0,), "int32"), 10).shape) == (0,)


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 10], r"`labels` must lie in \[0, 10\).*Received: labels with 10"),
        ([-1, 3], r"`labels` must lie in \[0, 10\).*Received: labels with -1"),
        (np.array(["a"]), r"`labels` must be integer class ids.*Received: labels"),
        ([0.0, 1.0], r"`labels` must be integer class ids.*Received: labels of dtype float"),
        (np.eye(10), r"`labels` must be integer.*one-hot.*Received: labels of dtype float"),
        (np.eye(10, dtype="int32"), r"shape \(batch,\).*Received: labels of shape \(10, 10\)"),
        (np.zeros((4, 1), "int32"), r"shape \(batch,\).*Received: labels of shape \(4, 1\)"),
        (3, r"shape \(batch,\).*Received: labels of shape \(\)"),
    ],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, 10)


def test_symbolic_labels_are_checked_for_rank_and_dtype():
    check_labels(keras.KerasTensor((None,), "int32"), 10)
    with pytest.raises(ValueError, match="integer"):
        check_labels(keras.KerasTensor((None,), "float32"), 10)
    with pytest.raises(ValueError, match="shape"):
        check_labels(keras.KerasTensor((None, 10), "int32"), 10)
