"""2D convolution with a spectrally normalized kernel."""

from collections.abc import Callable

import keras
from keras import ops

from keras_sagan.checks import (
    MAX_SIDE,
    check_boolean,
    check_choice,
    check_integer,
    check_string,
    check_tuple,
)
from keras_sagan.layers.spectral_norm import SpectralNormMixin
from keras_sagan.ops.resampling import convolve


@keras.saving.register_keras_serializable(package="keras_sagan")
class SNConv2D(SpectralNormMixin, keras.layers.Conv2D):
    """2D convolution whose kernel is divided by its spectral norm.

    The layer replaces `keras.layers.Conv2D`: `outputs = conv(inputs, kernel / sigma) + bias`, where
    `sigma` estimates the largest singular value of the kernel, reshaped to
    `(height * width * channels / groups, filters)`. Unlike `keras.layers.SpectralNormalization`,
    the layer never overwrites the stored kernel, and the gradient flows through `sigma`. In a
    custom training loop, call the network with `training=True`; otherwise `sigma` isn't updated
    when the kernel changes.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups, activation,
            use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint:
            As in `keras.layers.Conv2D`.
        power_iterations: Positive integer, the number of power iterations per call.
        epsilon: Positive float, added to norms before division. If `sigma` is at most `epsilon`,
            the kernel isn't normalized.
        equality_constrained: Boolean, whether to divide by `sigma` rather than `max(1, sigma)`.
        resample: `"up"` for nearest-neighbor upsampling by 2 before the convolution, `"down"` for
            average pooling by 2 after the convolution, or `None`. Outputs, weights and `sigma` are
            the same as with a separate upsampling or pooling layer, but a single strided
            convolution needs up to 2.25 times fewer multiplications.

    Call arguments:
        inputs: Float tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` with `data_format="channels_first"`.
        training: Boolean, whether to update `vector_u`.

    Returns:
        Float tensor of shape `(batch, new_height, new_width, filters)`, or `(batch, filters, …)`
        for `"channels_first"`, in the layer's compute dtype.

    State:
        `vector_u`, float32 of shape `(filters,)`. `vector_u` is initialized to its converged value,
        and is updated with `training=True`, unless the layer is frozen (`trainable=False`).

    Raises:
        ValueError: If `power_iterations < 1`, `epsilon` isn't positive, `resample` is unknown, or
            `resample` is combined with strides, dilation, groups or an even kernel size.

    Example:
    >>> import keras
    >>> layer = SNConv2D(1, 1, kernel_initializer="ones", use_bias=False)
    >>> float(keras.ops.sum(layer(keras.ops.ones((1, 1, 1, 4)))))  # sigma = sqrt(4)
    2.0

    Reference: [Miyato et al., 2018](https://arxiv.org/abs/1802.05957), sections 2.1 and 2.2.
    """

    _sizes = ("filters", "kernel_size")

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, int] = (1, 1),
        groups: int = 1,
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
        resample: str | None = None,
        **kwargs,
    ):
        filters, groups = check_integer("filters", filters), check_integer("groups", groups)
        if filters % groups:
            raise ValueError(
                f"`groups` must divide `filters`. Received: groups={groups}, filters={filters}"
            )
        super().__init__(
            filters,
            check_tuple("kernel_size", kernel_size, 2, MAX_SIDE),
            strides=check_tuple("strides", strides, 2, MAX_SIDE),
            padding=check_string("padding", padding),
            data_format=data_format,
            dilation_rate=check_tuple("dilation_rate", dilation_rate, 2, MAX_SIDE),
            groups=groups,
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
        self.resample = check_choice("resample", resample, (None, "up", "down"))
        is_plain = max(*self.strides, *self.dilation_rate, self.groups) == 1
        if resample and not (is_plain and all(size % 2 for size in self.kernel_size)):
            raise ValueError(
                "`resample` needs `strides`, `dilation_rate` and `groups` of 1, and an odd "
                f"`kernel_size`. Received: resample={resample!r} with strides={self.strides}, "
                f"dilation_rate={self.dilation_rate}, groups={self.groups}, "
                f"kernel_size={self.kernel_size}"
            )

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        # Keras's `stateless_call` doesn't cast inputs to the compute dtype.
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        # Resampling sums kernel entries: use float32, because half precision would round the sums.
        kernel = self.normalized_weight(training, dtype if self.resample else None)
        settings = (self.resample, self.strides, self.padding, self.data_format, self.dilation_rate)
        outputs = convolve(inputs, kernel, *settings, training)
        if self.use_bias:
            # Add the bias in float32, because the gradient of the bias is a sum over all locations.
            is_last = self.data_format == "channels_last"
            shape = (1, 1, 1, self.filters) if is_last else (1, self.filters, 1, 1)
            bias = ops.cast(ops.reshape(self.bias, shape), dtype)
            outputs = ops.cast(ops.cast(outputs, dtype) + bias, outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        axes = (1, 2) if self.data_format == "channels_last" else (2, 3)
        if self.resample == "up":
            input_shape = _scaled(input_shape, axes, lambda size: 2 * size)
        shape = super().compute_output_shape(input_shape)
        if self.resample == "down":
            shape = _scaled(shape, axes, lambda size: size // 2)
            if 0 in shape[1:]:
                raise ValueError(
                    "`kernel_size` must leave two rows and two columns for pooling. Received: "
                    f"kernel_size={self.kernel_size} for inputs of shape {tuple(input_shape)}"
                )
        return shape

    def get_config(self) -> dict:
        return {**super().get_config(), "resample": self.resample}

    @classmethod
    def from_config(cls, config):
        # Older files contain an `algorithm` argument, which affected only the speed.
        return super().from_config({k: v for k, v in config.items() if k != "algorithm"})


def _scaled(shape, axes, function):
    return tuple(
        function(size) if axis in axes and size is not None else size
        for axis, size in enumerate(shape)
    )
