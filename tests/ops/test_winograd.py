"""Convolutions by fewer products against the convolutions they stand for."""

import keras
import numpy as np
import pytest
from gradients import gradients_of
from keras import ops

from keras_sagan.ops.resampling import convolve_pool, upsample_convolve
from keras_sagan.ops.winograd import (
    is_winograd_faster,
    suits_winograd,
    winograd_convolve,
    winograd_convolve_pool,
    winograd_upsample_convolve,
)


def convolve(inputs, kernel):
    return ops.conv(inputs, kernel, 1, "same", "channels_last")


FORMS = {
    "plain": (winograd_convolve, convolve),
    "up": (winograd_upsample_convolve, upsample_convolve),
    "down": (winograd_convolve_pool, convolve_pool),
}
# On the other backends, which compile each size for seconds and don't use the forms, one will do.
SIZES = [(4, 6), (8, 4)]  # In squares of 2 x 2 and of 4 x 4.
SIZES_OF_GRADIENTS = SIZES[1:]
if keras.backend.backend() == "tensorflow":
    SIZES_OF_GRADIENTS = [(2, 4), *SIZES]
    SIZES += [(2, 2), (8, 8)]


def draw(size, dtype="float32"):
    rng = np.random.default_rng(0)
    inputs, kernel = rng.normal(size=(3, *size, 5)), rng.normal(size=(3, 3, 5, 4))
    return inputs.astype(dtype), kernel.astype(dtype)


def assert_close(received, expected, tolerance):
    received, expected = (ops.convert_to_numpy(x) for x in (received, expected))
    assert received.shape == expected.shape
    assert np.abs(received - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-13)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", FORMS)
def test_equals_the_convolution_at_the_border_too(kind, size, dtype, tolerance):
    if dtype == "float64" and keras.backend.backend() != "tensorflow":
        pytest.skip("JAX, and Keras's product of matrices on torch, compute in float32")
    winograd, direct = FORMS[kind]
    inputs, kernel = (ops.convert_to_tensor(x) for x in draw(size, dtype))
    assert suits_winograd(inputs, kernel)
    assert_close(winograd(inputs, kernel), direct(inputs, kernel), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES_OF_GRADIENTS[-2:])
@pytest.mark.parametrize("kind", FORMS)
def test_gradients_are_those_of_the_convolution(kind, size):
    arrays = draw(size)
    shape = FORMS[kind][1](*map(ops.convert_to_tensor, arrays)).shape
    upstream = ops.convert_to_tensor(np.random.default_rng(1).normal(size=shape).astype("float32"))
    received, expected = (
        gradients_of(lambda x, kernel, f=f: ops.sum(f(x, kernel) * upstream), *arrays)
        for f in FORMS[kind]
    )
    for ours, theirs in zip(received, expected):
        assert_close(ours, theirs, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES_OF_GRADIENTS[::2])
@pytest.mark.parametrize("kind", FORMS)
def test_gradients_of_gradients(kind, size):
    """As a gradient penalty takes them."""

    def penalty(function, *arrays):
        def slope(x, kernel):
            return ops.sum(function(x, kernel) ** 2)

        def total(x, kernel):
            found = gradients_of(slope, x, kernel, differentiable=True)
            return sum(ops.sum(each**2) for each in found)

        return gradients_of(total, *arrays)

    arrays = draw(size)
    for ours, theirs in zip(*(penalty(function, *arrays) for function in FORMS[kind])):
        assert_close(ours, theirs, 1e-4)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about tf.function")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("height", [4, 8])
@pytest.mark.parametrize("kind", FORMS)
def test_in_a_graph_with_a_batch_of_any_size(kind, height, jit_compile):
    import tensorflow as tf

    winograd, direct = FORMS[kind]
    inputs, kernel = draw((height, 4))
    signature = [tf.TensorSpec((None, height, 4, 5)), tf.TensorSpec((3, 3, 5, 4))]
    function = tf.function(winograd, input_signature=signature, jit_compile=jit_compile)
    for batch in (1, 3):
        assert_close(function(inputs[:batch], kernel), direct(inputs[:batch], kernel), 1e-5)


@pytest.mark.parametrize(
    "inputs_shape, kernel_shape",
    [
        ((1, 5, 4, 8), (3, 3, 8, 8)),  # an odd side
        ((1, None, 4, 8), (3, 3, 8, 8)),  # an unknown one
        ((1, 4, 4, 8), (1, 1, 8, 8)),
        ((1, 4, 4, 8), (3, 5, 8, 8)),
    ],
)
def test_what_it_has_no_form_for(inputs_shape, kernel_shape):
    assert not suits_winograd(keras.KerasTensor(inputs_shape), keras.KerasTensor(kernel_shape))


@pytest.mark.parametrize(
    "size, channels, filters, resample, expected",
    [
        (8, 64, 64, None, True),
        (8, 32, 32, None, False),
        (4, 64, 64, None, False),
        (4, 128, 128, None, True),
        (6, 128, 128, None, True),
        (4, 64, 32, "up", False),
        (4, 64, 64, "up", True),
        (8, 48, 48, None, False),
        (4, 64, 64, "down", True),
        (4, 32, 32, "down", False),
        (8, 512, 3, None, False),
    ],
)
def test_where_it_is_faster(size, channels, filters, resample, expected):
    inputs = keras.KerasTensor((2, size, size, channels))
    kernel = keras.KerasTensor((3, 3, channels, filters))
    assert is_winograd_faster(inputs, kernel, resample) is expected


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow's rewrites")
@pytest.mark.parametrize("size", [(6, 6), (8, 8)])
def test_has_the_same_bits_each_time(size):
    """A sum of three may be added up in another order at each call."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=(8, *size, 64)), "float32")
    kernel = tf.constant(rng.normal(size=(3, 3, 64, 64)), "float32")
    function = tf.function(winograd_convolve)
    first = function(inputs, kernel).numpy()
    assert all(np.array_equal(function(inputs, kernel).numpy(), first) for _ in range(40))


def test_squares_of_four_keep_ten_times_the_rounding_of_the_convolution():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(4, 8, 8, 256)).astype("float32")
    kernel = rng.normal(size=(3, 3, 256, 32)).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(inputs.astype("float64"), [(0, 0), (1, 1), (1, 1), (0, 0)]), (3, 3), (1, 2)
    )
    exact = np.einsum("bhwcij,ijcf->bhwf", windows, kernel.astype("float64"))
    direct, squares = (
        np.abs(ops.convert_to_numpy(f(*map(ops.convert_to_tensor, (inputs, kernel)))) - exact).max()
        for f in (convolve, winograd_convolve)
    )
    assert direct < squares < 5e-6 * np.abs(exact).max()
