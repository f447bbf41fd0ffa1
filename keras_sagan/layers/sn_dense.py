"""Dense layer with a spectrally normalized kernel."""

from collections.abc import Callable

import keras
from keras import ops

from keras_sagan.checks import check_boolean, check_integer
from keras_sagan.layers.spectral_norm import SpectralNormMixin


@keras.saving.register_keras_serializable(package="keras_sagan")
class SNDense(SpectralNormMixin, keras.layers.Dense):
    """Densely connected layer whose kernel is divided by its spectral norm.

    The layer replaces `keras.layers.Dense`:
    `outputs = activation(inputs @ (kernel / sigma) + bias)`, where `sigma` estimates the largest
    singular value of the kernel. See `SNConv2D` for custom training loops and for the differences
    from `keras.layers.SpectralNormalization`.

    Args:
        units, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint:
            As in `keras.layers.Dense`.
        power_iterations, epsilon, equality_constrained: As in `SNConv2D`.

    Call arguments:
        inputs: Float tensor of shape `(batch, …, channels)`.
        training: Boolean, whether to update `vector_u`.

    Returns:
        Float tensor of shape `(batch, …, units)`, in the layer's compute dtype.

    State:
        `vector_u`, float32 of shape `(units,)`, as in `SNConv2D`.

    Raises:
        ValueError: If `power_iterations < 1` or `epsilon` isn't positive.

    Example:
    >>> import keras
    >>> layer = SNDense(2, kernel_initializer="ones", use_bias=False)  # sigma = 2
    >>> keras.ops.convert_to_numpy(layer(keras.ops.ones((1, 2)))).round(6).tolist()
    [[1.0, 1.0]]
    """

    _sizes = ("units",)

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = None,
        use_bias: bool = True,
        kernel_initializer: str | keras.Initializer = "glorot_uniform",
        bias_initializer: str | keras.Initializer = "zeros",
        kernel_regularizer: keras.regularizers.Regularizer | None = None,
        bias_regularizer: keras.regularizers.Regularizer | None = None,
        activity_regularizer: keras.regularizers.Regularizer | None = None,
        kernel_constraint: keras.constraints.Constraint | None = None,
        bias_constraint: keras.constraints.Constraint | None = None,
        power_iterations: int = 1,
        epsilon: float = 1e-12,
        equality_constrained: bool = True,
        **kwargs,
    ):
        super().__init__(
            check_integer("units", units),
            activation=activation,
            use_bias=check_boolean("use_bias", use_bias),
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self._set_spectral_norm(power_iterations, epsilon, equality_constrained)

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        outputs = ops.matmul(inputs, self.normalized_weight(training))
        if self.use_bias:
            dtype = keras.backend.result_type(outputs.dtype, "float32")
            outputs = ops.cast(ops.cast(outputs, dtype) + ops.cast(self.bias, dtype), outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)
