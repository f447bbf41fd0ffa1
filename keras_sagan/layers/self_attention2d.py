"""Self-attention over the locations of a feature map."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import keras
from keras import KerasTensor, ops

from keras_sagan.checks import (
    MAX_COUNT,
    MAX_SIDE,
    MAX_SIZE,
    check_boolean,
    check_choice,
    check_float,
    check_integer,
)
from keras_sagan.layers.sn_conv2d import SNConv2D
from keras_sagan.ops.attention import (
    automatic_chunk_size,
    chunked_spatial_attention,
    spatial_attention,
)
from keras_sagan.ops.programs import current_program
from keras_sagan.ops.resampling import of_any_batch
from keras_sagan.private_keras import layers_of

# This thread's recordings: tuples of a program, the layers to record, and the dictionary to fill.
_RECORDINGS: contextvars.ContextVar[tuple] = contextvars.ContextVar("recordings", default=())


@keras.saving.register_keras_serializable(package="keras_sagan")
class SelfAttention2D(keras.layers.Layer):
    """SAGAN's self-attention block over a feature map.

    `query`, `key` and `value` are 1x1 convolutions of the map without bias; key and value are
    max-pooled. `scores = softmax(query @ key.T)` tells how much each query location attends to each
    key location, and `outputs = inputs + gamma * conv1x1(scores @ value)`. `gamma` is a learned
    scalar that starts at 0, so a new layer is the identity and can be added to a trained network.
    The defaults match the authors' code; `pool_size=1, value_reduction=8` matches the paper's text.
    The scores take `O((height * width)^2 / pool_size^2)` memory, or `O(height * width)` if they are
    computed in chunks of queries.

    Args:
        key_reduction: Positive integer; query and key have `channels // key_reduction` channels.
        value_reduction: Positive integer; the value has `channels // value_reduction` channels.
        pool_size: Positive integer, the max-pooling window of key and value; 1 for no pooling.
        use_spectral_norm: Boolean, whether the four convolutions are `SNConv2D`.
        power_iterations, epsilon: As in `SNConv2D`.
        kernel_initializer: Initializer of the four kernels.
        data_format: `"channels_last"`, `"channels_first"`, or `None` for Keras's setting.
        query_chunk_size: Positive integer, the number of queries whose scores are in memory at a
            time. Each chunk attends to all keys, and the gradient recomputes its scores. `None`
            computes all scores at once; `"auto"` uses chunks if an image has 2^24 scores (64 MB) or
            more. The outputs don't depend on it.

    Call arguments:
        inputs: Float tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` with `"channels_first"`. Height and width may be
            unknown while a model is built.
        training: Boolean, whether to update each `vector_u`, unless the layer is frozen.
        return_attention_scores: Boolean, whether to return the scores too; `True` computes all
            scores at once.

    Returns:
        Float tensor with the same shape as `inputs`. With `return_attention_scores=True`, a tuple
        of this tensor and the scores, float32 of shape
        `(batch, height * width, (height // pool_size) * (width // pool_size))`, row-major over the
        map; each row sums to 1.

    State:
        The trainable scalar `gamma`, and the four kernels, each with its `vector_u`.

    Raises:
        ValueError: If an argument is out of range, the inputs aren't of rank 4 or have fewer
            channels than `key_reduction` or `value_reduction`, or `pool_size` doesn't divide the
            height or width.

    Example:
    >>> import numpy as np
    >>> layer = SelfAttention2D()
    >>> images = np.random.normal(size=(2, 8, 8, 16)).astype("float32")
    >>> outputs, scores = layer(images, return_attention_scores=True)
    >>> bool(np.all(outputs == images)), tuple(scores.shape)
    (True, (2, 64, 16))

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), equations 1 to 3. The pooling
    and the reductions follow the authors' code.
    """

    def __init__(
        self,
        key_reduction: int = 8,
        value_reduction: int = 2,
        pool_size: int = 2,
        use_spectral_norm: bool = True,
        power_iterations: int = 1,
        epsilon: float = 1e-12,
        kernel_initializer: str | keras.Initializer = "glorot_uniform",
        data_format: str | None = None,
        query_chunk_size: int | str | None = "auto",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.key_reduction = check_integer("key_reduction", key_reduction)
        self.value_reduction = check_integer("value_reduction", value_reduction)
        self.pool_size = check_integer("pool_size", pool_size, maximum=MAX_SIDE)
        self.use_spectral_norm = check_boolean("use_spectral_norm", use_spectral_norm)
        self.power_iterations = check_integer(
            "power_iterations", power_iterations, maximum=MAX_COUNT
        )
        self.epsilon = check_float("epsilon", epsilon, above=0)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        formats = (None, "channels_last", "channels_first")
        data_format = check_choice("data_format", data_format, formats)
        self.data_format = data_format or keras.config.image_data_format()
        # The axes of the channels, the height and the width.
        self._axes = (1, 2, 3) if self.data_format == "channels_first" else (3, 1, 2)
        if not isinstance(query_chunk_size, str) or query_chunk_size != "auto":
            expected = 'a positive integer, None or "auto"'
            query_chunk_size = check_integer(
                "query_chunk_size", query_chunk_size, None, MAX_SIZE, True, expected
            )
        self.query_chunk_size = query_chunk_size
        self.supports_masking = True

    def build(self, input_shape: tuple) -> None:
        self._check_shape(input_shape)
        channels = input_shape[self._axes[0]]
        if channels is None:
            raise ValueError(
                f"The channels of `inputs` must be known. Received: inputs of shape {input_shape}"
            )
        for name in ("key_reduction", "value_reduction"):
            if channels < getattr(self, name):
                raise ValueError(
                    f"`inputs` must have at least {name}={getattr(self, name)} channels; lower "
                    f"`{name}` for narrow maps. Received: inputs of shape {input_shape}, with "
                    f"{channels} channels"
                )
        key_channels = channels // self.key_reduction
        value_channels = channels // self.value_reduction
        self.query_conv = self._conv(key_channels, "query")
        self.key_conv = self._conv(key_channels, "key")
        self.value_conv = self._conv(value_channels, "value")
        self.output_conv = self._conv(channels, "output")
        for conv in (self.query_conv, self.key_conv, self.value_conv):
            conv.build(input_shape)
        attended_shape = list(input_shape)
        attended_shape[self._axes[0]] = value_channels
        self.output_conv.build(tuple(attended_shape))
        self.gamma = self.add_weight(name="gamma", shape=(), initializer="zeros", autocast=False)

    def _conv(self, filters, name):
        initializer = self.kernel_initializer
        if isinstance(initializer, keras.Initializer):
            # Calls of an initializer return the same values, so each kernel has its own copy.
            initializer = initializer.__class__.from_config(initializer.get_config())
        arguments = {
            "use_bias": False,
            "kernel_initializer": initializer,
            "data_format": self.data_format,
            "dtype": self.dtype_policy,
            "trainable": self.trainable,
            "name": name,
        }
        if not self.use_spectral_norm:
            return _Conv2D(filters, 1, **arguments)
        arguments.update(power_iterations=self.power_iterations, epsilon=self.epsilon)
        return SNConv2D(filters, 1, **arguments)

    def call(self, inputs, training=False, return_attention_scores=False):
        self._check_shape(inputs.shape)
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)  # `stateless_call` doesn't cast.
        convs = (self.query_conv, self.key_conv, self.value_conv)
        query, key, value = [conv(inputs, training=training) for conv in convs]
        query = self._locations(query)
        key = self._locations(self._pool(key, training))
        value = self._locations(self._pool(value, training))
        # Scale the small `value`: later steps are linear. The gradient of gamma is a float32 sum.
        wide = ops.cast(value, keras.backend.result_type(value.dtype, "float32"))
        value = ops.cast(wide * self.gamma, value.dtype)
        recordings = [
            records
            for program, layers, records in _RECORDINGS.get()
            if program is current_program() and any(layer is self for layer in layers)
        ]
        chunk_size = self.query_chunk_size
        if return_attention_scores or recordings:
            chunk_size = None
        elif chunk_size == "auto":
            chunk_size = automatic_chunk_size(query.shape[1], key.shape[1])
        if chunk_size is None:
            attended, scores = spatial_attention(query, key, value)
        else:
            attended = chunked_spatial_attention(query, key, value, chunk_size, training)
        size = [ops.shape(inputs)[axis] for axis in self._axes[1:]]
        for records in recordings:
            key_size = [side // self.pool_size for side in size]
            records[self.name] = ops.reshape(scores, (-1, *size, *key_size))
        attended = ops.reshape(attended, (ops.shape(attended)[0], *size, attended.shape[-1]))
        if self.data_format == "channels_first":
            attended = ops.transpose(attended, (0, 3, 1, 2))
        outputs = inputs + self.output_conv(attended, training=training)
        return (outputs, scores) if return_attention_scores else outputs

    def _pool(self, x, training):
        if self.pool_size == 1:
            return x
        size = self.pool_size
        pool = functools.partial(
            ops.max_pool, pool_size=size, strides=size, data_format=self.data_format
        )
        return of_any_batch(pool, x, training)

    def _locations(self, x):
        """Reshapes a feature map to `(batch, height * width, channels)`."""
        if self.data_format == "channels_first":
            x = ops.transpose(x, (0, 2, 3, 1))
        batch, height, width, channels = ops.shape(x)
        return ops.reshape(x, (batch, height * width, channels))

    def _check_shape(self, shape):
        if len(shape) != 4:
            raise ValueError(
                f"`inputs` must be feature maps of rank 4. Received: inputs of shape {tuple(shape)}"
            )
        sizes = [shape[axis] for axis in self._axes[1:]]
        if any(size is not None and size % self.pool_size for size in sizes):
            raise ValueError(
                "`pool_size` must divide the height and width of `inputs`. "
                f"Received: pool_size={self.pool_size} for inputs of shape {tuple(shape)}"
            )

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def compute_output_spec(self, inputs, training=False, return_attention_scores=False):
        self._check_shape(inputs.shape)
        outputs = KerasTensor(inputs.shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return outputs
        height, width = (inputs.shape[axis] for axis in self._axes[1:])
        queries = None if None in (height, width) else height * width
        keys = None if queries is None else queries // self.pool_size**2
        score_dtype = keras.backend.result_type(self.compute_dtype, "float32")
        return outputs, KerasTensor((inputs.shape[0], queries, keys), dtype=score_dtype)

    def get_config(self) -> dict:
        names = ("key_reduction", "value_reduction", "pool_size", "use_spectral_norm")
        names += ("power_iterations", "epsilon", "data_format", "query_chunk_size")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


class _Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` that also accepts an empty batch."""

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        return of_any_batch(super().call, inputs, training)


def attention_layers(model: keras.Model) -> list[SelfAttention2D]:
    """Returns the `SelfAttention2D` layers of a model in order, including nested models."""
    return [x for x in layers_of(model) if isinstance(x, SelfAttention2D)]


@contextlib.contextmanager
def record_attention_scores(model: keras.Model) -> Iterator[dict[str, KerasTensor]]:
    """Records the scores of every `SelfAttention2D` when a model is called in the `with` block.

    Call the model eagerly, as in `model(inputs)`. `with` blocks may overlap, and each records only
    the calls in its own thread.

    Yields:
        Dictionary from layer name to the scores of its last call, float32 of shape
        `(batch, height, width, key_height, key_width)`.
    """
    records = {}
    recording = (current_program(), attention_layers(model), records)
    _RECORDINGS.set((*_RECORDINGS.get(), recording))
    try:
        yield records
    finally:
        # Don't reset to a token: recordings that overlap may end in any order.
        _RECORDINGS.set(tuple(x for x in _RECORDINGS.get() if x is not recording))
