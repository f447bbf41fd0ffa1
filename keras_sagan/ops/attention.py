"""Attention between the locations of image maps."""

import numpy as np
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
