"""The largest singular value of a matrix: followed from call to call, and found at once."""

import numpy as np
from keras import ops


class StaleNormWarning(UserWarning):
    """A layer divides by a number that isn't the largest singular value of its kernel any more."""


def power_iteration(matrix, u, steps=1, epsilon=1e-12):
    """Estimates the largest singular value of a matrix from a starting vector.

    One step is `v = matrix @ u / (|matrix @ u| + epsilon)` followed by
    `u = v @ matrix / (|v @ matrix| + epsilon)`; then `sigma = v @ matrix @ u`. The gradient of
    `sigma` takes `u` and `v` as constants, so that it is the outer product of the two, which is
    the exact gradient once the iteration has converged. Where the matrix is zero `u` stays as it
    was: a zero vector could never recover.

    Args:
        matrix: Float tensor of shape `(rows, columns)`.
        u: Float tensor of shape `(columns,)` and unit length, the previous estimate of the right
            singular vector.
        steps: Positive integer, the iterations to run.
        epsilon: Float added to each norm before it divides. Defaults to `1e-12`.

    Returns:
        Tuple of the scalar `sigma`, the new `u`, of shape `(columns,)`, and `v`, of shape
        `(rows,)`, in the dtype of `matrix`.

    Example:

    >>> from keras import ops
    >>> sigma, u, v = power_iteration(ops.ones((2, 2)), ops.convert_to_tensor([1.0, 0.0]))
    >>> float(sigma)
    2.0

    Reference:
        [Miyato et al., 2018](https://arxiv.org/abs/1802.05957), algorithm 1. The place of
        `epsilon` is that of the SAGAN authors' code.
    """
    u, constant = ops.stop_gradient(u), ops.stop_gradient(matrix)
    for _ in range(steps):
        v = _normalize(ops.matmul(constant, u), epsilon)
        product = ops.matmul(v, matrix)
        candidate = ops.stop_gradient(product)
        # An inequality of the norm, not of `v`: an underflow in either product counts as zero.
        is_nonzero = _norm(candidate) > epsilon
        u = ops.where(is_nonzero, _normalize(candidate, epsilon), u)
    sigma = ops.sum(product * u)  # v @ matrix @ u
    return sigma, u, v


def leading_singular_vector(matrix):
    """Finds the right singular vector of the largest singular value.

    Takes the best vector of the Krylov space `x, (matrix.T @ matrix) @ x, …` of a random `x`,
    which needs far fewer products than power iterations: the norm of `matrix @ u` is within 1 %
    of the largest singular value, of small matrices within 0.1 %. The same matrix gives the same
    vector.

    Args:
        matrix: Float array of shape `(rows, columns)`.

    Returns:
        Float array of shape `(columns,)` and unit length, in the dtype of `matrix`. Any direction
        where the matrix is zero or not finite.

    Example:

    >>> import numpy as np
    >>> u = leading_singular_vector(np.diag([1.0, 3.0, 2.0]))
    >>> np.abs(u).round(6).tolist()
    [0.0, 1.0, 0.0]

    Reference:
        Golub & Van Loan, Matrix Computations, section 10.1: the Lanczos method.
    """
    start = np.random.default_rng(0).normal(size=(1, matrix.shape[1]))
    basis = (start / np.linalg.norm(start)).astype(matrix.dtype)
    if not np.isfinite(matrix).all():
        return basis[0]
    for _ in range(24 if matrix.size < 2**21 else 12):
        image = (matrix @ basis[-1]) @ matrix
        new = image
        for _ in range(2):  # Once leaves the rounding errors of large parts.
            new = new - (basis @ new) @ basis
        length = np.linalg.norm(new)
        if length <= 1e-5 * np.linalg.norm(image):  # Nothing but rounding errors is left.
            break
        basis = np.concatenate([basis, new[None] / length])
    images = matrix @ basis.T
    u = np.linalg.eigh(images.T @ images)[1][:, -1] @ basis
    return u / np.linalg.norm(u)


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


def _normalize(x, epsilon):
    return x / (_norm(x) + epsilon)
