import keras
import numpy as np
import pytest
from gradients import gradients_of
from keras import ops

from keras_sagan.ops.attention import (
    attention_entropy,
    automatic_chunk_size,
    chunked_spatial_attention,
    spatial_attention,
)


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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_logits_of_half_inputs_are_not_rounded(dtype):
    rng = np.random.default_rng(0)
    query, key = (ops.cast(rng.normal(size=(1, 9, 64)), dtype) for _ in range(2))
    _, scores = spatial_attention(query, key, key)
    query, key = (ops.convert_to_numpy(ops.cast(x, "float32")) for x in (query, key))
    logits = query[0].astype("float64") @ key[0].T
    expected = np.exp(logits - logits.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(ops.convert_to_numpy(scores)[0], expected, rtol=1e-4)


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


def draw(queries=10, keys=6, dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = ((3, queries, 4), (3, keys, 4), (3, keys, 5), (3, queries, 5))
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_in_blocks_it_has_the_same_outputs_and_gradients(size):
    query, key, value, target = draw()

    def whole(*arguments):
        return ops.sum(spatial_attention(*arguments)[0] * ops.convert_to_tensor(target))

    def chunked(*arguments):
        outputs = chunked_spatial_attention(*arguments, size)
        return ops.sum(outputs * ops.convert_to_tensor(target))

    tensors = [ops.convert_to_tensor(x) for x in (query, key, value)]
    expected = ops.convert_to_numpy(spatial_attention(*tensors)[0])
    received = ops.convert_to_numpy(chunked_spatial_attention(*tensors, size))
    np.testing.assert_allclose(received, expected, atol=1e-6)
    for received, expected in zip(
        gradients_of(chunked, query, key, value), gradients_of(whole, query, key, value)
    ):
        np.testing.assert_allclose(received, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_blocks_it_has_the_same_gradients_of_gradients(jit_compile):
    query, key, value, target = draw()
    weights = [0.5 + np.arange(x.size).reshape(x.shape) / x.size for x in (query, key, value)]
    weights = [ops.convert_to_tensor(w.astype("float32")) for w in weights]

    def penalty(function):
        def loss(*arguments):  # It isn't linear, so its gradient depends on the outputs.
            return ops.sum(ops.square(function(*arguments)) * ops.convert_to_tensor(target))

        def squares(*arguments):
            gradients = gradients_of(loss, *arguments, differentiable=True)
            return sum(ops.sum(w * g**2) for w, g in zip(weights, gradients))

        return squares

    expected = gradients_of(penalty(lambda *x: spatial_attention(*x)[0]), query, key, value)
    chunked = penalty(lambda *x: chunked_spatial_attention(*x, 3))
    received = gradients_of(chunked, query, key, value, jit_compile=jit_compile)
    for one, other in zip(received, expected):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_in_blocks_it_keeps_the_dtypes(dtype):
    tensors = [ops.cast(x, dtype) for x in draw()[:3]]
    received = chunked_spatial_attention(*tensors, 4)
    expected = spatial_attention(*tensors)[0]
    assert received.dtype == expected.dtype  # JAX and torch make float32 of float64.
    both = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in (received, expected)]
    np.testing.assert_allclose(*both, atol=1e-6 if dtype == "float64" else 1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_blocks_in_a_graph(jit_compile):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")
    import tensorflow as tf

    query, key, value, target = draw()
    signature = [tf.TensorSpec((None, None, channels)) for channels in (4, 4, 5)]

    def step(function):
        @tf.function(input_signature=signature, jit_compile=jit_compile)
        def run(*arguments):
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                loss = tf.reduce_sum(function(*arguments) * target)
            return tape.gradient(loss, arguments)

        return [x.numpy() for x in run(query, key, value)]

    expected = step(lambda *x: spatial_attention(*x)[0])
    for one, other in zip(step(lambda *x: chunked_spatial_attention(*x, 4)), expected):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.any_backend
def test_the_automatic_size_leaves_small_maps_whole():
    for size in (4, 16, 32, 64):  # The maps of the paper and of all presets.
        assert automatic_chunk_size(size**2, size**2 // 4) is None
    assert automatic_chunk_size(128**2, 64**2) == 256
    assert automatic_chunk_size(None, 64**2) is automatic_chunk_size(128**2, None) is None
    assert automatic_chunk_size(2**20, 2**21) == 1
