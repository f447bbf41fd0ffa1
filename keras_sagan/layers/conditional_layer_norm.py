"""Conditional layer normalization."""

import keras

from keras_sagan.layers.conditional_group_norm import ConditionalGroupNorm


@keras.saving.register_keras_serializable(package="keras_sagan")
class ConditionalLayerNorm(ConditionalGroupNorm):
    """Layer normalization whose `gamma` and `beta` depend on labels or on a vector per image.

    This layer is `ConditionalGroupNorm` with one group. The mean and variance are computed over all
    axes except the batch axis. The critic of WGAN-GP uses this form of layer normalization instead
    of batch normalization. Each channel has its own `gamma` and `beta`. By default,
    `keras.layers.LayerNormalization` instead normalizes the channels of each position separately,
    as in transformers. For inputs of rank 2, both normalize the same axes.

    Args:
        num_classes, axis, epsilon, condition_dim: As in `ConditionalGroupNorm`.

    Call arguments:
        images: Float tensor of rank 2 or more, `(batch, …, channels)`.
        labels, training: As in `ConditionalGroupNorm`.

    Returns:
        Float tensor with the same shape as `images`, in the layer's compute dtype.

    Raises:
        ValueError: As in `ConditionalGroupNorm`.

    Example:
    >>> import numpy as np
    >>> layer = ConditionalLayerNorm(num_classes=10)
    >>> outputs = layer(np.ones((8, 4, 4, 6), "float32"), np.arange(8))
    >>> tuple(outputs.shape)
    (8, 4, 4, 6)

    Reference: [Ba et al., 2016](https://arxiv.org/abs/1607.06450). The axes are the same as in
    [Gulrajani et al., 2017](https://arxiv.org/abs/1704.00028).
    """

    def __init__(
        self,
        num_classes: int | None = None,
        axis: int = -1,
        epsilon: float = 1e-5,
        condition_dim: int | None = None,
        **kwargs,
    ):
        super().__init__(num_classes, 1, axis, epsilon, condition_dim, **kwargs)

    def get_config(self) -> dict:
        config = super().get_config()
        config.pop("groups")
        return config
