"""Spectral normalization: power iteration, a mixin for layers, and `spectral_norms`."""

import warnings

import keras
import numpy as np
from keras import KerasTensor, ops

from keras_sagan.checks import (
    MAX_COUNT,
    check_boolean,
    check_float,
    check_integer,
    known_values,
)
from keras_sagan.ops.programs import outside_programs
from keras_sagan.private_keras import layers_of


class StaleNormWarning(UserWarning):
    """A layer's `sigma` has fallen behind the largest singular value of its kernel."""


def power_iteration(matrix, u, steps=1, epsilon=1e-12):
    """Estimates the largest singular value of a matrix; returns `sigma`, `u` and `v`.

    One step, from a unit vector `u`, is `v = matrix @ u / (|matrix @ u| + epsilon)` followed by
    `u = v @ matrix / (|v @ matrix| + epsilon)`; then `sigma = v @ matrix @ u`. The gradient treats
    `u` and `v` as constants, which is exact once the iteration has converged. If the matrix is
    zero, `u` is unchanged, since the iteration could never recover from `u = 0`. Reference:
    [Miyato et al., 2018](https://arxiv.org/abs/1802.05957), algorithm 1, with the `epsilon` of the
    SAGAN authors' code.
    """
    u, constant = ops.stop_gradient(u), ops.stop_gradient(matrix)
    for _ in range(steps):
        v = ops.matmul(constant, u)
        v = v / (_norm(v) + epsilon)
        product = ops.matmul(v, matrix)
        candidate = ops.stop_gradient(product)
        norm = _norm(candidate)  # This is 0 if either product underflows.
        u = ops.where(norm > epsilon, candidate / (norm + epsilon), u)
    return ops.sum(product * u), u, v


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


class SpectralNormMixin:
    """Divides the kernel of a Keras layer by its largest singular value in the forward pass.

    The layer's weight must be called `kernel` or `embeddings`, with the outputs on the last axis.
    The forward pass never changes this weight. `vector_u`, the state of the power iteration, is
    initialized to its converged value. Only calls with `training=True` update it, and only if the
    layer isn't frozen. At inference, the same iteration starts from `vector_u`, but its result
    isn't stored.
    """

    def _set_spectral_norm(self, power_iterations, epsilon, equality_constrained):
        self.power_iterations = check_integer(
            "power_iterations", power_iterations, maximum=MAX_COUNT
        )
        self.epsilon = check_float("epsilon", epsilon, above=0)
        self.equality_constrained = check_boolean("equality_constrained", equality_constrained)

    def add_weight(self, *args, name=None, **kwargs):
        if name in ("kernel", "embeddings", "bias"):
            kwargs["autocast"] = False  # Divide and add in the weight's own precision.
        return super().add_weight(*args, name=name, **kwargs)

    def build(self, input_shape: tuple | None = None) -> None:
        if self.built:
            return
        self._check_build(input_shape)
        with outside_programs():  # The initial `vector_u` depends on the values of the weight.
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
        if weight is None:  # Keras is tracing to infer shapes, and the weight has no value.
            return ops.full(shape, shape[0] ** -0.5, dtype)
        return ops.convert_to_tensor(leading_singular_vector(_as_matrix(weight)), dtype)

    def _raw_weight(self):
        return self.embeddings if hasattr(self, "embeddings_initializer") else self.kernel

    def _wide_weight(self):
        weight = ops.convert_to_tensor(self._raw_weight())
        return ops.cast(weight, keras.backend.result_type(weight.dtype, "float32"))

    def _sigma_and_u(self, weight):
        matrix = ops.reshape(weight, (-1, weight.shape[-1]))
        u = ops.cast(self.vector_u, weight.dtype)
        return power_iteration(matrix, u, self.power_iterations, self.epsilon)[:2]

    @property
    def sigma(self) -> KerasTensor:
        """Scalar tensor, the current estimate of the kernel's largest singular value."""
        return self._sigma_and_u(self._wide_weight())[0]

    def normalized_weight(self, training: bool = False, dtype: str | None = None) -> KerasTensor:
        """Returns the weight divided by its spectral norm; a weight of zeros is unchanged.

        `training` updates `vector_u`, unless the layer is frozen. `dtype=None` is the compute
        dtype.
        """
        weight = self._wide_weight()
        sigma, u = self._sigma_and_u(weight)
        divides = sigma > (self.epsilon if self.equality_constrained else 1.0)
        divisor = ops.where(divides, sigma, ops.ones_like(sigma))
        # Don't divide by `divisor`: the gradient would read the weight three more times.
        weight = weight * (1.0 / divisor)
        if training and self.trainable:
            self.vector_u.assign(u)
        return ops.cast(weight, dtype or self.compute_dtype)

    def quantize(self, *args, **kwargs):
        self._refuse("quantized", "quantize", args)

    def enable_lora(self, *args, **kwargs):
        self._refuse("adapted by LoRA (`lora_rank`)", "enable_lora", args)

    def _refuse(self, verb, method, args):
        raise ValueError(
            f"{type(self).__name__} can't be {verb}, as every call normalizes its kernel again. "
            "Copy `normalized_weight()` into the plain Keras layer and use that. "
            f"Received: {method}{args}"
        )

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.built:
            store["vector_u"] = self.vector_u

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if self.built:
            self.vector_u.assign(store["vector_u"])

    def get_config(self) -> dict:
        names = ("power_iterations", "epsilon", "equality_constrained")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def leading_singular_vector(matrix):
    """Returns the right singular vector of the largest singular value, deterministically.

    It is the best vector in the Krylov space `x, (matrix.T @ matrix) @ x, …` of a random `x`, and
    needs far fewer matrix products than power iteration: `|matrix @ u|` is within 1 % of the
    largest singular value (0.1 % for small matrices). For a matrix that is zero or not finite, the
    result is an arbitrary unit vector. Reference: Golub & Van Loan, Matrix Computations, section
    10.1 (Lanczos).
    """
    start = np.random.default_rng(0).normal(size=(1, matrix.shape[1]))
    basis = (start / np.linalg.norm(start)).astype(matrix.dtype)
    if not np.isfinite(matrix).all():
        return basis[0]
    for _ in range(24 if matrix.size < 2**21 else 12):
        image = (matrix @ basis[-1]) @ matrix
        new = image
        for _ in range(2):  # The second pass removes the rounding errors of the first.
            new = new - (basis @ new) @ basis
        length = np.linalg.norm(new)
        if length <= 1e-5 * np.linalg.norm(image):  # Only rounding errors are left.
            break
        basis = np.concatenate([basis, new[None] / length])
    images = matrix @ basis.T
    u = np.linalg.eigh(images.T @ images)[1][:, -1] @ basis
    return u / np.linalg.norm(u)


