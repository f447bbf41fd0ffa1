"""Conditional group normalization."""

import keras
from keras import ops

from keras_sagan.checks import check_integer
from keras_sagan.layers.conditional_batch_norm import ConditionalNormBase


@keras.saving.register_keras_serializable(package="keras_sagan")
class ConditionalGroupNorm(ConditionalNormBase):
    """Group normalization whose `gamma` and `beta` depend on labels or on a vector per image.

    `outputs = (images - mean) / sqrt(variance + epsilon) * gamma + beta`. The mean and variance are
    computed for each image and group of channels, in at least float32. `gamma` and `beta` are
    computed as in `ConditionalBatchNorm`, but the layer needs no moving statistics or
    synchronization, and returns the same outputs in training and inference. With one class and the
    same `epsilon`, it works like `keras.layers.GroupNormalization`.

    Args:
        num_classes: Positive integer, the number of rows in the tables `gamma` and `beta`.
        groups: Positive integer that divides the number of channels, or `-1` for one group per
            channel (instance normalization).
        axis: Integer, the axis of the channels.
        epsilon: Positive float, added to the variance.
        condition_dim: Positive integer, the length of the vectors; an alternative to `num_classes`.

    Call arguments:
        images: Float tensor of rank 2 or more, `(batch, …, channels)`. If `images` have a mask, the
            layer passes the mask on, but includes the masked positions in the moments, as
            `keras.layers.GroupNormalization` does.
        labels: Integer tensor of shape `(batch,)` in `[0, num_classes)`, optional with one class;
            or float tensor of shape `(batch, condition_dim)`.
        training: Boolean, ignored; it exists for consistency with `ConditionalBatchNorm`.

    Returns:
        Float tensor with the same shape as `images`, in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of range, neither or both of `num_classes` and
            `condition_dim` are given, `axis` isn't an axis of the images, `groups` doesn't divide
            the channels, or the labels or vectors are missing or have the wrong dtype or shape.

    Example:
    >>> import numpy as np
    >>> layer = ConditionalGroupNorm(groups=2, condition_dim=3)
    >>> outputs = layer(np.ones((8, 4, 4, 6), "float32"), np.ones((8, 3), "float32"))
    >>> tuple(outputs.shape)
    (8, 4, 4, 6)

    Reference: [Wu & He, 2018](https://arxiv.org/abs/1803.08494); for the condition, see
    `ConditionalBatchNorm`.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-5,
        condition_dim: int | None = None,
        **kwargs,
    ):
        super().__init__(num_classes, axis, epsilon, condition_dim, **kwargs)
        expected = "a positive integer or -1"
        self.groups = check_integer("groups", groups, minimum=-1, expected=expected)
        if self.groups != -1:
            check_integer("groups", groups, expected=expected)

    def build(self, images_shape: tuple, labels_shape: tuple | None = None) -> None:
        channels = self._add_condition(images_shape)
        if self.groups != -1 and channels % self.groups:
            raise ValueError(
                "`groups` must divide the channels of `images`, or be -1. "
                f"Received: groups={self.groups} for images of shape {tuple(images_shape)}"
            )

    def call(self, images, labels=None, training=False):
        labels = self._checked(labels, images)
        # In half precision, the moments would overflow or lose precision.
        images = ops.cast(images, keras.backend.result_type(images.dtype, "float32"))
        gamma, beta = self._gamma_and_beta(labels, images)
        axis, shape = self.axis % len(images.shape), list(ops.shape(images))
        channels = images.shape[axis]
        groups = channels if self.groups == -1 else self.groups
        grouped = [*shape[:axis], groups, channels // groups, *shape[axis + 1 :]]
        x = ops.reshape(images, grouped)
        axes = [i for i in range(1, len(x.shape)) if i != axis]
        # Use two passes, because E[x^2] - E[x]^2 suffers from cancellation.
        x = x - ops.mean(x, axes, keepdims=True)
        x = x * ops.rsqrt(ops.mean(ops.square(x), axes, keepdims=True) + self.epsilon)
        return ops.cast(ops.reshape(x, shape) * gamma + beta, self.compute_dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "groups": self.groups}
