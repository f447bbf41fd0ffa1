"""Sparse attention patterns, which limit the keys that each query attends to."""

import numpy as np
from keras import ops


def ylg_masks(size: int, pool_size: int, num_heads: int):
    """Returns YLG's sparse attention masks for all heads.

    A path visits the cells of the key map in the order of their Manhattan distance from the first
    cell. The path is cut into blocks of `size // pool_size` cells. In the first half of the heads
    ("right to left" in the paper), two masks alternate from head to head. The first mask allows the
    query's own cell and all later cells of the same block. The second mask allows the query's own
    cell and the first cell of every block. In the second half ("left to right"), the first mask
    allows earlier cells instead of later ones, and the second mask allows the last cell of every
    block instead of the first. With pooling, query `i` (in row-major order) uses the mask row of
    cell `i % num_keys`, as in the authors' code.

    Args:
        size: Positive integer, the height and width of the query map.
        pool_size: Positive integer that divides `size`. The key map has size `size // pool_size`.
        num_heads: Positive integer, a multiple of 4. The paper uses 8 heads.

    Returns:
        Boolean tensor of shape `(num_heads, queries, keys)`. Every query attends to at least one
        key.

    Example:
    >>> ylg_masks(2, 1, 4).shape == (4, 4, 4)
    True

    Reference: [Daras et al., 2020](https://arxiv.org/abs/1911.12287).
    """
    side = size // pool_size
    rows, columns = np.divmod(np.arange(side**2), side)
    place = np.argsort(np.lexsort((rows, rows + columns))).astype("int32")
    query, key = np.tile(place, pool_size**2)[:, None], place[None]
    # Compare tensors, because numpy masks of a large map would be huge constants in a graph.
    is_same_block = ops.equal(query // side, key // side)
    is_self = ops.equal(query, key)

    def pair(is_ahead, end):
        is_end = ops.equal(key % side, end)
        return [ops.logical_and(is_same_block, is_ahead), ops.logical_or(is_self, is_end)]

    right_to_left = pair(ops.greater_equal(key, query), 0)
    left_to_right = pair(ops.less_equal(key, query), side - 1)
    repeats = num_heads // 4
    return ops.stack(right_to_left * repeats + left_to_right * repeats)
