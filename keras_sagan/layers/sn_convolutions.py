"""1D, 3D and transposed convolutions with a spectrally normalized kernel."""

import keras
from keras import KerasTensor, ops

from keras_sagan.checks import MAX_SIDE, check_integer, check_tuple
from keras_sagan.layers.spectral_norm import Scope, SpectralNormMixin
from keras_sagan.ops.resampling import of_any_batch


class _SNConvolution(SpectralNormMixin, keras.Layer):
    """Base class of spectrally normalized convolutions, including transposed convolutions."""

    _rank: int
    _sizes = ("filters", "kernel_size")

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        *args,
        power_iterations: int = 1,
        epsilon: float = 1e-12,
        equality_constrained: bool = True,
        **kwargs,
    ):
        kernel_size = check_tuple("kernel_size", kernel_size, self._rank, MAX_SIDE)
        super().__init__(check_integer("filters", filters), kernel_size, *args, **kwargs)
        self._set_spectral_norm(power_iterations, epsilon, equality_constrained)

    def call(self, inputs: KerasTensor, training: bool = False) -> KerasTensor:
        # Keras's `stateless_call` doesn't cast inputs to the compute dtype.
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)
        # Normalize outside the scope, which would discard the new `vector_u`.
        weight = self.normalized_weight(training)
        with Scope() as scope:
            scope.add_update((self.kernel, weight))
            outputs = of_any_batch(super().call, inputs, training)
        return ops.cast(outputs, self.compute_dtype)  # Adding the bias may have widened the dtype.

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return tuple(super().compute_output_shape(input_shape))


@keras.saving.register_keras_serializable(package="keras_sagan")
class SNConv1D(_SNConvolution, keras.layers.Conv1D):
    """1D convolution whose kernel is divided by its spectral norm.

    It replaces `keras.layers.Conv1D`. `sigma` estimates the largest singular value of the kernel,
    reshaped to `(steps * channels / groups, filters)`. See `SNConv2D` for custom training loops
    and for the differences from `keras.layers.SpectralNormalization`.

    Args:
        filters, kernel_size: As in `keras.layers.Conv1D`.
        *args: Further positional arguments of `keras.layers.Conv1D`, such as `strides`.
        power_iterations, epsilon, equality_constrained: As in `SNConv2D`.
        **kwargs: Other arguments of `keras.layers.Conv1D`, such as `activation`.

    Call arguments:
        inputs: Float tensor of shape `(batch, steps, channels)`, or `(batch, channels, steps)`
            with `data_format="channels_first"`.
        training: Boolean, whether to update `vector_u`.

    Returns:
        Float tensor of shape `(batch, new_steps, filters)`, or `(batch, filters, …)` for
        `"channels_first"`, in the layer's compute dtype.

    State:
        `vector_u`, float32 of shape `(filters,)`, as in `SNConv2D`.

    Raises:
        ValueError: If `power_iterations < 1` or `epsilon` isn't positive.

    Example:
    >>> import keras
    >>> layer = SNConv1D(1, 1, kernel_initializer="ones", use_bias=False)
    >>> float(keras.ops.sum(layer(keras.ops.ones((1, 1, 4)))))  # sigma = sqrt(4)
    2.0
    """

    _rank = 1


@keras.saving.register_keras_serializable(package="keras_sagan")
class SNConv3D(_SNConvolution, keras.layers.Conv3D):
    """3D convolution whose kernel is divided by its spectral norm.

    It replaces `keras.layers.Conv3D`. `sigma` estimates the largest singular value of the kernel,
    reshaped to `(depth * height * width * channels / groups, filters)`. See `SNConv2D` for custom
    training loops and for the differences from `keras.layers.SpectralNormalization`.

    Args:
        filters, kernel_size: As in `keras.layers.Conv3D`.
        *args: Further positional arguments of `keras.layers.Conv3D`, such as `strides`.
        power_iterations, epsilon, equality_constrained: As in `SNConv2D`.
        **kwargs: Other arguments of `keras.layers.Conv3D`, such as `activation`.

    Call arguments:
        inputs: Float tensor of shape `(batch, depth, height, width, channels)`, or
            `(batch, channels, …)` for `data_format="channels_first"`.
        training: Boolean, whether to update `vector_u`.

    Returns:
        Float tensor of shape `(batch, new_depth, new_height, new_width, filters)`, or
        `(batch, filters, …)` for `"channels_first"`, in the layer's compute dtype.

    State:
        `vector_u`, float32 of shape `(filters,)`, as in `SNConv2D`.

    Raises:
        ValueError: If `power_iterations < 1` or `epsilon` isn't positive.

    Example:
    >>> import keras
    >>> layer = SNConv3D(1, 1, kernel_initializer="ones", use_bias=False)
    >>> float(keras.ops.sum(layer(keras.ops.ones((1, 1, 1, 1, 4)))))  # sigma = sqrt(4)
    2.0
    """

    _rank = 3


@keras.saving.register_keras_serializable(package="keras_sagan")
class SNConv2DTranspose(_SNConvolution, keras.layers.Conv2DTranspose):
    """Transposed 2D convolution whose kernel is divided by its spectral norm.

    It replaces `keras.layers.Conv2DTranspose`, whose kernel has the shape
    `(height, width, filters, channels)`. `sigma` estimates the largest singular value of this
    kernel, reshaped to `(height * width * channels, filters)`. See `SNConv2D` for custom training
    loops and for the differences from `keras.layers.SpectralNormalization`.

    Args:
        filters, kernel_size: As in `keras.layers.Conv2DTranspose`.
        *args: Further positional arguments of `keras.layers.Conv2DTranspose`, such as `strides`.
        power_iterations, epsilon, equality_constrained: As in `SNConv2D`.
        **kwargs: Other arguments of `keras.layers.Conv2DTranspose`, such as `activation`.

    Call arguments:
        inputs: Float tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` with `data_format="channels_first"`.
        training: Boolean, whether to update `vector_u`.

    Returns:
        Float tensor of shape `(batch, new_height, new_width, filters)`, or `(batch, filters, …)`
        for `"channels_first"`, in the layer's compute dtype.

    State:
        `vector_u`, float32 of shape `(filters,)`, as in `SNConv2D`.

    Raises:
        ValueError: If `power_iterations < 1` or `epsilon` isn't positive.

    Example:
    >>> import keras
    >>> layer = SNConv2DTranspose(1, 1, kernel_initializer="ones", use_bias=False)
    >>> float(keras.ops.sum(layer(keras.ops.ones((1, 1, 1, 4)))))  # sigma = sqrt(4)
    2.0
    """

    _rank, _output_axis = 2, -2
