"""A gradient that isn't that of the operations shows that it is taken."""

import numpy as np
from gradients import gradients_of
from keras import ops

from keras_sagan.ops.gradients import with_gradient

X, Y = np.array([1.0, 2.0], "float32"), np.array([3.0, 5.0], "float32")


def test_of_several_inputs():
    def gradient(inputs, upstream):
        return 7.0 * upstream * inputs[0], upstream * inputs[1]

    function = with_gradient(lambda x, y: x + y, gradient)
    np.testing.assert_array_equal(ops.convert_to_numpy(function(X, Y)), X + Y)
    received = gradients_of(lambda *xy: ops.sum(2.0 * function(*xy)), X, Y)
    np.testing.assert_array_equal(received, [14.0 * X, 2.0 * Y])


def test_of_one_input_it_can_be_differentiated():
    cube = with_gradient(lambda x: x**3, lambda inputs, upstream: 5.0 * upstream * inputs[0] ** 2)

    def squares(x):
        (gradient,) = gradients_of(lambda x: ops.sum(cube(x)), x, differentiable=True)
        return ops.sum(gradient**2)  # 25 x^4, whose gradient is 100 x^3.

    (received,) = gradients_of(squares, X)
    np.testing.assert_allclose(received, 100.0 * X**3, rtol=1e-6)
