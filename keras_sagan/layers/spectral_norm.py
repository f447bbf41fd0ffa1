"""Spectral normalization: power iteration, base classes of layers, and `spectral_norms`."""

import itertools
import math
import warnings

import keras
import numpy as np
from keras import KerasTensor, ops

from keras_sagan.checks import (
    MAX_COUNT,
    check_boolean,
    check_float,
    check_integer,
    check_weight,
    known_values,
)
from keras_sagan.ops.programs import outside_programs
from keras_sagan.private_keras import layers_of


class StaleNormWarning(UserWarning):
    """Warning that a layer's `sigma` differs from the largest singular value of its kernel."""


def power_iteration(
    matrix,
    u,
    steps=1,
    epsilon=1e-12,
    multiply=ops.matmul,
    multiply_transposed=lambda matrix, v: ops.matmul(v, matrix),
):
    """Estimates the largest singular value of a matrix; returns `sigma`, `u` and `v`.

    Starting from a unit vector `u`, each step computes
    `v = matrix @ u / (|matrix @ u| + epsilon)` and `u = v @ matrix / (|v @ matrix| + epsilon)`.
    After the last step, `sigma = v @ matrix @ u`. The gradient treats `u` and `v` as constants,
    which is exact once the iteration has converged. If the matrix is zero, `u` is unchanged,
    since the iteration could never recover from `u = 0`. Reference:
    [Miyato et al., 2018](https://arxiv.org/abs/1802.05957), algorithm 1, with the `epsilon` of
    the SAGAN authors' code.

    Pass `multiply` and `multiply_transposed` to replace the two matrix products, for example if
    `matrix` is the kernel of a convolution.
    """
    u, constant = ops.stop_gradient(u), ops.stop_gradient(matrix)
    for _ in range(steps):
        v = multiply(constant, u)
        v = v / (_norm(v) + epsilon)
        product = multiply_transposed(matrix, v)
        candidate = ops.stop_gradient(product)
        norm = _norm(candidate)  # `norm` is 0 if either product underflows.
        u = ops.where(norm > epsilon, candidate / (norm + epsilon), u)
    return ops.sum(product * u), u, v


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


class Scope(keras.StatelessScope):
    """A `keras.StatelessScope` that can also read the values of outer scopes.

    On JAX, the full training step runs in a scope, and a plain `StatelessScope` nested in that
    scope would read the values that variables had before the step.
    """

    def __enter__(self):
        super().__enter__()
        outer = {} if self.original_scope is None else self.original_scope.state_mapping
        self._given = {**outer, **self.state_mapping}
        self.state_mapping = dict(self._given)
        return self

    def assigned(self, variables):
        """Returns a list with each variable's new value, or `None` if this scope didn't set it."""
        pairs = [(self._given.get(id(v)), self.state_mapping.get(id(v))) for v in variables]
        return [None if value is given else value for given, value in pairs]


class MatrixNorm:
    """Computes the largest singular value of a kernel reshaped to a matrix `(rest, outputs)`.

    `outputs` lists the axes of the kernel that correspond to the layer's outputs.
    """

    def __init__(self, shape, outputs=(-1,)):
        outputs = [axis % len(shape) for axis in outputs]
        rest = [axis for axis in range(len(shape)) if axis not in outputs]
        self._axes = [*rest, *outputs]
        self.vector_shape = (math.prod(shape[axis] for axis in outputs),)

    def matrix(self, weight):
        """Returns the kernel as a tensor of rank 2."""
        if self._axes != sorted(self._axes):
            weight = ops.transpose(weight, self._axes)
        return ops.reshape(weight, (-1, *self.vector_shape))

    def iterate(self, weight, u, steps, epsilon):
        """Returns `sigma` and the next `u`."""
        return power_iteration(self.matrix(weight), u, steps, epsilon)[:2]

    def known_matrix(self, weight):
        """Returns the matrix as a numpy array, or `None` if its values aren't known yet."""
        return known_values(self.matrix(weight))


