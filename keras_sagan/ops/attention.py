"""Attention between the locations of feature maps."""

import keras
import numpy as np
from keras import ops

from keras_sagan.ops.resampling import of_any_batch

COSINE_TEMPERATURE = 0.1  # The initial value of Swin Transformer V2's learned temperature.


def spatial_attention(query, key, value, mask=None) -> tuple:
    """Attends from every query location to every key location.

    The scores are `softmax(query @ key.T)` over the keys, without the transformer's
    `1 / sqrt(channels)` scale, as in SAGAN. The scores are computed in at least float32 and need
    `O(queries * keys)` memory: for example, 268 MB per image for a 128 x 128 map with 2 x 2
    pooling. `chunked_spatial_attention` computes the same outputs with less memory.

    Args:
        query: Float tensor of shape `(batch, queries, key_channels)`, or
            `(batch, heads, queries, key_channels)` if key and value also have a heads axis.
        key: Float tensor of shape `(batch, keys, key_channels)`.
        value: Float tensor of shape `(batch, keys, value_channels)`.
        mask: Boolean tensor that broadcasts to the scores, `True` where a query may attend to a
            key. Each query needs at least one allowed key. `None` allows all keys.

    Returns:
        Tuple of the outputs `(batch, queries, value_channels)`, in the dtype of `value`, and the
        scores `(batch, queries, keys)`, in float32 (float64 for float64 inputs). Each row of scores
        sums to 1.

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), equations 1 and 2.
    """
    dtype = _score_dtype(query)
    logits = ops.matmul(ops.cast(query, dtype), _transposed(ops.cast(key, dtype)))
    if mask is not None:
        logits = ops.where(mask, logits, -1e30)
    scores = ops.softmax(logits, axis=-1)
    return ops.matmul(ops.cast(scores, value.dtype), value), scores


def attend(
    query,
    key,
    value,
    num_heads: int = 1,
    scores: str = "dot",
    mask=None,
    query_chunk_size: int | None = None,
    training: bool = False,
    return_scores: bool = True,
) -> tuple:
    """Computes the attention of `SelfAttention2D`, which explains `num_heads` and `scores`.

    The logits of l2 and cosine scores are dot products of transformed queries and keys. The cosine
    of a zero vector and any other vector is 0, and so is its gradient.

    Args:
        query, key, value: As in `spatial_attention`.
        mask: As in `spatial_attention`, for the scores of all heads; needs `query_chunk_size=None`.
        query_chunk_size, training: As in `chunked_spatial_attention`; `None` means a single block.
        return_scores: Boolean, whether to return the scores. If `False`, a single block may use
            flash attention through `keras.ops.dot_product_attention`. Flash attention needs JAX or
            PyTorch, half precision, no mask, as many channels in the query as in the value, and
            `training=False`. On PyTorch, it also needs tensors without gradients.

    Returns:
        Tuple of the outputs `(batch, queries, value_channels)` and the scores, of shape
        `(batch, queries, keys)`, or `(batch, num_heads, queries, keys)` with several heads. The
        scores are `None` if chunks or flash attention are used.
    """
    if num_heads > 1:
        query, key, value = (_split_heads(x, num_heads) for x in (query, key, value))
    if scores != "dot":
        query, key = _factors(query, key, scores)
    inputs, found = (query, key, value), None
    if query_chunk_size is not None:
        outputs = chunked_spatial_attention(*inputs, query_chunk_size, training)
    elif return_scores or mask is not None or not _suits_flash_attention(inputs, training):
        outputs, found = spatial_attention(*inputs, mask)
    else:
        outputs = _flash_attention(*inputs)
    if num_heads > 1:
        outputs = ops.transpose(outputs, (0, 2, 1, 3))
        outputs = ops.reshape(outputs, (-1, ops.shape(outputs)[1], num_heads * value.shape[-1]))
    return outputs, found


def _suits_flash_attention(inputs, training):
    query, _, value = inputs
    # The kernels have no second derivatives, which penalties on gradients need.
    if training or any(getattr(x, "requires_grad", False) for x in inputs):
        return False
    is_half = keras.backend.standardize_dtype(query.dtype) in ("float16", "bfloat16")
    has_kernels = keras.backend.backend() in ("jax", "torch")
    return is_half and has_kernels and query.shape[-1] == value.shape[-1]


