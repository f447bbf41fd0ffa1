"""Resampling and convolution in one, against numpy that resamples and convolves."""

import keras
import numpy as np
import pytest
from gradients import gradients_of
from keras import ops

from keras_sagan.ops.resampling import convolve_pool, upsample_convolve

RNG = np.random.default_rng(0)
KERNELS = [(3, 3), (1, 1), (5, 3), (1, 3)]
SIZES = [(6, 4), (1, 2), (5, 7)]


def convolve(x, kernel, padding):
    """Convolution in float64 numpy."""
    rows, columns = kernel.shape[:2]
    if padding == "same":
        x = np.pad(x, [(0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)])
    patches = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), axis=(1, 2))
    return np.einsum("bhwcij,ijco->bhwo", patches, kernel)


def upsample(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def pool(x):
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def textbook(kind, x, kernel, padding):
    if kind == "up":
        return convolve(upsample(x), kernel, padding)
    return pool(convolve(x, kernel, padding))


FUSED = {"up": upsample_convolve, "down": convolve_pool}


def draw(size, kernel_size):
    x, kernel = RNG.normal(size=(2, *size, 3)), RNG.normal(size=(*kernel_size, 3, 4))
    return x.astype("float32"), kernel.astype("float32")


@pytest.mark.parametrize("kind", FUSED)
def test_sums_of_a_kernel_are_taken_in_its_own_precision(kind):
    """1 + 2^-9 is 1 in bfloat16, and a sum of two of them isn't 2."""
    kernel = np.zeros((3, 3, 1, 1), "float32")
    kernel[0, 0] = kernel[0, 1] = 1 + 2.0**-9 + 2.0**-10
    kernel[1, 1] = -1.0
    x = ops.cast(np.pad([[1.0]], 2).reshape(1, 5, 5, 1)[:, :4, :4], "bfloat16")
    received = FUSED[kind](x, ops.convert_to_tensor(kernel), "same")
    exact = textbook(kind, ops.convert_to_numpy(ops.cast(x, "float64")), kernel, "same")
    expected = ops.convert_to_numpy(ops.cast(ops.cast(exact, "bfloat16"), "float64"))
    received = ops.convert_to_numpy(ops.cast(received, "float64"))
    np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "size, kernel_size", [*((size, (3, 3)) for size in SIZES), *(((7, 8), x) for x in KERNELS[1:])]
)
@pytest.mark.parametrize("kind", FUSED)
def test_equals_the_two_steps_at_the_border_too(kind, size, kernel_size, padding):
    rows, columns = (2 * n if kind == "up" else n - 1 for n in size)
    if rows < 1 or padding == "valid" and (rows < kernel_size[0] or columns < kernel_size[1]):
        pytest.skip("the map is too small for the kernel and the pooling")
    x, kernel = draw(size, kernel_size)
    expected = textbook(kind, x.astype("float64"), kernel.astype("float64"), padding)
    received = ops.convert_to_numpy(FUSED[kind](x, kernel, padding))
    assert received.shape == expected.shape
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel_size", KERNELS[:2])
@pytest.mark.parametrize("kind", FUSED)
def test_channels_first(kind, kernel_size):
    x, kernel = draw((5, 7), kernel_size)
    turned = x.transpose(0, 3, 1, 2)
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's CPU kernels have no channels_first")
    received = FUSED[kind](turned, kernel, data_format="channels_first")
    expected = textbook(kind, x, kernel, "same")
    received = ops.convert_to_numpy(received).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "kernel_size, padding", [((3, 3), "same"), ((3, 3), "valid"), ((1, 1), "same")]
)
@pytest.mark.parametrize("kind", FUSED)
def test_gradients(kind, kernel_size, padding):
    """The function is linear in each argument: its gradients follow from its values."""
    x, kernel = draw((8, 6), kernel_size)
    shape = textbook(kind, x, kernel, padding).shape
    target = RNG.normal(size=shape).astype("float32")
    gradients = gradients_of(lambda x, k: project(FUSED[kind](x, k, padding), target), x, kernel)
    for index, (argument, gradient) in enumerate(zip((x, kernel), gradients)):
        # d(sum(f(x) * target)) along any direction is sum(f(direction) * target).
        direction = RNG.normal(size=argument.shape)
        arguments = [x.astype("float64"), kernel.astype("float64")]
        arguments[index] = direction
        expected = np.sum(textbook(kind, *arguments, padding) * target)
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(np.sum(gradient * direction) - expected) < 1e-5 * scale


def project(outputs, target):
    return ops.sum(outputs * ops.convert_to_tensor(target))


@pytest.mark.parametrize("kind", FUSED)
def test_half_precision_sums_the_kernel_in_its_own(kind):
    x, kernel = draw((6, 4), (3, 3))
    kernel = np.where(RNG.random(kernel.shape) < 0.5, 1.0 + 2.0**-9, -1.0).astype("float32")
    ones = ops.ones(x.shape, "bfloat16")
    received = FUSED[kind](ones, ops.convert_to_tensor(kernel))
    assert keras.backend.standardize_dtype(received.dtype) == "bfloat16"
    expected = textbook(kind, np.ones(x.shape), kernel.astype("float64"), "same")
    received = ops.convert_to_numpy(ops.cast(received, "float32"))
    np.testing.assert_allclose(received, expected, atol=0.1)
