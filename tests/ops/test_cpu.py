"""What exists for TensorFlow on CPUs alone, against the reference forms."""

import keras
import numpy as np
import pytest
from gradients import gradients_of
from keras import ops

from keras_sagan.ops import resampling
from keras_sagan.ops.resampling import convolve_pool, reference_forms, upsample_convolve

if keras.backend.backend() != "tensorflow":
    pytest.skip("for TensorFlow alone", allow_module_level=True)

import tensorflow as tf

from keras_sagan.ops import cpu
from keras_sagan.ops.cpu.winograd import (
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
# The plain form computes squares of 2 x 2 or of 4 x 4.
SIZES = [*(("plain", size) for size in ((4, 6), (8, 4))), ("up", (2, 4)), ("down", (2, 4))]
EDGES = [("plain", (2, 2)), ("plain", (8, 8)), ("up", (4, 6)), ("down", (4, 6))]


def draw(size, dtype="float32"):
    rng = np.random.default_rng(0)
    inputs, kernel = rng.normal(size=(3, *size, 5)), rng.normal(size=(3, 3, 5, 4))
    return inputs.astype(dtype), kernel.astype(dtype)


def assert_close(received, expected, tolerance):
    received, expected = (ops.convert_to_numpy(x) for x in (received, expected))
    assert received.shape == expected.shape
    assert np.abs(received - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, size, dtype",
    [(*x, "float32") for x in (*SIZES, *EDGES)] + [(*x, "float64") for x in SIZES],
)
def test_equals_the_convolution_at_the_border_too(kind, size, dtype):
    winograd, direct = FORMS[kind]
    inputs, kernel = (ops.convert_to_tensor(x) for x in draw(size, dtype))
    assert suits_winograd(inputs, kernel)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    assert_close(winograd(inputs, kernel), direct(inputs, kernel), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("kind, size", SIZES)
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
@pytest.mark.parametrize("height, jit_compile", [(4, False), (8, True)])
@pytest.mark.parametrize("kind", FORMS)
def test_in_a_graph_with_a_batch_of_any_size(kind, height, jit_compile):
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
def test_where_it_is_used(size, channels, filters, resample, expected):
    @tf.function(autograph=False)
    def program(training):
        inputs, kernel = tf.zeros((2, size, size, channels)), tf.zeros((3, 3, channels, filters))
        return resampling.convolve(inputs, kernel, resample, training=training)

    assert uses_fast_forms(program, True) is expected
    assert not uses_fast_forms(program, False)  # In inference nothing is compiled by XLA.


def uses_fast_forms(program, *arguments):
    """Whether functions that XLA compiles are called in a program."""
    parts = program.get_concrete_function(*arguments).graph.as_graph_def().library.function
    return any(part.attr["_XlaMustCompile"].b for part in parts)


def convolve_in_training(**settings):
    arguments = {"dtype": "float32", "shape": (2, 8, 8, 64), "jit_compile": False, **settings}
    dtype, shape, jit_compile = (arguments.pop(k) for k in ("dtype", "shape", "jit_compile"))

    @tf.function(autograph=False, jit_compile=jit_compile)
    def program():
        kernel = tf.zeros((3, 3, 64, 64), dtype)
        return resampling.convolve(tf.zeros(shape, dtype), kernel, training=True, **arguments)

    return program


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "bfloat16"},  # Its sums cancel, which takes more digits.
        {"dtype": "float64"},
        {"strides": 2},
        {"dilation_rate": 2},
        {"padding": "valid"},
        {"shape": (2, 7, 8, 64)},
        {"jit_compile": True},  # XLA compiles the program in any case.
    ],
)
def test_where_it_is_not_used(settings):
    assert uses_fast_forms(convolve_in_training())
    assert not uses_fast_forms(convolve_in_training(**settings))


def test_it_is_not_used_with_a_gpu_or_if_switched_off(monkeypatch):
    with reference_forms():
        assert not uses_fast_forms(convolve_in_training())
    assert uses_fast_forms(convolve_in_training())
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0", "gpu:0"])
    assert not uses_fast_forms(convolve_in_training())


@pytest.mark.parametrize("training", [True, False])
def test_batches_of_any_size(training):
    """An empty one too, in training: TensorFlow's convolution gives it the shape of its inputs."""
    kernel = tf.ones((3, 3, 1, 2))
    sizes = (0, 3) if training else (3,)

    def convolve(x):
        return cpu.apply_to_any_batch(lambda x: ops.conv(x, kernel, 1, "valid"), x, training)

    for function in (
        convolve,
        tf.function(convolve, input_signature=[tf.TensorSpec((None, 5, 5, 1))]),
    ):
        for size in sizes:
            outputs = function(tf.ones((size, 5, 5, 1)))
            np.testing.assert_array_equal(outputs, np.full((size, 3, 3, 2), 9.0))


@pytest.mark.parametrize("size", [(6, 6), (8, 8)])
def test_has_the_same_bits_each_time(size):
    """A sum of three may be added up in another order at each call."""
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