def _flash_attention(*inputs):
    """Computes the outputs of `spatial_attention` with flash attention."""
    has_heads = len(inputs[0].shape) == 4
    # Keras expects the heads axis after the locations axis.
    inputs = [ops.transpose(x, (0, 2, 1, 3)) if has_heads else x[:, :, None] for x in inputs]
    outputs = ops.dot_product_attention(*inputs, scale=1.0)
    return ops.transpose(outputs, (0, 2, 1, 3)) if has_heads else outputs[:, :, 0]


def _split_heads(x, num_heads):
    """Reshapes `(batch, length, channels)` to `(batch, heads, length, channels / heads)`."""
    _, length, channels = ops.shape(x)
    x = ops.reshape(x, (-1, length, num_heads, channels // num_heads))
    return ops.transpose(x, (0, 2, 1, 3))


def _factors(query, key, scores):
    """Returns a query and a key whose products are the logits of l2 or cosine scores."""
    query, key = (ops.cast(x, _score_dtype(x)) for x in (query, key))
    squares = [ops.sum(ops.square(x), axis=-1, keepdims=True) for x in (query, key)]
    if scores == "cosine":

        def unit(x, square):
            # ReLU can return vectors of zeros; clipping their length would cause huge gradients.
            is_zero = square < 1e-12
            length = ops.sqrt(ops.where(is_zero, ops.ones_like(square), square))
            return ops.where(is_zero, ops.zeros_like(x), x / length)

        query, key = (unit(x, square) for x, square in zip((query, key), squares))
        return query / COSINE_TEMPERATURE, key
    # The square of the query is the same for all keys, so the softmax doesn't depend on it.
    scale = key.shape[-1] ** -0.5
    query = ops.concatenate([2 * scale * query, ops.ones_like(squares[0])], axis=-1)
    return query, ops.concatenate([key, -scale * squares[1]], axis=-1)


def chunked_spatial_attention(query, key, value, query_chunk_size: int, training: bool = False):
    """Computes the outputs of `spatial_attention` for one block of queries at a time.

    The softmax of each block is over all keys, so the result is exact. The gradient recomputes the
    scores of each block, so the forward and backward passes keep only
    `O(queries + query_chunk_size * keys)` numbers per image in memory.

    Args:
        query, key, value: As in `spatial_attention`. The number of queries may be unknown while a
            graph is traced.
        query_chunk_size: Positive integer, the number of queries per block. The number of queries
            doesn't have to be a multiple of `query_chunk_size`.
        training: Boolean, whether the call is for training. In a graph traced with `training=False`
            and an unknown batch size, the batch must not be empty.

    Returns:
        Float tensor of shape `(batch, queries, value_channels)`, or
        `(batch, heads, queries, value_channels)`, in the dtype of `value`.

    Reference: [Rabe and Staats, 2021](https://arxiv.org/abs/2112.05682).
    """
    if len(query.shape) == 4:  # Heads are independent: fold them into the batch.
        num_heads = query.shape[1]
        query, key, value = (ops.reshape(x, (-1, *ops.shape(x)[2:])) for x in (query, key, value))
        outputs = chunked_spatial_attention(query, key, value, query_chunk_size, training)
        return ops.reshape(outputs, (-1, num_heads, *ops.shape(outputs)[1:]))
    count = -(-ops.shape(query)[1] // query_chunk_size)
    size = -(-ops.shape(query)[1] // count)  # The number of queries in each block.

    def blocks(x):
        """Pads `(batch, queries, channels)` and splits it into `(count, batch, size, channels)`."""
        batch, length, channels = ops.shape(x)
        if not isinstance(length, int) or count * size != length:
            zeros = ops.zeros((batch, count * size - length, channels), x.dtype)
            x = ops.concatenate([x, zeros], axis=1)
        x = ops.reshape(x, (batch, count, size, channels))
        return ops.transpose(x, (1, 0, 2, 3))

    def join(x, like):
        batch, length, _ = ops.shape(like)
        x = ops.transpose(x, (1, 0, 2, 3))
        return ops.reshape(x, (batch, count * size, x.shape[-1]))[:, :length]

    @ops.custom_gradient
    def attend(query, key, value):
        def gradient(*received, upstream=None):
            # TensorFlow and JAX pass the outputs' gradient by position, PyTorch by name.
            upstream = received[0] if upstream is None else upstream
            queries, upstreams = blocks(query), blocks(upstream)

            def add_block(index, sums):
                d_queries, d_key, d_value = sums
                inputs = queries[index], key, value, upstreams[index]
                block, d_key_here, d_value_here = _block_gradients(*inputs)
                d_queries = ops.scatter_update(d_queries, [[index]], block[None])
                d_value += ops.cast(d_value_here, d_value.dtype)
                return d_queries, d_key + d_key_here, d_value

            zeros = [ops.zeros(ops.shape(x), _score_dtype(query)) for x in (queries, key, value)]
            d_queries, d_key, d_value = _repeat(add_block, count, tuple(zeros))
            found = (join(d_queries, query), query), (d_key, key), (d_value, value)
            return tuple(ops.cast(gradient, x.dtype) for gradient, x in found)

        inputs = query, key, value
        if keras.backend.backend() == "tensorflow":
            # The tape would keep the blocks in memory. JAX needs the gradients: a gradient of a
            # gradient differentiates this function, not `gradient` alone.
            inputs = tuple(ops.stop_gradient(x) for x in inputs)
        queries, *others = inputs
        outputs = ops.map(lambda block: spatial_attention(block, *others)[0], blocks(queries))
        return join(outputs, query), gradient

    def attend_images(inputs):
        if isinstance(ops.shape(inputs[0])[0], int):
            return attend(*inputs)
        # LiteRT can't loop over blocks of unknown size, so loop over single images.
        return ops.map(lambda image: attend(*(x[None] for x in image))[0], inputs)

    return of_any_batch(attend_images, (query, key, value), training)


def _repeat(body, count, values):
    """Returns `ops.fori_loop(0, count, body, values)`, which has second derivatives under XLA."""
    if keras.backend.backend() != "tensorflow":
        return ops.fori_loop(0, count, body, values)
    # XLA can differentiate a loop only if the number of iterations has a known bound.
    return ops.while_loop(
        lambda index, *values: index < count,
        lambda index, *values: (index + 1, *body(index, values)),
        (0, *values),
        maximum_iterations=count,
    )[1:]


def _block_gradients(query, key, value, upstream):
    """Recomputes the scores; returns the gradients with respect to query, key and value."""
    outputs, scores = spatial_attention(query, key, value)
    dtype = scores.dtype
    d_scores = ops.cast(ops.matmul(upstream, _transposed(value)), dtype)
    # `mean` equals the sum of scores * d_scores over the keys, but is faster to compute.
    mean = ops.sum(ops.cast(upstream, dtype) * ops.cast(outputs, dtype), axis=-1, keepdims=True)
    d_logits = scores * (d_scores - mean)
    return (
        ops.matmul(d_logits, ops.cast(key, dtype)),
        ops.matmul(_transposed(d_logits), ops.cast(query, dtype)),
        ops.matmul(_transposed(ops.cast(scores, value.dtype)), upstream),
    )


def _score_dtype(x):
    return "float64" if "float64" in str(x.dtype) else "float32"


def _transposed(x):
    return ops.swapaxes(x, -1, -2)


def automatic_chunk_size(queries: int | None, keys: int | None, num_heads: int = 1) -> int | None:
    """Returns the number of queries per block for `query_chunk_size="auto"`.

    The result is `None` (a single block) if an image has fewer than 2^24 scores (64 MB), or if
    `queries` or `keys` is unknown.
    """
    if queries is None or keys is None or queries * keys * num_heads < 2**24:
        return None
    return max(1, 2**20 // (keys * num_heads))  # The scores of a block need 4 MB per image.


def attention_entropy(scores):
    """Returns the entropy of attention, relative to the entropy of uniform attention.

    A value of 1 means that a query attends to all key locations equally, and 0 means that the query
    attends to only one location.

    Args:
        scores: Float array of shape `(…, key_height, key_width)` that sums to 1 over the last two
            axes, such as the results of `attention_maps()` and `record_attention_scores`.

    Returns:
        Float tensor of shape `(…)`, in [0, 1]; 1 if there is only one key.

    Example:
    >>> import numpy as np
    >>> float(attention_entropy(np.array([[0.5, 0.5], [0.0, 0.0]])))  # log(2) / log(4)
    0.5
    """
    scores = ops.convert_to_tensor(scores)
    keys = scores.shape[-2] * scores.shape[-1]
    if keys == 1:
        return ops.ones_like(scores[..., 0, 0])
    logs = ops.log(ops.where(scores > 0, scores, ops.ones_like(scores)))  # Define 0 * log(0) as 0.
    entropy = -ops.sum(scores * logs, axis=(-2, -1))
    return ops.clip(entropy / float(np.log(keys)), 0.0, 1.0)
