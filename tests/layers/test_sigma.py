import numpy as np
import oracles
import pytest
from gradients import gradients_of
from keras import ops

from keras_sagan.layers.spectral_norm import leading_singular_vector, power_iteration


def test_two_by_two_ones_has_sigma_two():
    sigma, u, v = power_iteration(ops.ones((2, 2)), ops.convert_to_tensor([1.0, 0.0]))
    assert float(sigma) == pytest.approx(2.0, abs=1e-6)
    for vector in (u, v):
        np.testing.assert_allclose(ops.convert_to_numpy(vector), [0.5**0.5, 0.5**0.5], rtol=1e-6)


def test_known_singular_values():
    left, _ = np.linalg.qr(np.random.normal(size=(12, 5)))
    right, _ = np.linalg.qr(np.random.normal(size=(5, 5)))
    matrix = (left * [5.0, 3.0, 2.0, 1.0, 0.5]) @ right.T
    u = ops.convert_to_tensor(np.full(5, 5**-0.5, "float32"))
    sigma, u, _ = power_iteration(ops.convert_to_tensor(matrix.astype("float32")), u, steps=30)
    assert float(sigma) == pytest.approx(5.0, rel=1e-5)
    assert abs(ops.convert_to_numpy(u) @ right[:, 0]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 64), (27, 128), (7, 1)])
def test_svd_after_warm_up_from_a_random_start(shape):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=shape).astype("float32")
    u = rng.normal(size=shape[1]).astype("float32")
    u = ops.convert_to_tensor(u / np.linalg.norm(u))
    sigma, *_ = power_iteration(ops.convert_to_tensor(matrix), u, steps=300)
    assert float(sigma) == pytest.approx(oracles.spectral_norm(matrix), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_scale_does_not_matter(scale):
    matrix = np.random.default_rng(0).normal(size=(9, 4)).astype("float32") * np.float32(scale)
    u = ops.convert_to_tensor([0.5, 0.5, 0.5, 0.5])
    sigma, *_ = power_iteration(ops.convert_to_tensor(matrix), u, steps=100)
    assert float(sigma) == pytest.approx(oracles.spectral_norm(matrix), rel=1e-3)


def test_the_gradient_takes_both_vectors_as_constants():
    matrix, start = np.array([[1.0, 2.0], [3.0, 4.0]], "float32"), [1.0, 0.0]
    (gradient,) = gradients_of(
        lambda matrix: power_iteration(matrix, ops.convert_to_tensor(start))[0], matrix
    )
    v, u = np.array([1.0, 3.0]) / 10**0.5, np.array([10.0, 14.0]) / 296**0.5
    np.testing.assert_allclose(gradient, np.outer(v, u), rtol=1e-5)


def test_zero_matrix_keeps_u_so_that_it_can_recover():
    start = ops.convert_to_tensor([0.6, 0.8])
    sigma, u, _ = power_iteration(ops.zeros((3, 2)), start)
    assert float(sigma) == 0.0
    np.testing.assert_array_equal(ops.convert_to_numpy(u), ops.convert_to_numpy(start))
    sigma, *_ = power_iteration(ops.ones((3, 2)), u, steps=20)
    assert float(sigma) == pytest.approx(6**0.5, rel=1e-5)


SHAPES = [(64, 64), (3, 500), (500, 3), (1, 7), (7, 1), (1152, 128), (150, 3000), (3000, 150)]


@pytest.mark.any_backend
@pytest.mark.slow
@pytest.mark.parametrize(
    "shape, scale", [*((x, 1.0) for x in SHAPES), ((64, 64), 1e-3), ((64, 64), 1e3)]
)
def test_leading_singular_vector_has_the_norm_of_the_svd(shape, scale):
    rng = np.random.default_rng(0)
    matrix = (scale * rng.uniform(-1, 1, shape)).astype("float32")
    u = leading_singular_vector(matrix)
    assert u.shape == shape[1:] and u.dtype == "float32"
    assert np.linalg.norm(u) == pytest.approx(1.0, rel=1e-5)
    small = (matrix if shape[0] < shape[1] else matrix.T).astype("float64")
    expected = np.linalg.eigvalsh(small @ small.T)[-1] ** 0.5
    assert np.linalg.norm(matrix @ u) == pytest.approx(expected, rel=1e-3)


@pytest.mark.any_backend
def test_leading_singular_vector_where_many_are_equal_or_none_is():
    for value in (0.0, np.nan, np.inf):
        u = leading_singular_vector(np.full((3, 2), value, "float32"))
        assert np.linalg.norm(u) == pytest.approx(1.0, rel=1e-6)
    u = leading_singular_vector(np.eye(5, dtype="float32"))
    np.testing.assert_allclose(np.linalg.norm(u), 1.0, rtol=1e-6)
    u = leading_singular_vector(np.ones((4, 4), "float32"))
    np.testing.assert_allclose(np.abs(u), 0.5, rtol=1e-6)
