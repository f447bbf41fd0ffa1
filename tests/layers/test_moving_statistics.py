"""How much of a moving average is kept, against numpy."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sagan.layers.conditional_batch_norm import ramped_momentum


@pytest.mark.parametrize(
    "momentum, updates, kept",
    [
        *((0.999, 0, 0.0), (0.999, 1, 1 / 2), (0.999, 2, 2 / 3), (0.999, 9, 0.9)),
        *((0.999, 399, 0.9), (0.999, 799, 0.95), (0.999, 19_999, 0.998), (0.999, 39_999, 0.999)),
        *((0.999, 90_000, 0.999), (0.999, 2**30, 0.999), (0.9999, 399_999, 0.9999)),
        *((0.9, 1, 1 / 2), (0.9, 50, 0.9), (0.75, 2, 2 / 3), (0.75, 3, 0.75), (0.75, 100, 0.75)),
        *((0.0, 0, 0.0), (0.0, 100, 0.0), (1.0, 0, 1.0), (1, 100, 1.0)),
    ],
)
def test_ramped_momentum(momentum, updates, kept):
    received = ramped_momentum(momentum, ops.convert_to_tensor(updates, "int32"))
    assert keras.backend.standardize_dtype(received.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(received), kept, rtol=1e-6)
