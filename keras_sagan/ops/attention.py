"""Attention between the locations of image maps."""

import numpy as np
from keras import ops

from keras_sagan.ops.compiled import compiled, is_cpu_only, is_in_compiled_program
from keras_sagan.ops.empty_batch import call_by_batch
from keras_sagan.ops.gradients import with_gradient


def spatial_attention(query, key, value):
    """Attends from every query location to every key location.

    The scores are `softmax(query @ key.T)` over the keys, without the `1 / sqrt(channels)` scale
    of the transformer, as in SAGAN. Products and softmax of the scores run in at least float32.
    The scores take `O(queries * keys)` memory: at a 128 x 128 map with 2 x 2 pooling that is
    268 MB per image; `chunked_spatial_attention` gives the same outputs without.

    Args:
        query: Float tensor of shape `(batch, queries, key_channels)`.
        key: Float tensor of shape `(batch, keys, key_channels)`.
        value: Float tensor of shape `(batch, keys, value_channels)`.

    Returns:
        Tuple of the outputs `(batch, queries, value_channels)`, in the dtype of `value`, and the
        scores `(batch, queries, keys)`, in float32 (float64 for float64 inputs), each row of
        which sums to 1.

    Reference:
        [Zhang et al., 2019](https://arxiv.org/abs/1805.08318), equations 1 and 2.
    """
    scores = _scores(query, key)
    return _weighted(scores, value), scores


def attend(query, key, value):
    """The outputs of `spatial_attention` alone, with a gradient in fewer operations.

    Args:
        query, key, value: As in `spatial_attention`.

    Returns:
        Float tensor of shape `(batch, queries, value_channels)`, in the dtype of `value`.
    """

    def outputs_of(query, key, value):
        return _weighted(_scores(query, key), value)

    def gradient(inputs, upstream):
        gradients = _gradients(*inputs, upstream)
        return tuple(ops.cast(x, like.dtype) for x, like in zip(gradients, inputs))

    return with_gradient(outputs_of, gradient)(query, key, value)


def _gradients(query, key, value, upstream):
    """Of query, key and value. What the outputs were made of is computed anew."""
    scores = _scores(query, key)
    dtype = scores.dtype
    d_scores = ops.cast(ops.matmul(upstream, _transposed(value)), dtype)
    # The sum over keys of scores * d_scores, of fewer numbers.
    outputs = ops.cast(_weighted(scores, value), dtype)
    mean = ops.sum(ops.cast(upstream, dtype) * outputs, axis=-1, keepdims=True)
    d_logits = _softmax_gradient(scores, d_scores, mean)
    return (
        ops.matmul(d_logits, ops.cast(key, dtype)),
        ops.matmul(_transposed(d_logits), ops.cast(query, dtype)),
        ops.matmul(_transposed(ops.cast(scores, value.dtype)), upstream),
    )


_softmax_gradient = compiled(
    lambda scores, d_scores, mean: scores * (d_scores - mean),
    least=2**16,  # Of smaller maps it takes long to compile for what it saves.
)


def _weighted(scores, value):
    return ops.matmul(ops.cast(scores, value.dtype), value)


def chunked_spatial_attention(query, key, value, query_chunk_size, training=True):
    """The outputs of `spatial_attention`, from a block of queries at a time.

    Each block has its softmax over all keys, so that nothing is approximated. The scores of a
    block are computed anew for the gradient: forward and backward pass keep
    `O(queries + query_chunk_size * keys)` numbers. On CPUs images come one after the other, so
    that the sums over blocks stay in the cache.

    Args:
        query: Float tensor of shape `(batch, queries, key_channels)`. The number of queries need
            not be a multiple of the block's, and may be unknown while a graph is made.
        key: Float tensor of shape `(batch, keys, key_channels)`.
        value: Float tensor of shape `(batch, keys, value_channels)`.
        query_chunk_size: Positive integer, the queries of a block.
        training: Boolean, whether a batch of unknown size may turn out to be empty. Defaults to
            `True`.

    Returns:
        Float tensor of shape `(batch, queries, value_channels)`, in the dtype of `value`.

    Reference:
        [Rabe and Staats, 2021](https://arxiv.org/abs/2112.05682).
    """

    def attend_image(inputs):
        return _attend_in_blocks(*(x[None] for x in inputs), query_chunk_size)[0]

    def attend_images():
        if is_cpu_only() and not is_in_compiled_program():
            return ops.map(attend_image, (query, key, value))
        return _attend_in_blocks(query, key, value, query_chunk_size)

    # Loops can't have no images.
    return call_by_batch(query, attend_images, lambda: attend(query, key, value), training)


