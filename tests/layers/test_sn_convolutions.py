"""SNConv1D, SNConv3D and SNConv2DTranspose."""

import numpy as np
import pytest
from keras import layers, ops
from layer_checks import ON_JAX, check_layer

from keras_sagan.layers import SNConv1D, SNConv2DTranspose, SNConv3D

RNG = np.random.default_rng(0)
LAYERS = [
    (SNConv1D, layers.Conv1D, {"filters": 6, "kernel_size": 3, "padding": "causal"}, (2, 5, 4), 2),
    (SNConv3D, layers.Conv3D, {"filters": 4, "kernel_size": (2, 1, 2)}, (2, 3, 3, 3, 2), 4),
    (SNConv2DTranspose, layers.Conv2DTranspose, {"filters": 5, "kernel_size": 3}, (2, 4, 4, 3), 2),
]
each_layer = pytest.mark.parametrize("cls, plain, arguments, shape, axis", LAYERS)


@pytest.mark.slow
@pytest.mark.parametrize("cls, plain, arguments, shape, axis", LAYERS[2 if ON_JAX else 0 :])
def test_layer_contract(cls, plain, arguments, shape, axis, tmp_path):
    inputs = RNG.normal(size=shape).astype("float32")
    check_layer(cls, arguments, (inputs,), tmp_path, 2, 1)


@each_layer
def test_it_is_the_plain_layer_of_a_kernel_divided_by_the_svd_norm(
    cls, plain, arguments, shape, axis
):
    inputs = RNG.normal(size=shape).astype("float32")
    layer = cls(**arguments, strides=2, bias_initializer="ones", activation="tanh")
    outputs = layer(inputs, training=True)
    kernel = ops.convert_to_numpy(layer.kernel)
    matrix = np.moveaxis(kernel, axis, -1).reshape(-1, layer.filters)
    sigma = np.linalg.svd(matrix, compute_uv=False)[0]
    assert float(layer.sigma) == pytest.approx(sigma, rel=1e-3)
    plain = plain(**arguments, strides=2, activation="tanh")
    plain.build(shape)
    plain.set_weights([kernel / sigma, np.ones(layer.filters)])
    expected = ops.convert_to_numpy(plain(inputs))
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, rtol=2e-3, atol=1e-4)


@each_layer
def test_a_call_in_training_moves_vector_u_by_one_power_iteration(
    cls, plain, arguments, shape, axis
):
    inputs = RNG.normal(size=shape).astype("float32")
    layer = cls(**arguments)
    layer.build(shape)
    kernel = RNG.normal(size=layer.kernel.shape).astype("float32")
    layer.kernel.assign(kernel)
    before = ops.convert_to_numpy(layer.vector_u).copy()
    layer.trainable = False
    layer(inputs, training=True)
    layer.trainable = True
    layer(inputs, training=False)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.vector_u), before)
    layer(inputs, training=True)
    matrix = np.moveaxis(kernel, axis, -1).reshape(-1, layer.filters)
    moved = (matrix @ before) @ matrix
    received = ops.convert_to_numpy(layer.vector_u)
    np.testing.assert_allclose(received, moved / np.linalg.norm(moved), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.kernel), kernel)


@pytest.mark.any_backend
def test_arguments_in_the_order_of_keras_and_a_kernel_size_that_does_not_fit():
    layer = SNConv1D(2, 3, 2, "same", power_iterations=3)
    assert (layer.strides, layer.padding, layer.power_iterations) == ((2,), "same", 3)
    for cls, size in ((SNConv1D, (3, 3)), (SNConv3D, (3, 3)), (SNConv2DTranspose, (1, 1, 1))):
        with pytest.raises(ValueError, match=r"`kernel_size` must be a positive integer or"):
            cls(2, size)
    with pytest.raises(ValueError, match="`filters` and `kernel_size` must make a weight of at"):
        SNConv3D(2**20, 3).build((None, 4, 4, 4, 2**10))
