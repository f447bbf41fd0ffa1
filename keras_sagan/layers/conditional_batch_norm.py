"""Batch normalisation with a scale and an offset for each class."""

import math

import keras
from keras import ops

from keras_sagan.checks import (
    check_boolean,
    check_float,
    check_integer,
    check_labels,
    check_weight,
)

SETTLED = 2**30  # So many updates that `momentum` alone rules.


@keras.saving.register_keras_serializable(package="keras_sagan")
class ConditionalBatchNorm(keras.layers.Layer):
    """Batch normalisation whose `gamma` and `beta` are looked up by class label.

    `outputs = (images - mean) / sqrt(variance + epsilon) * gamma[labels] + beta[labels]`, with the
    moments of the whole batch. Moments are taken in two passes in float32, whatever the policy,
    so that a large mean costs little precision. With one class it is a `BatchNormalization`, and
    the labels may be left out. The defaults are those of SAGAN, not of Keras. The moving
    statistics forget where they start: they are plain means of the first ten batches, then means
    over about the last fortieth of all updates (at least ten), until `momentum` keeps less.

    Args:
        num_classes: Positive integer, the rows of the two tables.
        axis: Integer, the axis of the channels. Defaults to `-1`.
        momentum: Float in [0, 1], the largest share of the moving statistics that a training call
            keeps; early calls keep less, and with `1` they never move. Defaults to `0.999`.
        epsilon: Positive float, added to the variance. Defaults to `1e-5`.
        synchronized: Boolean, whether the moments are those of the global batch over all
            replicas of a `tf.distribute` strategy. Defaults to `False`. It changes nothing on JAX
            and PyTorch, where moments are those of the global batch in any case.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Call arguments:
        images: Float tensor of rank 2 or more, `(batch, …, channels)`.
        labels: Integer tensor of shape `(batch,)` in `[0, num_classes)`; optional with one class.
        training: Boolean, whether to use (and keep) the moments of the batch.
        mask: Boolean tensor of the shape of `images` without the last axis: the positions whose
            moments are taken, as in `keras.layers.BatchNormalization`. Defaults to all.
        images_mask: The same; what Keras calls the mask of `images` where there are labels.

    Returns:
        Float tensor of the shape of `images`, in the layer's compute dtype.

    State:
        `moving_mean` and `moving_variance`, of shape `(channels,)`: move with `training=True`,
        used otherwise. `num_updates`, int32 of shape `()`: how often they moved. An empty batch
        leaves all three as they are. From files without `num_updates` the statistics are taken as
        settled: `momentum` alone rules.

    Raises:
        ValueError: For `num_classes < 1`, a `momentum` outside [0, 1], an `epsilon` that isn't
            positive, an `axis` that the images don't have, missing labels with more than one
            class, labels that are not integers of shape `(batch,)` or, where their values are
            known, out of range, or a mask of another rank.

    Example:

    >>> import numpy as np
    >>> layer = ConditionalBatchNorm(num_classes=10)
    >>> images = np.random.normal(3.0, 2.0, (8, 4, 4, 5)).astype("float32")
    >>> outputs = layer(images, np.arange(8), training=True)
    >>> abs(float(np.mean(outputs))) < 1e-5
    True

    Reference:
        [Dumoulin et al., 2017](https://arxiv.org/abs/1610.07629); tables, momentum and epsilon
        from the SAGAN authors' code.
    """

    def __init__(
        self, num_classes, axis=-1, momentum=0.999, epsilon=1e-5, synchronized=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.num_classes = check_integer("num_classes", num_classes)
        self.axis = check_integer("axis", axis, minimum=-math.inf)
        self.momentum = check_float("momentum", momentum, minimum=0, maximum=1)
        self.epsilon = check_float("epsilon", epsilon, above=0)
        self.synchronized = check_boolean("synchronized", synchronized)
        self._has_replicas = self.synchronized and keras.backend.backend() == "tensorflow"
        self.supports_masking = True

    def build(self, images_shape, labels_shape=None):
        if images_shape and isinstance(images_shape[0], (tuple, list)):
            raise ValueError(
                "`images` and `labels` must be two arguments: `layer(images, labels)`. "
                f"Received: a list of tensors of shapes {images_shape}"
            )
        self._check_axis(images_shape)
        channels = images_shape[self.axis]
        if channels is None:
            raise ValueError(
                "The channels of `images`, along `axis`, must be known. "
                f"Received: axis={self.axis} for images of shape {tuple(images_shape)}"
            )
        check_weight((self.num_classes, channels), num_classes=self.num_classes)
        table = {"shape": (self.num_classes, channels), "autocast": False}
        statistic = {
            "shape": (channels,),
            "autocast": False,
            "trainable": False,
            "aggregation": "mean",
        }
        self.gamma = self.add_weight(name="gamma", initializer="ones", **table)
        self.beta = self.add_weight(name="beta", initializer="zeros", **table)
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **statistic)
        self.moving_variance = self.add_weight(
            name="moving_variance", initializer="ones", **statistic
        )
        self.num_updates = self.add_weight(
            name="num_updates",
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def _check_axis(self, shape):
        rank = len(shape)
        if self.axis == 0 or not -rank < self.axis < rank:
            raise ValueError(
                f"`axis` must be an axis of `images` after the batch's, which have rank {rank}. "
                f"Received: axis={self.axis} for images of shape {tuple(shape)}"
            )

    def call(self, images, labels=None, training=False, mask=None, images_mask=None):
        labels = self._checked(labels, images)
        # Statistics overflow and round in half precision.
        x = ops.cast(images, keras.backend.result_type(images.dtype, "float32"))
        if training and self.trainable:
            mask = images_mask if mask is None else mask
            if mask is None:
                mean, variance = self._moments(x)
                is_any = ops.size(x) > 0
            else:
                mean, variance, is_any = self._masked_moments(x, mask)
        else:
            mean = ops.cast(self.moving_mean, x.dtype)
            variance = ops.cast(self.moving_variance, x.dtype)
        gamma, beta = self._lookup(labels, x)
        scale = gamma * ops.rsqrt(self._expand(variance, x) + self.epsilon)
        shift = beta - self._expand(mean, x) * scale
        if training and self.trainable:
            self._update_statistics(mean, variance, is_any)
        return ops.cast(x * scale + shift, self.compute_dtype)

    def _checked(self, labels, images):
        self._check_axis(images.shape)
        if labels is None and self.num_classes > 1:
            raise ValueError(
                f"`labels` must be given, as num_classes={self.num_classes}. Received: labels=None"
            )
        if labels is None:
            return None
        labels = check_labels(labels, self.num_classes)
        counts = images.shape[0], labels.shape[0]
        if None not in counts and counts[0] != counts[1]:  # One label would serve for all images.
            raise ValueError(
                f"`labels` must have shape ({counts[0]},): one integer class id per image. "
                f"Received: labels of shape {tuple(labels.shape)}"
            )
        return labels

    def _axes(self, x):
        return [a for a in range(len(x.shape)) if a != self.axis % len(x.shape)]

    def _moments(self, x):
        axes = self._axes(x)
        if not self._has_replicas:
            # In two passes: Keras's moments are E[x^2] - E[x]^2 on torch, which cancels.
            mean = ops.mean(x, axes)
            return mean, ops.mean(ops.square(x - self._expand(mean, x)), axes)
        # Synchronised moments are E[x^2] - E[x]^2, which cancels. Around the mean it doesn't.
        shift = ops.stop_gradient(ops.moments(x, axes, synchronized=True)[0])
        mean, variance = ops.moments(x - self._expand(shift, x), axes, synchronized=True)
        return mean + shift, variance

    def _masked_moments(self, x, mask):
        """Mean and variance of the unmasked positions, and whether there are any."""
        if len(mask.shape) != len(x.shape) - 1:
            raise ValueError(
                "`mask` must have the shape of `images` without the last axis. "
                f"Received: mask of shape {tuple(mask.shape)}, images of shape {tuple(x.shape)}"
            )
        mask = ops.broadcast_to(ops.cast(ops.expand_dims(mask, -1), "bool"), ops.shape(x))

        def average(values):
            if self._has_replicas:
                return ops.moments(values, self._axes(x), synchronized=True)[0]
            return ops.mean(values, self._axes(x))

        share = average(ops.cast(mask, x.dtype))
        safe = ops.where(share > 0, share, ops.ones_like(share))
        mean = average(ops.where(mask, x, 0.0)) / safe
        deviation = ops.where(mask, x - self._expand(mean, x), 0.0)
        return mean, average(ops.square(deviation)) / safe, ops.any(share > 0)

    def _update_statistics(self, mean, variance, is_any):
        if self.momentum == 1.0:
            return
        kept = ops.cast(ramped_momentum(self.momentum, self.num_updates), mean.dtype)
        for statistic, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = ops.cast(statistic, value.dtype)
            # The moments of an empty batch are NaN.
            statistic.assign(ops.where(is_any, old * kept + value * (1.0 - kept), old))
        self.num_updates.assign(self.num_updates + ops.cast(is_any, "int32"))

    def _lookup(self, labels, x):
        if labels is None:
            return (self._expand(ops.cast(t[0], x.dtype), x) for t in (self.gamma, self.beta))
        shape = [1] * len(x.shape)
        shape[0], shape[self.axis] = -1, x.shape[self.axis]
        labels = ops.cast(labels, "int32")  # TensorFlow looks up no uint8.
        tables = (ops.take(table, labels, axis=0) for table in (self.gamma, self.beta))
        return (ops.reshape(ops.cast(rows, x.dtype), shape) for rows in tables)

    def _expand(self, vector, x):
        shape = [1] * len(x.shape)
        shape[self.axis] = x.shape[self.axis]
        return ops.reshape(vector, shape)

    def compute_output_shape(self, images_shape, labels_shape=None):
        return images_shape

    def compute_output_spec(self, images, labels=None, training=False, mask=None, images_mask=None):
        self._checked(labels, images)
        return keras.KerasTensor(images.shape, dtype=self.compute_dtype)

    def load_own_variables(self, store):
        values = {key: store[key] for key in store.keys()}
        if len(values) == 4:  # Written before there was `num_updates`, the last one.
            values["4"] = SETTLED
        super().load_own_variables(values)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "synchronized": self.synchronized,
        }


def ramped_momentum(momentum, updates):
    """The share of a moving average that its next update keeps, so that its start is forgotten.

    The first ten updates make it their plain mean, later ones the mean over about the last
    fortieth of all, and over ten at least, until `momentum` keeps less than that. The new value's
    share is `max(1 - momentum, 1 / min(n, max(10, n / 40)))` at the `n`-th update. Networks change
    fast at first: with a mean over the last tenth, pictures in inference were further from those
    by batch statistics.

    Args:
        momentum: Float in [0, 1]. With 1 the average never moves.
        updates: Integer tensor of shape `()`, the updates made before.

    Returns:
        float32 tensor of shape `()`.
    """
    if momentum >= 1.0:
        return ops.ones((), "float32")
    count = ops.cast(updates, "float32") + 1.0
    window = ops.minimum(count, ops.maximum(10.0, count / 40.0))
    return ops.minimum(momentum, 1.0 - 1.0 / window)