def _attend_in_blocks(query, key, value, query_chunk_size):
    count = _ceil_div(ops.shape(query)[1], query_chunk_size)
    size = _ceil_div(ops.shape(query)[1], count)  # Blocks of one size.

    def blocks(x):
        """`(batch, queries, channels)` to `(count, batch, size, channels)`, zeros at the end."""
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

    def outputs_of(*inputs):
        query, key, value = map(ops.stop_gradient, inputs)  # Nobody's tape keeps the blocks.
        outputs = ops.map(lambda x: spatial_attention(x, key, value)[0], blocks(query))
        return join(outputs, query)

    def gradient(inputs, upstream):
        return _chunked_gradients(*inputs, upstream, count, blocks, join)

    return with_gradient(outputs_of, gradient)(query, key, value)


def _chunked_gradients(query, key, value, upstream, count, blocks, join):
    queries, upstreams = blocks(query), blocks(upstream)

    def add_block(index, sums):
        d_queries, d_key, d_value = sums
        inputs = queries[index], key, value, upstreams[index]
        block, d_key_here, d_value_here = _gradients(*inputs)
        d_queries = ops.scatter_update(d_queries, [[index]], block[None])
        d_value += ops.cast(d_value_here, d_value.dtype)
        return d_queries, d_key + d_key_here, d_value

    sum_dtype = _score_dtype(query)
    zeros = tuple(ops.zeros(ops.shape(x), sum_dtype) for x in (queries, key, value))
    d_queries, d_key, d_value = ops.fori_loop(0, count, add_block, zeros)
    return (
        ops.cast(join(d_queries, query), query.dtype),
        ops.cast(d_key, key.dtype),
        ops.cast(d_value, value.dtype),
    )


def automatic_chunk_size(queries, keys):
    """The block of queries that `query_chunk_size="auto"` stands for.

    Args:
        queries, keys: Integers, or `None` where they aren't known.

    Returns:
        Integer; `None` for the whole form, where the scores of an image have fewer than 2^24
        numbers (64 MB), or where their size isn't known.
    """
    if queries is None or keys is None or queries * keys < 2**24:
        return None
    return max(1, 2**19 // keys)  # Scores of 2 MB per image.


def _scores(query, key):
    dtype = _score_dtype(query)
    logits = ops.matmul(ops.cast(query, dtype), _transposed(ops.cast(key, dtype)))
    return ops.softmax(logits, axis=-1)


def _score_dtype(x):
    return "float64" if "float64" in str(x.dtype) else "float32"


def _transposed(x):
    return ops.transpose(x, (0, 2, 1))


def _ceil_div(x, y):
    return -(-x // y)


def attention_entropy(scores):
    """Entropy of attention as a share of that of uniform attention.

    1 means that every key location counts alike, 0 that a query looks at a single one.

    Args:
        scores: Float array of shape `(…, key_height, key_width)` that sums to 1 over the last two
            axes, as `attention_maps()` and `record_attention_scores` give them.

    Returns:
        Float tensor of shape `(…)`, in [0, 1]; 1 where there is one key alone.

    Example:

    >>> import numpy as np
    >>> float(attention_entropy(np.array([[0.5, 0.5], [0.0, 0.0]])))  # log(2) / log(4)
    0.5
    """
    scores = ops.convert_to_tensor(scores)
    keys = scores.shape[-2] * scores.shape[-1]
    if keys == 1:
        return ops.ones_like(scores[..., 0, 0])
    logs = ops.log(ops.where(scores > 0, scores, ops.ones_like(scores)))  # 0 log 0 = 0
    entropy = -ops.sum(scores * logs, axis=(-2, -1))
    return ops.clip(entropy / float(np.log(keys)), 0.0, 1.0)