class ConvolutionNorm:
    """Computes the largest singular value of a zero-padded convolution, for a given input size.

    As a matrix, the convolution maps the flattened input to the flattened output. `map_shape` is
    the input's shape, such as `(height, width, channels)`. Strides and dilation must be 1.
    """

    def __init__(self, map_shape, kernel_size, padding):
        sides = {"valid": lambda k: (0, 0), "same": lambda k: ((k - 1) // 2, k // 2)}
        sides["causal"] = lambda k: (k - 1, 0)
        self._pads = [sides[padding](size) for size in kernel_size]
        self.vector_shape = (1, *map_shape)

    def multiply(self, kernel, maps):
        maps = ops.pad(maps, [(0, 0), *self._pads, (0, 0)])
        return ops.conv(maps, kernel, padding="valid", data_format="channels_last")

    def multiply_transposed(self, kernel, maps):
        maps = ops.conv_transpose(maps, kernel, padding="valid", data_format="channels_last")
        sizes = zip(self._pads, self.vector_shape[1:-1])
        return maps[(slice(None), *(slice(low, low + size) for (low, _), size in sizes))]

    def iterate(self, weight, u, steps, epsilon):
        products = (self.multiply, self.multiply_transposed)
        return power_iteration(weight, u, steps, epsilon, *products)[:2]

    def known_matrix(self, weight):
        kernel = known_values(weight)
        return None if kernel is None else _ConvolutionMatrix(self, kernel)


class _ConvolutionMatrix:
    """Lets `leading_singular_vector` use a convolution as a matrix, without storing the matrix."""

    __array_ufunc__ = None  # This makes `array @ self` call `__rmatmul__`.
    size = 0

    def __init__(self, norm, kernel):
        self._norm, self._kernel, self.dtype = norm, kernel, kernel.dtype
        self.shape = (None, math.prod(norm.vector_shape))

    def __array__(self, dtype=None, copy=None):
        return self._kernel

    def __matmul__(self, columns):
        maps = columns.T.reshape(-1, *self._norm.vector_shape[1:])
        outputs = ops.convert_to_numpy(self._norm.multiply(self._kernel, maps))
        self._output_shape = outputs.shape[1:]
        return outputs.reshape(*columns.T.shape[:-1], -1).T

    def __rmatmul__(self, row):
        maps = row.reshape(1, *self._output_shape)
        return ops.convert_to_numpy(self._norm.multiply_transposed(self._kernel, maps)).reshape(-1)


def wide(weight):
    """Returns the value of a weight in float32, or in float64 if the weight is float64."""
    weight = ops.convert_to_tensor(weight)
    return ops.cast(weight, keras.backend.result_type(weight.dtype, "float32"))


class SpectralNormBase:
    """Base class of the layers that divide kernels by their largest singular values.

    The forward pass never changes a kernel. Each kernel has a `vector_u`, the state of the power
    iteration, which is initialized to its converged value. Only calls with `training=True` update
    `vector_u`, and only if the layer isn't frozen. At inference, the same iteration starts from
    `vector_u`, but the new vector isn't stored.
    """

    def _set_spectral_norm(self, power_iterations, epsilon, equality_constrained):
        if isinstance(self.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy):
            self._refuse("quantized", "dtype", (self.dtype_policy.name,))
        self.power_iterations = check_integer(
            "power_iterations", power_iterations, maximum=MAX_COUNT
        )
        self.epsilon = check_float("epsilon", epsilon, above=0)
        self.equality_constrained = check_boolean("equality_constrained", equality_constrained)

    def normalized_kernels(self) -> list[tuple]:
        """Returns a list of `(kernel, norm, vector_u)`, which is empty before `build`."""
        raise NotImplementedError

    def _add_vector_u(self, kernel, norm, name="vector_u"):
        def initializer(shape, dtype=None):
            return ops.convert_to_tensor(initial_vector_u(kernel, norm), dtype)

        return self.add_weight(
            name=name,
            shape=norm.vector_shape,
            initializer=initializer,
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def _sigma_and_u(self, weight, norm, vector_u):
        u = ops.cast(vector_u, weight.dtype)
        return norm.iterate(weight, u, self.power_iterations, self.epsilon)

    def _sigma_of(self, kernel, norm, vector_u):
        return ops.stop_gradient(self._sigma_and_u(wide(kernel), norm, vector_u)[0])

    def _normalize(self, kernel, norm, vector_u, training):
        """Returns the kernel divided by its norm, in float32 or wider."""
        weight = wide(kernel)
        sigma, u = self._sigma_and_u(weight, norm, vector_u)
        divides = sigma > (self.epsilon if self.equality_constrained else 1.0)
        divisor = ops.where(divides, sigma, ops.ones_like(sigma))
        if training and self.trainable:
            vector_u.assign(u)
        # Multiply instead of dividing: a division's gradient reads the weight three more times.
        return weight * (1.0 / divisor)

    def quantize(self, *args, **kwargs):
        self._refuse("quantized", "quantize", args)

    def enable_lora(self, *args, **kwargs):
        self._refuse("adapted by LoRA (`lora_rank`)", "enable_lora", args)

    def _refuse(self, verb, method, args):
        raise ValueError(
            f"{type(self).__name__} can't be {verb}, as every call normalizes its kernel again. "
            "Copy the normalized kernel into the plain Keras layer and use that. "
            f"Received: {method}{args}"
        )

    def get_config(self) -> dict:
        names = ("power_iterations", "epsilon", "equality_constrained")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class SpectralNormMixin(SpectralNormBase):
    """Divides the kernel of a Keras layer by its largest singular value in the forward pass.

    The layer's weight must be named `kernel` or `embeddings`, with the outputs on the axis
    `_output_axis`.
    """

    _output_axis = -1
    _sizes: tuple[str, ...]  # The arguments that determine the size of the weight.

    def add_weight(self, *args, name=None, **kwargs):
        if name in ("kernel", "embeddings", "bias"):
            check_weight(kwargs["shape"], **{size: getattr(self, size) for size in self._sizes})
            kwargs["autocast"] = False  # Normalize kernels and add biases in the variable dtype.
        return super().add_weight(*args, name=name, **kwargs)

    def build(self, input_shape: tuple | None = None) -> None:
        if self.built:
            return
        with outside_programs():  # The initial `vector_u` depends on the values of the weight.
            super().build(input_shape)
            self._norm = MatrixNorm(self._raw_weight().shape, (self._output_axis,))
            self.vector_u = self._add_vector_u(self._raw_weight(), self._norm)

    def _raw_weight(self):
        return self.embeddings if hasattr(self, "embeddings_initializer") else self.kernel

    def normalized_kernels(self) -> list[tuple]:
        return [(self._raw_weight(), self._norm, self.vector_u)] if self.built else []

    @property
    def sigma(self) -> KerasTensor:
        """Scalar tensor, the current estimate of the kernel's largest singular value."""
        return self._sigma_of(self._raw_weight(), self._norm, self.vector_u)

    def normalized_weight(self, training: bool = False, dtype: str | None = None) -> KerasTensor:
        """Returns the weight divided by its spectral norm; an all-zero weight is unchanged.

        With `training=True`, `vector_u` is updated, unless the layer is frozen. `dtype=None` means
        the compute dtype.
        """
        weight = self._normalize(self._raw_weight(), self._norm, self.vector_u, training)
        return ops.cast(weight, dtype or self.compute_dtype)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Keras's transposed convolutions already save `vector_u`; other layers don't.
        if self.built and len(store.keys()) < len(self.weights):
            store["vector_u"] = self.vector_u

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if "vector_u" in store.keys():
            self.vector_u.assign(store["vector_u"])


def initial_vector_u(kernel, norm):
    """Returns the converged `vector_u` of a kernel, as a numpy array or a tensor."""
    matrix = norm.known_matrix(wide(kernel))
    if matrix is None:  # Keras is tracing to infer shapes, and the weight has no value.
        return ops.full(norm.vector_shape, math.prod(norm.vector_shape) ** -0.5)
    return leading_singular_vector(matrix).reshape(norm.vector_shape)


def leading_singular_vector(matrix):
    """Returns the right singular vector that belongs to the largest singular value.

    The result `u` is the best approximation in the Krylov space spanned by
    `x, (matrix.T @ matrix) @ x, …`, where `x` is random with a fixed seed. Power iteration would
    need far more matrix products. `|matrix @ u|` is within 1 % of the largest singular value (0.1 %
    for small matrices). If the matrix is zero or not finite, `u` is an arbitrary unit vector.

    Reference: Golub & Van Loan, Matrix Computations, section 10.1 (Lanczos).
    """
    start = np.random.default_rng(0).normal(size=(1, matrix.shape[1]))
    basis = (start / np.linalg.norm(start)).astype(matrix.dtype)
    if not np.isfinite(np.asarray(matrix)).all():
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


def unused_name(name, layer, model, taken):
    """Returns a name for a layer in a model: `name`, unless another layer has taken it.

    If it is taken, the name of the innermost nested model with the layer precedes it, and then a
    number follows if necessary.
    """
    if name not in taken:
        return name
    models = [x for x in layers_of(model) if isinstance(x, keras.Model) and layer in layers_of(x)]
    name = f"{(models or [model])[-1].name}/{name}"
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
    return next(x for x in names if x not in taken)


def spectral_norms(model: keras.Model, normalized_only: bool = True) -> dict[str, float]:
    """Returns the largest singular value of each stored kernel of a model.

    For a spectrally normalized kernel, the value is `sigma`, the estimate by which the layer
    divides. A warning lists the layers whose estimate is more than 10 % off. The values of all
    other kernels are exact.

    Args:
        model: Keras model, which may contain other models.
        normalized_only: Boolean, whether to return only the norms of spectrally normalized kernels.

    Returns:
        Dictionary that maps kernel paths to floats. The last part of a path is omitted if it is
        `"kernel"` or `"embeddings"`, as in `"attention_16/query"`. The name of the nested model
        precedes a path that another kernel already has, as in `"discriminator/attention_16/query"`.

    Example:
    >>> import keras
    >>> from keras_sagan import SNDense
    >>> dense = SNDense(2, kernel_initializer="ones", name="dense")
    >>> round(spectral_norms(keras.Sequential([keras.Input((2,)), dense]))["dense"], 6)
    2.0
    """
    normalized_only = check_boolean("normalized_only", normalized_only)
    norms, stale, seen = {}, [], set()

    def path_of(kernel, layer):
        path, _, name = kernel.path.removeprefix(f"{model.name}/").rpartition("/")
        path = path if name in ("kernel", "embeddings") else f"{path}/{name}"
        return unused_name(path, layer, model, norms)

    for layer in layers_of(model):
        if isinstance(layer, SpectralNormBase):
            for kernel, norm, vector_u in layer.normalized_kernels():
                path = path_of(kernel, layer)
                sigma, _ = layer._sigma_and_u(wide(kernel), norm, vector_u)
                norms[path] = float(ops.convert_to_numpy(sigma))
                close = _close_norm(norm.known_matrix(wide(kernel)))
                if abs(norms[path] - close) > 0.1 * close:
                    stale.append(f"`{path}` by {norms[path]:.4g} where it is {close:.4g}")
                seen.add(id(kernel))
        elif not normalized_only:
            for name in ("kernel", "embeddings"):
                kernel = getattr(layer, name, None)
                is_matrix = isinstance(kernel, keras.Variable) and len(kernel.shape) > 1
                if is_matrix and id(kernel) not in seen:
                    norms[path_of(kernel, layer)] = _exact_norm(kernel)
                    seen.add(id(kernel))
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


def _close_norm(matrix):
    """Returns the largest singular value to within 1 %, or NaN if the matrix isn't finite."""
    if not np.isfinite(np.asarray(matrix)).all():
        return float("nan")
    return float(np.linalg.norm(matrix @ leading_singular_vector(matrix)))


def _exact_norm(kernel):
    """Returns the largest singular value, or NaN if the kernel isn't finite."""
    matrix = MatrixNorm(kernel.shape).known_matrix(wide(kernel)).astype("float64")
    if not np.isfinite(matrix).all():
        return float("nan")
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows < columns else matrix.T @ matrix
    return float(np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0.0)))
