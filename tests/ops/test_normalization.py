"""Moments and affine maps against numpy, and their gradients against those of plain operations."""

import keras
import numpy as np
import pytest
from gradients import gradients_of
from keras import ops

from keras_sagan.ops.normalization import (
    matching_momentum,
    moments,
    ramped_momentum,
    scale_and_shift,
)

AXES = [0, 1, 2]


def draw(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def plain_moments(x):
    mean = ops.mean(x, AXES)
    return ops.stack([mean, ops.mean(ops.square(x - mean), AXES)])


def weighted(function, shape):
    """A scalar of a function's outputs."""
    (weights,) = draw(shape)
    return lambda *x: ops.sum(function(*x) ** 2 * ops.convert_to_tensor(weights))


def squared_gradients(function):
    return lambda *x: sum(
        ops.sum(each**2) for each in gradients_of(function, *x, differentiable=True)
    )


def assert_close(received, expected):
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())


@pytest.mark.parametrize("mean, tolerance", [(0.0, 1e-6), (1000.0, 1e-4)])
def test_moments_are_those_of_numpy(mean, tolerance):
    x = draw((6, 4, 5, 3))[0] + np.float32(mean)
    received = ops.convert_to_numpy(moments(ops.convert_to_tensor(x), AXES))
    exact = x.astype("float64")
    np.testing.assert_allclose(received[0], exact.mean((0, 1, 2)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(received[1], exact.var((0, 1, 2)), rtol=tolerance)


@pytest.mark.parametrize("of", [lambda f: f, squared_gradients], ids=["first", "second"])
def test_gradients_of_moments(of):
    x = draw((6, 4, 5, 3))
    functions = (lambda x: moments(x, AXES), plain_moments)
    assert_close(*(gradients_of(of(weighted(f, (2, 3))), *x) for f in functions))


@pytest.mark.parametrize("of", [lambda f: f, squared_gradients], ids=["first", "second"])
@pytest.mark.parametrize("shape", [(6, 1, 1, 3), (1, 1, 1, 3)])
def test_gradients_of_scale_and_shift(shape, of):
    arrays = draw((6, 4, 5, 3), shape, shape)
    functions = (scale_and_shift, lambda x, scale, shift: x * scale + shift)
    assert_close(*(gradients_of(of(weighted(f, (6, 4, 5, 3))), *arrays) for f in functions))
    outputs = [ops.convert_to_numpy(f(*map(ops.convert_to_tensor, arrays))) for f in functions]
    np.testing.assert_allclose(*outputs, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about tf.function")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_in_a_graph_with_a_batch_of_any_size(jit_compile):
    import tensorflow as tf

    def step(function):
        @tf.function(input_signature=[tf.TensorSpec((None, 4, 5, 3))], jit_compile=jit_compile)
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = weighted(function, (2, 3))(x)
            return tape.gradient(loss, x)

        return run

    ours, plain = step(lambda x: moments(x, AXES)), step(plain_moments)
    for batch in (1, 6):
        (x,) = draw((batch, 4, 5, 3))
        assert_close([ours(x).numpy()], [plain(x).numpy()])


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


@pytest.mark.parametrize("momentum, inner", [(0.99, 0.9), (0.9, 0.9), (0.5, 0.99), (0.0, 0.0)])
def test_matching_momentum(momentum, inner):
    """An average of an average is as old as an average of the values, where it can be."""

    def average(values, kept):
        for index in range(1, len(values)):
            values[index] = kept * values[index - 1] + (1.0 - kept) * values[index]
        return values

    kept = ops.convert_to_numpy(matching_momentum(ops.convert_to_tensor(momentum), inner))
    times = np.arange(5000.0)  # The value at a time is the time: what is missing is the age.
    age = 4999.0 - average(average(times.copy(), inner), float(kept))[-1]
    ages = [4999.0 - average(times.copy(), x)[-1] for x in (momentum, inner)]
    assert age == pytest.approx(max(ages), rel=1e-3)