def spectral_norms(model: keras.Model, normalized_only: bool = True) -> dict[str, float]:
    """Returns the largest singular value of each stored kernel of a model.

    For a spectrally normalized kernel, this is `sigma`, the estimate that the layer divides by. A
    warning lists the layers whose estimate is more than 10 % off. Other values are exact.

    Args:
        model: A Keras model. Nested models are searched too.
        normalized_only: Boolean. `False` includes the kernels and embeddings of all other layers.

    Returns:
        Dictionary from the path of a kernel without its last part, such as `"attention_16/query"`,
        to a float.

    Example:
    >>> import keras
    >>> from keras_sagan import SNDense
    >>> dense = SNDense(2, kernel_initializer="ones", name="dense")
    >>> round(spectral_norms(keras.Sequential([keras.Input((2,)), dense]))["dense"], 6)
    2.0
    """
    normalized_only = check_boolean("normalized_only", normalized_only)
    norms, stale = {}, []
    for layer in layers_of(model):
        if isinstance(layer, SpectralNormMixin):
            weights = [layer._raw_weight()] if layer.built else []
        elif normalized_only:
            continue
        else:
            weights = [getattr(layer, name, None) for name in ("kernel", "embeddings")]
        for weight in weights:
            if not isinstance(weight, keras.Variable) or len(weight.shape) < 2:
                continue
            path = weight.path.removeprefix(f"{model.name}/").rpartition("/")[0]
            if not isinstance(layer, SpectralNormMixin):
                norms[path] = _largest_singular_value(weight)
                continue
            norms[path] = float(ops.convert_to_numpy(layer.sigma))
            close = _largest_singular_value(weight, is_exact=False)
            if abs(norms[path] - close) > 0.1 * close:
                stale.append(f"`{path}` by {norms[path]:.4g} where it is {close:.4g}")
    if stale:
        warnings.warn(
            "These layers divide by a number that is more than 10 % off the largest singular "
            f"value of their kernel: {', '.join(stale)}. `vector_u` moves only in calls with "
            "`training=True`: pass it in every step of a custom training loop. If you do, the "
            "kernels change too fast: lower the learning rate or raise `power_iterations`.",
            StaleNormWarning,
            stacklevel=2,
        )
    return norms


def _as_matrix(weight):
    return weight.reshape(-1, weight.shape[-1])


def _largest_singular_value(weight, is_exact=True):
    """Returns NaN if the weight isn't finite; `is_exact=False` is faster and within 1 %."""
    matrix = _as_matrix(ops.convert_to_numpy(ops.cast(weight, "float32")))
    if not np.isfinite(matrix).all():
        return float("nan")
    if not is_exact:
        return float(np.linalg.norm(matrix @ leading_singular_vector(matrix)))
    matrix = matrix.astype("float64")
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows < columns else matrix.T @ matrix
    return float(np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0.0)))
