import numpy as np
import pytest

from keras_sagan.ops.latent import slerp


def test_on_the_unit_circle_the_angle_goes_evenly():
    points = slerp([1.0, 0.0], [np.cos(2.0), np.sin(2.0)], np.linspace(0, 1, 5))
    np.testing.assert_allclose(np.arctan2(points[:, 1], points[:, 0]), [0, 0.5, 1, 1.5, 2], 1e-6)
    assert points.dtype == np.float32


def test_ends_are_exact_and_lengths_go_evenly():
    start, end = np.random.default_rng(0).standard_normal((2, 128)).astype("float32")
    points = slerp(start, end, [0.0, 0.25, 1.0])
    np.testing.assert_allclose(points[[0, 2]], [start, end], rtol=1e-6)
    lengths = np.linalg.norm([start, end], axis=1)
    assert np.linalg.norm(points[1]) == pytest.approx(0.75 * lengths[0] + 0.25 * lengths[1])


@pytest.mark.parametrize("end", [[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
def test_without_one_arc_it_is_a_line(end):
    points = slerp([1.0, 0.0], end, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(points[:, 0], [1.0, (1.0 + end[0]) / 2, end[0]], atol=1e-6)
