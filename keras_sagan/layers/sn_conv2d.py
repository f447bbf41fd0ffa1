"""2D convolution with a spectrally normalized kernel."""

import keras
from keras import ops

from keras_sagan.checks import (
    MAX_SIDE,
    check_boolean,
    check_choice,
    check_integer,
    check_pair,
    check_string,
    check_weight,
)
from keras_sagan.layers.spectral_norm import SpectralNormMixin
from keras_sagan.ops.resampling import convolve


@keras.saving.register_keras_serializable(package="keras_sagan")
class SNConv2D(SpectralNormMixin, keras.layers.Conv2D):
    """2D convolution whose kernel is divided by its spectral norm.

    Takes the place of `keras.layers.Conv2D`. In a training loop of your own, call the network with
    `training=True`: only such calls keep `sigma` up to date while the kernel changes. The kernel,
    reshaped to `(height * width * channels / groups, filters)`, is divided by an estimate `sigma`
    of its largest singular value: `outputs = conv(inputs, kernel / sigma) + bias`. Unlike
    `keras.layers.SpectralNormalization` it never overwrites the kernel, and the gradient flows
    through `sigma`.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups, activation,
            use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            activity_regularizer, kernel_constraint, bias_constraint: As in
            `keras.layers.Conv2D`.
        power_iterations: Positive integer, the power iterations per call. Defaults to `1`.
        epsilon: Float, added to norms before they divide. A kernel whose `sigma` is not larger
            is left as it is. Defaults to `1e-12`.
        equality_constrained: Boolean. `True` divides by `sigma`, `False` by `max(1, sigma)`.
            Defaults to `True`.
        resample: `"up"` to double the map by nearest neighbours before the convolution, `"down"`
            to take the means of 2 x 2 windows after it, or `None`. Same outputs, weights and
            `sigma` as with a layer of its own for that, in one strided convolution with at best
            2.25 times fewer products. Defaults to `None`.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` with `data_format="channels_first"`.
        training: Boolean, whether `vector_u`, and `sigma` with it, follows the kernel.

    Returns:
        Float tensor of shape `(batch, new_height, new_width, filters)` (channels second with
        `"channels_first"`), in the layer's compute dtype.

    State:
        `vector_u`, float32 of shape `(filters,)`: starts converged, and moves with
        `training=True`, unless the layer is frozen (`trainable=False`).

    Raises:
        ValueError: For `power_iterations < 1`, an `epsilon` that isn't positive, an unknown
            `resample`, or one with strides, dilation, groups or an even kernel size.

    Example:

    >>> import keras
    >>> layer = SNConv2D(1, 1, kernel_initializer="ones", use_bias=False)
    >>> float(keras.ops.sum(layer(keras.ops.ones((1, 1, 1, 4)))))  # sigma = sqrt(4)
    2.0

    Reference:
        [Miyato et al., 2018](https://arxiv.org/abs/1802.05957), sections 2.1 and 2.2.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1),
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        power_iterations=1,
        epsilon=1e-12,
        equality_constrained=True,
        resample=None,
        **kwargs,
    ):
        filters, groups = check_integer("filters", filters), check_integer("groups", groups)
        if filters % groups:
            raise ValueError(
                f"`groups` must divide `filters`. Received: groups={groups}, filters={filters}"
            )
        super().__init__(
            filters,
            check_pair("kernel_size", kernel_size, maximum=MAX_SIDE),
            strides=check_pair("strides", strides, maximum=MAX_SIDE),
            padding=check_string("padding", padding),
            data_format=data_format,
            dilation_rate=check_pair("dilation_rate", dilation_rate, maximum=MAX_SIDE),
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
        self._set_resample(resample)
        self.supports_masking = True

    def _set_resample(self, resample):
        self.resample = check_choice("resample", resample, (None, "up", "down"))
        is_plain = max(*self.strides, *self.dilation_rate, self.groups) == 1
        if resample and not (is_plain and all(size % 2 for size in self.kernel_size)):
            raise ValueError(
                "`resample` needs `strides`, `dilation_rate` and `groups` of 1, and an odd "
                "`kernel_size`. "
                f"Received: resample={resample!r} with strides={self.strides}, dilation_rate="
                f"{self.dilation_rate}, groups={self.groups}, kernel_size={self.kernel_size}"
            )

    def _check_build(self, input_shape):
        if len(input_shape) != 4:
            return  # Keras says so.
        is_last = self.data_format == "channels_last"
        channels = input_shape[-1 if is_last else 1]
        if channels is not None and channels % self.groups:
            raise ValueError(
                "`groups` must divide the channels of `inputs`. "
                f"Received: groups={self.groups} for inputs of shape {tuple(input_shape)}"
            )
        sizes = input_shape[1:3] if is_last else input_shape[2:]
        if self.padding == "valid":
            extents = [(k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation_rate)]
            if any(x is not None and extent > x for x, extent in zip(sizes, extents)):
                raise ValueError(
                    "`kernel_size` with `dilation_rate` must fit into the map, or `padding` be "
                    f'"same". Received: kernel_size={self.kernel_size}, '
                    f"dilation_rate={self.dilation_rate} for inputs of shape {tuple(input_shape)}"
                )
        if channels is not None:
            check_weight(
                (*self.kernel_size, channels // self.groups, self.filters),
                filters=self.filters,
                kernel_size=self.kernel_size,
            )

    def call(self, inputs, training=False):
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)  # `stateless_call` doesn't.
        kernel = self.normalized_weight(training, dtype=self._kernel_dtype())
        outputs = convolve(
            inputs,
            kernel,
            self.resample,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
            training,
        )
        if self.use_bias:
            channel_axis = -1 if self.data_format == "channels_last" else 1
            bias_shape = [1] * 4
            bias_shape[channel_axis] = self.filters
            # In float32, as the gradient of the bias is the sum over all locations.
            dtype = keras.backend.result_type(outputs.dtype, "float32")
            bias = ops.cast(ops.reshape(self.bias, bias_shape), dtype)
            outputs = ops.cast(ops.cast(outputs, dtype) + bias, outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)

    def _kernel_dtype(self):
        # A resampling kernel is a sum of kernels, which half precision would round.
        if self.resample is None:
            return self.compute_dtype
        return keras.backend.result_type(self.compute_dtype, "float32")

    def compute_output_shape(self, input_shape):
        axes = (1, 2) if self.data_format == "channels_last" else (2, 3)
        if self.resample == "up":
            input_shape = _scaled(input_shape, axes, lambda size: 2 * size)
        shape = super().compute_output_shape(input_shape)
        return _scaled(shape, axes, lambda size: size // 2) if self.resample == "down" else shape

    def compute_mask(self, inputs, mask=None):
        # A mask fits the outputs only where the convolution keeps the size of the map.
        if self.resample is not None:
            return None
        keeps_size = self.padding == "same" and max(self.strides) == 1
        return mask if keeps_size or max(self.kernel_size + self.strides) == 1 else None

    def get_config(self):
        return {**super().get_config(), "resample": self.resample}

    @classmethod
    def from_config(cls, config):
        # Old files have an `algorithm` too, which changed nothing but the speed.
        return super().from_config({k: v for k, v in config.items() if k != "algorithm"})


def _scaled(shape, axes, function):
    return tuple(
        function(size) if axis in axes and size is not None else size
        for axis, size in enumerate(shape)
    )
