import numpy as np
import pytest
from keras import ops

from keras_sagan.ops.attention import attention_entropy, spatial_attention


def test_a_huge_logit_picks_one_key():
    query = ops.convert_to_tensor([[[1000.0]]])
    key = ops.convert_to_tensor([[[0.0], [1.0], [-1.0]]])
    value = ops.convert_to_tensor([[[5.0], [7.0], [9.0]]])
    outputs, scores = spatial_attention(query, key, value)
    np.testing.assert_array_equal(ops.convert_to_numpy(scores), [[[0.0, 1.0, 0.0]]])
    np.testing.assert_array_equal(ops.convert_to_numpy(outputs), [[[7.0]]])


def test_equal_keys_give_the_mean_of_the_values():
    value = np.random.normal(size=(2, 6, 3)).astype("float32")
    outputs, scores = spatial_attention(ops.ones((2, 4, 5)), ops.ones((2, 6, 5)), ops.array(value))
    np.testing.assert_allclose(ops.convert_to_numpy(scores), np.full((2, 4, 6), 1 / 6), rtol=1e-6)
    expected = np.repeat(value.mean(1, keepdims=True), 4, 1)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_inputs_have_a_float32_softmax(dtype):
    query = ops.cast(np.random.normal(size=(1, 16, 8)) * 40, dtype)  # products up to 10^5
    key = ops.cast(np.random.normal(size=(1, 16, 8)) * 40, dtype)
    value = ops.cast(np.random.normal(size=(1, 16, 4)), dtype)
    outputs, scores = spatial_attention(query, key, value)
    assert "float32" in str(scores.dtype) and dtype in str(outputs.dtype)
    np.testing.assert_allclose(ops.convert_to_numpy(scores).sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    "scores, expected",
    [
        (np.full((4, 4), 1 / 16), 1.0),
        (np.eye(1, 16).reshape(4, 4), 0.0),
        (np.diag([0.25] * 4), 0.5),  # log(4) / log(16)
        (np.ones((1, 1)), 1.0),
    ],
)
def test_entropy_by_hand(scores, expected):
    stacked = np.stack([scores, scores]).astype("float32")
    entropy = ops.convert_to_numpy(attention_entropy(stacked))
    assert entropy.shape == (2,)
    np.testing.assert_allclose(entropy, expected, atol=1e-6)
