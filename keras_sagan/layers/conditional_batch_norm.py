"""Batch normalization with a condition."""

import keras
from keras import KerasTensor, ops

from keras_sagan.checks import check_boolean, check_float
from keras_sagan.layers.conditional_norm import ConditionalNormBase

SETTLED = 2**30  # After this many updates, only `momentum` determines how fast statistics change.


@keras.saving.register_keras_serializable(package="keras_sagan")
class ConditionalBatchNorm(ConditionalNormBase):
    """Batch normalization whose `gamma` and `beta` depend on labels or on a vector per image.

    `outputs = (images - mean) / sqrt(variance + epsilon) * gamma + beta`. Labels select rows of two
    tables: `gamma[labels]` and `beta[labels]`. Float vectors, such as attributes or an embedding of
    text, are multiplied by two kernels: `gamma = 1 + vectors @ gamma_kernel` and
    `beta = vectors @ beta_kernel`. The kernels start as zeros: a new layer ignores the vectors, and
    they get no gradient in the first step. The moments are computed over the full batch, regardless
    of the condition. They are computed in two passes, in float32 under every dtype policy, because
    one pass would lose precision if the mean is large. With one class, the layer works like
    `BatchNormalization` and needs no labels. The defaults follow SAGAN, not Keras. The moving
    statistics don't depend on their initial values: they average the first ten batches equally,
    then approximately the last fortieth of all updates (at least ten), until the momentum reaches
    `momentum`.

    Args:
        num_classes: Positive integer, the number of rows in the tables `gamma` and `beta`.
        axis: Integer, the axis of the channels.
        momentum: Float in [0, 1], the largest momentum of the moving statistics. Early updates use
            a lower momentum; with `1`, the statistics never change.
        epsilon: Positive float, added to the variance.
        synchronized: Boolean, whether to compute the moments over all replicas of a `tf.distribute`
            strategy. JAX and PyTorch always use the global batch.
        condition_dim: Positive integer, the length of the vectors; an alternative to `num_classes`.

    Call arguments:
        images: Float tensor of rank 2 or more, `(batch, …, channels)`.
        labels: Integer tensor of shape `(batch,)` in `[0, num_classes)`, optional with one class;
            or float tensor of shape `(batch, condition_dim)`.
        training: Boolean, whether to use the batch's moments and update the moving statistics.
        mask: Boolean tensor with the shape of `images` without the last axis: the positions to
            include in the moments, as in `keras.layers.BatchNormalization`. By default, all are
            included.
        images_mask: The same mask, under the name that Keras uses if labels are passed.

    Returns:
        Float tensor with the same shape as `images`, in the layer's compute dtype.

    State:
        `moving_mean` and `moving_variance`, of shape `(channels,)`, are updated with
        `training=True` and used otherwise; `num_updates`, int32 of shape `()`, counts their
        updates. An empty batch changes none of them. Files from older versions lack
        `num_updates`, and it gets a large value when they are loaded.

    Raises:
        ValueError: If an argument is out of range, neither or both of `num_classes` and
            `condition_dim` are given, `axis` isn't an axis of the images, the labels or vectors are
            missing or have the wrong dtype, shape or range (as far as their values are known), or
            the mask has the wrong rank.

    Example:
    >>> import numpy as np
    >>> layer = ConditionalBatchNorm(num_classes=10)
    >>> images = np.random.normal(3.0, 2.0, (8, 4, 4, 5)).astype("float32")
    >>> outputs = layer(images, np.arange(8), training=True)
    >>> abs(float(np.mean(outputs))) < 1e-5
    True

    Reference: [Dumoulin et al., 2017](https://arxiv.org/abs/1610.07629). The tables, `momentum` and
    `epsilon` follow the SAGAN authors' code. The kernels without biases, with `gamma` centered at
    1, follow [BigGAN](https://arxiv.org/abs/1809.11096), but start as zeros, as in
    [DiT](https://arxiv.org/abs/2212.09748).
    """

    def __init__(
        self,
        num_classes: int | None = None,
        axis: int = -1,
        momentum: float = 0.999,
        epsilon: float = 1e-5,
        synchronized: bool = False,
        condition_dim: int | None = None,
        **kwargs,
    ):
        super().__init__(num_classes, axis, epsilon, condition_dim, **kwargs)
        self.momentum = check_float("momentum", momentum, minimum=0, maximum=1)
        self.synchronized = check_boolean("synchronized", synchronized)
        self._has_replicas = self.synchronized and keras.backend.backend() == "tensorflow"

    def build(self, images_shape: tuple, labels_shape: tuple | None = None) -> None:
        channels = self._add_condition(images_shape)
        state = {"trainable": False, "autocast": False}
        mean = {"shape": (channels,), "aggregation": "mean", **state}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **mean)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **mean)
        count = {"shape": (), "dtype": "int32", "aggregation": "only_first_replica", **state}
        self.num_updates = self.add_weight(name="num_updates", initializer="zeros", **count)

    def call(self, images, labels=None, training=False, mask=None, images_mask=None):
        labels = self._checked(labels, images)
        # In half precision, the statistics would overflow or lose precision.
        x = ops.cast(images, keras.backend.result_type(images.dtype, "float32"))
        if training and self.trainable:
            mean, variance, is_any = self._moments(x, images_mask if mask is None else mask)
        else:
            mean = ops.cast(self.moving_mean, x.dtype)
            variance = ops.cast(self.moving_variance, x.dtype)
        gamma, beta = self._gamma_and_beta(labels, x)
        scale = gamma * ops.rsqrt(self._expand(variance, x) + self.epsilon)
        shift = beta - self._expand(mean, x) * scale
        if training and self.trainable:
            self._update_statistics(mean, variance, is_any)
        return ops.cast(x * scale + shift, self.compute_dtype)

    def _moments(self, x, mask):
        """Returns the mean and variance of the unmasked positions, and whether any exist."""
        axes = [axis for axis in range(len(x.shape)) if axis != self.axis % len(x.shape)]

        def average(values):
            if self._has_replicas:
                return ops.moments(values, axes, synchronized=True)[0]
            return ops.mean(values, axes)

        # Use two passes: E[x^2] - E[x]^2, which Keras computes on PyTorch and with
        # `synchronized=True`, suffers from cancellation.
        if mask is not None:
            if len(mask.shape) != len(x.shape) - 1:
                raise ValueError(
                    "`mask` must have the shape of `images` without the last axis. Received: mask "
                    f"of shape {tuple(mask.shape)}, images of shape {tuple(x.shape)}"
                )
            mask = ops.broadcast_to(ops.cast(ops.expand_dims(mask, -1), "bool"), ops.shape(x))
            share = average(ops.cast(mask, x.dtype))
            safe = ops.where(share > 0, share, ops.ones_like(share))
            mean = average(ops.where(mask, x, 0.0)) / safe
            deviation = ops.where(mask, x - self._expand(mean, x), 0.0)
            return mean, average(ops.square(deviation)) / safe, ops.any(share > 0)
        is_any = ops.size(x) > 0
        if not self._has_replicas:
            mean = average(x)
            return mean, average(ops.square(x - self._expand(mean, x))), is_any
        shift = ops.stop_gradient(average(x))
        mean, variance = ops.moments(x - self._expand(shift, x), axes, synchronized=True)
        return mean + shift, variance, is_any

    def _update_statistics(self, mean, variance, is_any):
        if self.momentum == 1.0:
            return
        kept = ops.cast(ramped_momentum(self.momentum, self.num_updates), mean.dtype)
        for statistic, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = ops.cast(statistic, value.dtype)
            # The moments of an empty batch are NaN: keep the old values.
            statistic.assign(ops.where(is_any, old * kept + value * (1.0 - kept), old))
        self.num_updates.assign(self.num_updates + ops.cast(is_any, "int32"))

    def load_own_variables(self, store):
        values = {key: store[key] for key in store.keys()}
        if len(values) == 4:  # Older files lack the last weight, `num_updates`.
            values["4"] = SETTLED
        super().load_own_variables(values)

    def get_config(self) -> dict:
        config = {"momentum": self.momentum, "synchronized": self.synchronized}
        return {**super().get_config(), **config}


def ramped_momentum(momentum: float, updates: KerasTensor) -> KerasTensor:
    """Returns the momentum for the next update of a moving average, a float32 scalar.

    `updates` is the number of previous updates. The weight of the new value in the `n`-th update is
    `max(1 - momentum, 1 / min(n, max(10, n / 40)))`, which makes the average forget its initial
    value. The average covers only the last fortieth of the updates, because networks change fast at
    first, and inference should be close to batch statistics. With a `momentum` of 1, the average
    never changes.
    """
    if momentum >= 1.0:
        return ops.ones((), "float32")
    count = ops.cast(updates, "float32") + 1.0
    window = ops.minimum(count, ops.maximum(10.0, count / 40.0))
    return ops.minimum(momentum, 1.0 - 1.0 / window)
