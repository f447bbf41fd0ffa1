"""Spectral normalization: sigma, the layers' mixin, and the norms of a whole model."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_sagan.checks import (
    MAX_COUNT,
    check_boolean,
    check_float,
    check_integer,
    known_values,
)
from keras_sagan.ops.programs import outside_programs


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


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


def _normalize(x, epsilon):
    return x / (_norm(x) + epsilon)


class SpectralNormMixin:
    """Divides the kernel of a Keras layer by its largest singular value, in the forward pass.

    A mixin for layers that keep their weight matrix under the name `kernel` or `embeddings`, last
    axis = outputs. The stored weight is never written by a forward pass; `vector_u` is the state
    of the power iteration. It starts converged, and moves with `training=True` only, unless the
    layer is frozen. At inference the same iteration runs from the stored `vector_u` and is not
    kept.
    """

    def _set_spectral_norm(self, power_iterations, epsilon, equality_constrained):
        self.power_iterations = check_integer(
            "power_iterations", power_iterations, maximum=MAX_COUNT
        )
        self.epsilon = check_float("epsilon", epsilon, above=0)
        self.equality_constrained = check_boolean("equality_constrained", equality_constrained)

    def add_weight(self, *args, name=None, **kwargs):
        # What is divided, and the bias, are used in their own precision.
        if name in ("kernel", "embeddings", "bias"):
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    def build(self, input_shape=None):
        if self.built:
            return
        self._check_build(input_shape)
        with outside_programs():  # `vector_u` starts from the values of the weight.
            super().build(input_shape)
            self.vector_u = self.add_weight(
                name="vector_u",
                shape=(self._raw_weight().shape[-1],),
                initializer=self._initial_vector_u,
                dtype="float32",
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
            )

    def _initial_vector_u(self, shape, dtype=None):
        weight = known_values(self._wide_weight())
        if weight is None:  # A program is being traced for its shapes.
            return ops.full(shape, shape[0] ** -0.5, dtype)
        return ops.convert_to_tensor(leading_singular_vector(_as_matrix(weight)), dtype)

    def _raw_weight(self):
        return self.embeddings if hasattr(self, "embeddings_initializer") else self.kernel

    def _wide_weight(self):
        weight = ops.convert_to_tensor(self._raw_weight())
        return ops.cast(weight, keras.backend.result_type(weight.dtype, "float32"))

    def _singular_triple(self):
        weight = self._wide_weight()
        matrix = ops.reshape(weight, (-1, weight.shape[-1]))
        u = ops.cast(self.vector_u, weight.dtype)
        return power_iteration(matrix, u, self.power_iterations, self.epsilon)

    @property
    def sigma(self):
        """Scalar tensor: the current estimate of the largest singular value. Moves no state."""
        return self._singular_triple()[0]

    def normalized_weight(self, training=False, dtype=None):
        """Returns the weight divided by its spectral norm.

        Args:
            training: Boolean. With `True`, `vector_u` is advanced, unless the layer is frozen.
                Defaults to `False`.
            dtype: String, the dtype to return it in; `None` for the layer's compute dtype.

        Returns:
            Tensor of the shape of the weight. A weight of zeros is returned as it is.
        """
        sigma, u, _ = self._singular_triple()
        divides = sigma > (self.epsilon if self.equality_constrained else 1.0)
        divisor = ops.where(divides, sigma, ops.ones_like(sigma))
        # A product: the gradient of a quotient goes through the weight three times more.
        weight = self._wide_weight() * (1.0 / divisor)
        if training and self.trainable:
            self.vector_u.assign(u)
        return ops.cast(weight, dtype or self.compute_dtype)

    def quantize(self, *args, **kwargs):
        raise ValueError(
            f"{type(self).__name__} can't be quantized: its kernel is normalized anew in every "
            "call. Copy `normalized_weight()` into the plain Keras layer and quantize that. "
            f"Received: quantize{args}"
        )

    def enable_lora(self, *args, **kwargs):
        raise ValueError(
            f"{type(self).__name__} can't be adapted by LoRA (`lora_rank`): the sum of both would "
            "be normalized anew in every call. Copy `normalized_weight()` into the plain Keras "
            f"layer and adapt that. Received: enable_lora{args}"
        )

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.built:
            store["vector_u"] = self.vector_u

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if self.built:
            self.vector_u.assign(store["vector_u"])

    def get_config(self):
        return {
            **super().get_config(),
            "power_iterations": self.power_iterations,
            "epsilon": self.epsilon,
            "equality_constrained": self.equality_constrained,
        }


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


def spectral_norms(model, normalized_only=True):
    """Returns the largest singular value of a model's kernels, as they are stored.

    Of a spectrally normalized kernel it is the layer's own estimate `sigma`, by which the layer
    divides; of any other one the exact value. A warning names the layers whose estimate is more
    than 10 % off.

    Args:
        model: A Keras model; nested ones are searched too.
        normalized_only: Boolean. `False` adds the kernels and embeddings of all other layers.
            Defaults to `True`.

    Returns:
        Dictionary from the path of a kernel without its last part, such as
        `"attention_16/query"`, to a float.

    Example:

    >>> import keras
    >>> from keras_sagan import SNDense
    >>> dense = SNDense(2, kernel_initializer="ones", name="dense")
    >>> round(spectral_norms(keras.Sequential([keras.Input((2,)), dense]))["dense"], 6)
    2.0
    """
    normalized_only = check_boolean("normalized_only", normalized_only)
    norms, stale = {}, []

    def add(weight, norm):
        path = weight.path.removeprefix(f"{model.name}/").rpartition("/")[0]
        norms[path] = norm
        return path

    for layer in model._flatten_layers():
        if isinstance(layer, SpectralNormMixin):
            if layer.built:
                sigma = float(ops.convert_to_numpy(layer.sigma))
                exact = _close_norm(layer._raw_weight())
                path = add(layer._raw_weight(), sigma)
                if abs(sigma - exact) > 0.1 * exact:
                    stale.append(f"`{path}` by {sigma:.4g} where it is {exact:.4g}")
        elif not normalized_only:
            for name in ("kernel", "embeddings"):
                weight = getattr(layer, name, None)
                if isinstance(weight, keras.Variable) and len(weight.shape) > 1:
                    add(weight, _exact_norm(weight))
    if stale:
        warnings.warn(
            "These layers divide by a number that is more than 10 % off the largest singular "
            f"value of their kernel: {', '.join(stale)}. Their `vector_u` moves only in calls with "
            "`training=True`: pass that in every training step of your own loop. If you do, the "
            "kernels change too fast: lower the learning rate, or raise `power_iterations`.",
            StaleNormWarning,
            stacklevel=2,
        )
    return norms


def _as_matrix(weight):
    return weight.reshape(-1, weight.shape[-1])


def _close_norm(weight):
    """The largest singular value within 1 %: of large kernels the exact one takes seconds."""
    matrix = _as_matrix(ops.convert_to_numpy(ops.cast(weight, "float32")))
    if not np.isfinite(matrix).all():
        return float("nan")
    return float(np.linalg.norm(matrix @ leading_singular_vector(matrix)))


def _exact_norm(weight):
    matrix = _as_matrix(ops.convert_to_numpy(ops.cast(weight, "float32"))).astype("float64")
    if not np.isfinite(matrix).all():
        return float("nan")
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows < columns else matrix.T @ matrix
    return float(np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0.0)))
