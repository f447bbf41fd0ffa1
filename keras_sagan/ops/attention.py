"""Attention between the locations of image maps."""

from keras import ops


def spatial_attention(query, key, value):
    """Attends from every query location to every key location.

    The scores are `softmax(query @ key.T)` over the keys, without the `1 / sqrt(channels)` scale
    of the transformer, as in SAGAN. Products and softmax of the scores run in at least float32.
    The scores take `O(queries * keys)` memory: at a 128 x 128 map with 2 x 2 pooling that is
    268 MB per image.

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
    score_dtype = "float64" if "float64" in str(query.dtype) else "float32"
    query, key = ops.cast(query, score_dtype), ops.cast(key, score_dtype)
    scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 2, 1))), axis=-1)
    return ops.matmul(ops.cast(scores, value.dtype), value), scores
