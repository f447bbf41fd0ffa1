"""Self-attention over the locations of feature maps, sequences and volumes."""

import contextlib
import contextvars
import functools
import math
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
from keras_sagan.layers.spectral_norm import unused_name
from keras_sagan.ops.attention import attend, automatic_chunk_size
from keras_sagan.ops.attention_patterns import ylg_masks
from keras_sagan.ops.programs import current_program
from keras_sagan.ops.resampling import of_any_batch
from keras_sagan.private_keras import layers_of

# This thread's recordings, as tuples `(program, layers to record, dictionary to fill)`.
_RECORDINGS: contextvars.ContextVar[tuple] = contextvars.ContextVar("recordings", default=())
MAPS = {1: "sequences", 2: "feature maps", 3: "volumes"}
SIDES = {1: "length", 2: "height and width", 3: "depth, height and width"}


class SelfAttention(keras.layers.Layer):
    """Self-attention over maps with `rank` spatial axes; each subclass defines `rank`."""

    rank: int

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
        num_heads: int = 1,
        scores: str = "dot",
        pattern: str = "dense",
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
        is_first = self.data_format == "channels_first"
        # `_axes` contains the channel axis, followed by the spatial axes.
        self._axes = (1 if is_first else self.rank + 1,)
        self._axes += tuple(axis + is_first for axis in range(1, self.rank + 1))
        if not isinstance(query_chunk_size, str) or query_chunk_size != "auto":
            expected = 'a positive integer, None or "auto"'
            query_chunk_size = check_integer(
                "query_chunk_size", query_chunk_size, None, MAX_SIZE, True, expected
            )
        self.query_chunk_size = query_chunk_size
        self.num_heads = check_integer("num_heads", num_heads)
        self.scores = check_choice("scores", scores, ("dot", "l2", "cosine"))
        if self.rank == 2:
            self.pattern = check_choice("pattern", pattern, ("dense", "ylg"))
        else:
            expected = f'"dense" in {type(self).__name__}'
            self.pattern = check_choice("pattern", pattern, ("dense",), expected)
        if self.pattern == "ylg" and self.num_heads % 4:
            raise ValueError(
                '`num_heads` must be a multiple of 4 with pattern="ylg", which has four masks. '
                f"Received: num_heads={num_heads}"
            )
        if self.pattern == "ylg" and self.query_chunk_size not in (None, "auto"):
            raise ValueError(
                '`query_chunk_size` must be None or "auto" with pattern="ylg". '
                f"Received: query_chunk_size={query_chunk_size}"
            )
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
        if key_channels % self.num_heads or value_channels % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the channels of key and value. "
                f"Received: num_heads={self.num_heads} for {key_channels} and {value_channels} "
                f"channels, from inputs of shape {input_shape}"
            )
        self.query_conv = self._conv(key_channels, "query")
        self.key_conv = None if self.scores == "l2" else self._conv(key_channels, "key")
        self.value_conv = self._conv(value_channels, "value")
        self.output_conv = self._conv(channels, "output")
        size = [input_shape[axis] for axis in self._axes[1:]] if self.rank == 2 else [None, 1]
        for conv in (self.query_conv, self.key_conv, self.value_conv):
            if conv is not None:
                conv.build(self._shape(input_shape[0], size, channels))
        self.output_conv.build(self._shape(input_shape[0], size, value_channels))
        self.gamma = self.add_weight(name="gamma", shape=(), initializer="zeros", autocast=False)

    def _conv(self, filters, name):
        initializer = self.kernel_initializer
        if isinstance(initializer, keras.Initializer):
            # An initializer returns the same values in each call, so each kernel needs a new one.
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
        # Keras's `stateless_call` doesn't cast inputs to the compute dtype.
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)
        size = [ops.shape(inputs)[axis] for axis in self._axes[1:]]
        # The 1 x 1 convolutions process a map of any rank as a 2D map.
        plane_size = size if self.rank == 2 else [math.prod(size), 1]
        plane = self._resized(inputs, plane_size)
        query = self.query_conv(plane, training=training)
        key = query if self.key_conv is None else self.key_conv(plane, training=training)
        value = self.value_conv(plane, training=training)
        query = self._locations(query)
        key = self._locations(self._pool(key, size, training))
        value = self._locations(self._pool(value, size, training))
        # All later steps are linear, so scale `value`, which is smaller than the outputs.
        # Use float32, because the gradient of `gamma` is a sum over all entries of `value`.
        wide = ops.cast(value, keras.backend.result_type(value.dtype, "float32"))
        value = ops.cast(wide * self.gamma, value.dtype)
        recordings = [
            (name, records)
            for program, layers, records in _RECORDINGS.get()
            for name, layer in layers.items()
            if program is current_program() and layer is self
        ]
        chunk_size, mask = self.query_chunk_size, None
        if self.pattern == "ylg":
            mask = ylg_masks(size[0], self.pool_size, self.num_heads)
        if return_attention_scores or recordings or mask is not None:
            chunk_size = None
        elif chunk_size == "auto":
            chunk_size = automatic_chunk_size(query.shape[1], key.shape[1], self.num_heads)
        returns_scores = bool(return_attention_scores or recordings)
        settings = self.num_heads, self.scores, mask, chunk_size, training, returns_scores
        attended, scores = attend(query, key, value, *settings)
        for name, records in recordings:
            key_size = [side // self.pool_size for side in size]
            mean = scores if self.num_heads == 1 else ops.mean(scores, axis=1)
            records[name] = ops.reshape(mean, (-1, *size, *key_size))
        shape = (ops.shape(attended)[0], *plane_size, attended.shape[-1])
        attended = ops.reshape(attended, shape)
        if self.data_format == "channels_first":
            attended = ops.transpose(attended, (0, 3, 1, 2))
        attended = self.output_conv(attended, training=training)
        outputs = inputs + self._resized(attended, size)
        return (outputs, scores) if return_attention_scores else outputs

    def _shape(self, batch, size, channels):
        is_first = self.data_format == "channels_first"
        return (batch, channels, *size) if is_first else (batch, *size, channels)

    def _resized(self, x, size):
        """Reshapes the spatial axes of a map to a given size."""
        if self.rank == 2:
            return x
        channels = x.shape[1 if self.data_format == "channels_first" else -1]
        return ops.reshape(x, self._shape(ops.shape(x)[0], size, channels))

    def _pool(self, x, size, training):
        if self.pool_size == 1:
            return x
        if self.rank == 3:  # TensorFlow on CPUs can't pool volumes in float16 and float64.
            for axis in (2, 1, 0):
                size = [*size[:axis], size[axis] // self.pool_size, *size[axis + 1 :]]
                windows = self._resized(x, [*size[: axis + 1], self.pool_size, *size[axis + 1 :]])
                x = ops.max(windows, axis=self._axes[axis + 1] + 1)
            return x
        pool = functools.partial(
            ops.max_pool,
            pool_size=self.pool_size,
            strides=self.pool_size,
            data_format=self.data_format,
        )
        return of_any_batch(pool, self._resized(x, size), training)

    def _locations(self, x):
        """Reshapes a map to `(batch, locations, channels)`."""
        if self.data_format == "channels_first":
            x = ops.transpose(x, (0, *range(2, len(x.shape)), 1))
        batch, *size, channels = ops.shape(x)
        return ops.reshape(x, (batch, math.prod(size), channels))

    def _check_shape(self, shape):
        if len(shape) != self.rank + 2:
            raise ValueError(
                f"`inputs` must be {MAPS[self.rank]} of rank {self.rank + 2}. "
                f"Received: inputs of shape {tuple(shape)}"
            )
        sizes = [shape[axis] for axis in self._axes[1:]]
        if any(size is not None and size % self.pool_size for size in sizes):
            raise ValueError(
                f"`pool_size` must divide the {SIDES[self.rank]} of `inputs`. "
                f"Received: pool_size={self.pool_size} for inputs of shape {tuple(shape)}"
            )
        if self.pattern == "ylg" and (None in sizes or len(set(sizes)) > 1):
            raise ValueError(
                '`inputs` must be square maps of known size with pattern="ylg". '
                f"Received: inputs of shape {tuple(shape)}"
            )

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def compute_output_spec(self, inputs, training=False, return_attention_scores=False):
        self._check_shape(inputs.shape)
        outputs = KerasTensor(inputs.shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return outputs
        size = [inputs.shape[axis] for axis in self._axes[1:]]
        queries = None if None in size else math.prod(size)
        keys = None if queries is None else queries // self.pool_size**self.rank
        heads = (self.num_heads,) if self.num_heads > 1 else ()
        score_dtype = keras.backend.result_type(self.compute_dtype, "float32")
        return outputs, KerasTensor((inputs.shape[0], *heads, queries, keys), dtype=score_dtype)

    def get_config(self) -> dict:
        names = ("key_reduction", "value_reduction", "pool_size", "use_spectral_norm")
        names += ("power_iterations", "epsilon", "data_format", "query_chunk_size")
        names += ("num_heads", "scores", "pattern")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="keras_sagan")
class SelfAttention1D(SelfAttention):
    """SAGAN's self-attention block over a sequence.

    The layer works like `SelfAttention2D` and has the same weights, but its inputs have one spatial
    axis. It propagates the inputs' mask, but also attends to masked locations.

    Args:
        **kwargs: All arguments of `SelfAttention2D`, except that `pattern` must be `"dense"`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, channels)`, or
            `(batch, channels, length)` with `"channels_first"`.
        training, return_attention_scores: As in `SelfAttention2D`.

    Returns:
        As in `SelfAttention2D`; the outputs have the shape of `inputs`.

    State:
        As in `SelfAttention2D`.

    Raises:
        ValueError: As in `SelfAttention2D`, for inputs of rank 3.

    Example:
    >>> import keras
    >>> layer = SelfAttention1D(pool_size=1)
    >>> layer(keras.ops.ones((2, 6, 8))).shape == (2, 6, 8)
    True

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), equations 1 to 3.
    """

    rank = 1


@keras.saving.register_keras_serializable(package="keras_sagan")
class SelfAttention2D(SelfAttention):
    """SAGAN's self-attention block over a feature map.

    `query`, `key` and `value` are 1x1 convolutions of the map, without bias; key and value are
    max-pooled. `scores = softmax(query @ key.T)` specifies how much each query location attends to
    each key location. The outputs are `inputs + gamma * conv1x1(scores @ value)`. `gamma` is a
    learned scalar that starts at 0, so a new layer is the identity and can be added to a trained
    network. The defaults match the authors' code; `pool_size=1, value_reduction=8` matches the
    paper's text. The scores take `O((height * width)^2 / pool_size^2)` memory, or
    `O(height * width)` if they are computed in chunks of queries.

    With `scores="dot"`, the layer can amplify small input changes by a factor that grows with the
    square of the inputs' scale. With `scores="l2"` and `pool_size=1`, the largest factor is
    approximately independent of the scale (measured, not proven). With pooling, l2 scores are less
    smooth, because a query may be far from all keys.

    With the default reductions, flash attention isn't used: its kernels require half precision, and
    the same number of channels in query and value. Setting `query_chunk_size` saves as much memory
    as flash attention, for any dtype and any number of channels.

    Args:
        key_reduction: Positive integer; query and key have `channels // key_reduction` channels.
        value_reduction: Positive integer; the value has `channels // value_reduction` channels.
        pool_size: Positive integer, the max-pooling window of key and value; 1 for no pooling.
        use_spectral_norm: Boolean, whether the four convolutions are `SNConv2D` layers.
        power_iterations, epsilon: As in `SNConv2D`.
        kernel_initializer: Initializer of the four kernels.
        data_format: `"channels_last"`, `"channels_first"`, or `None` for Keras's setting.
        query_chunk_size: Positive integer, the number of queries whose scores are in memory at a
            time. Each chunk attends to all keys, and the gradient recomputes the scores. `None`
            computes all scores at once, or uses flash attention for inference (see `attend` in
            `keras_sagan.ops.attention`); `"auto"` uses chunks if an image has 2^24 scores (64 MB)
            or more. The chunk size doesn't change the outputs.
        num_heads: Positive integer, the number of heads. The channels of query, key and value are
            divided among the heads.
        scores: `"dot"` (as above), `"l2"` or `"cosine"`. The l2 scores are
            `softmax(-|query - key|^2 / sqrt(key_channels))`, with `key_channels` per head and the
            same weights for query and key, as in ViTGAN. The cosine scores are
            `softmax(cosine(query, key) / 0.1)`, where 0.1 is the initial temperature of Swin
            Transformer V2.
        pattern: `"dense"`, or `"ylg"` for the sparse masks of YLG, which keep attention local in
            two dimensions. `"ylg"` requires square maps of known size and a `num_heads` that is a
            multiple of 4 (8 in the paper). It computes all scores at once.

    Call arguments:
        inputs: Float tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` with `"channels_first"`. Height and width may be
            unknown while a model is built.
        training: Boolean, whether to update each `vector_u`. A frozen layer never updates it.
        return_attention_scores: Boolean, whether to return the scores too; `True` computes all
            scores at once.

    Returns:
        Float tensor with the same shape as `inputs`. With `return_attention_scores=True`, returns a
        tuple of the outputs and the scores. The scores are float32 of shape
        `(batch, height * width, (height // pool_size) * (width // pool_size))`, with the locations
        in row-major order, and each row sums to 1. With several heads, the scores have shape
        `(batch, num_heads, queries, keys)`, as in `keras.layers.MultiHeadAttention`.

    State:
        The trainable scalar `gamma`, and four kernels (three for l2 scores), each with a `vector_u`
        if `use_spectral_norm` is true.

    Raises:
        ValueError: If an argument is out of range, the inputs aren't of rank 4 or have fewer
            channels than `key_reduction` or `value_reduction`, `pool_size` doesn't divide the
            height or width, `num_heads` doesn't divide the channels of key and value, or the
            inputs don't fit the `pattern`.

    Example:
    >>> import numpy as np
    >>> layer = SelfAttention2D()
    >>> images = np.random.normal(size=(2, 8, 8, 16)).astype("float32")
    >>> outputs, scores = layer(images, return_attention_scores=True)
    >>> bool(np.all(outputs == images)), tuple(scores.shape)
    (True, (2, 64, 16))

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), equations 1 to 3. The pooling
    and the default reductions follow the authors' code. For `"l2"`, see
    [Kim et al., 2021](https://arxiv.org/abs/2006.04710) and
    [Lee et al., 2021](https://arxiv.org/abs/2107.04589); for `"cosine"`,
    [Liu et al., 2022](https://arxiv.org/abs/2111.09883); for `"ylg"`,
    [Daras et al., 2020](https://arxiv.org/abs/1911.12287).
    """

    rank = 2


@keras.saving.register_keras_serializable(package="keras_sagan")
class SelfAttention3D(SelfAttention):
    """SAGAN's self-attention block over a volume.

    The layer works like `SelfAttention2D` and has the same weights, but its inputs have three
    spatial axes. It propagates the inputs' mask, but also attends to masked locations.

    Args:
        **kwargs: All arguments of `SelfAttention2D`, except that `pattern` must be `"dense"`.

    Call arguments:
        inputs: Float tensor of shape `(batch, depth, height, width, channels)`, or
            `(batch, channels, depth, height, width)` with `"channels_first"`.
        training, return_attention_scores: As in `SelfAttention2D`.

    Returns:
        As in `SelfAttention2D`; the outputs have the shape of `inputs`.

    State:
        As in `SelfAttention2D`.

    Raises:
        ValueError: As in `SelfAttention2D`, for inputs of rank 5.

    Example:
    >>> import keras
    >>> layer = SelfAttention3D(pool_size=1)
    >>> layer(keras.ops.ones((1, 2, 4, 4, 8))).shape == (1, 2, 4, 4, 8)
    True

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), equations 1 to 3.
    """

    rank = 3


class _Conv2D(keras.layers.Conv2D):
    """A `keras.layers.Conv2D` that also accepts an empty batch."""

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        return of_any_batch(super().call, inputs, training)


def attention_layers(model: keras.Model) -> dict[str, SelfAttention]:
    """Returns the self-attention layers of a model and its nested models, by name, in order."""
    found: dict[str, SelfAttention] = {}
    for layer in layers_of(model):
        if isinstance(layer, SelfAttention):
            found[unused_name(layer.name, layer, model, found)] = layer
    return found


@contextlib.contextmanager
def record_attention_scores(model: keras.Model) -> Iterator[dict[str, KerasTensor]]:
    """Records the scores of every self-attention layer when a model is called in the `with` block.

    Call the model eagerly, as in `model(inputs)`. `with` blocks may overlap, and each records only
    the calls in its own thread.

    Yields:
        Dictionary that maps the name of each layer to the scores of its last call, float32 of shape
        `(batch, height, width, key_height, key_width)`. For a sequence or volume, its spatial axes
        replace height and width. Scores are averaged over the heads. The name of the nested model
        precedes a name that another layer already has, as in `"discriminator/attention_16"`.
    """
    records = {}
    recording = (current_program(), attention_layers(model), records)
    _RECORDINGS.set((*_RECORDINGS.get(), recording))
    try:
        yield records
    finally:
        # Don't use `reset(token)`, because overlapping recordings may end in any order.
        _RECORDINGS.set(tuple(x for x in _RECORDINGS.get() if x is not recording))
