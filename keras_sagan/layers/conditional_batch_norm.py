"""Conditional batch normalization, and the base class of all conditional normalization layers."""

import math

import keras
from keras import KerasTensor, ops

from keras_sagan.checks import (
    check_boolean,
    check_float,
    check_integer,
    check_labels,
    check_weight,
)

SETTLED = 2**30  # Older files get this `num_updates`, at which the momentum has its final value.


class ConditionalNormBase(keras.layers.Layer):
    """Base class of normalization layers whose `gamma` and `beta` depend on labels or vectors.

    Labels select rows of the tables `gamma` and `beta`. Vectors are multiplied by two kernels:
    `gamma = 1 + vectors @ gamma_kernel` and `beta = vectors @ beta_kernel`. The kernels start as
    zeros, so a new layer ignores the vectors. A subclass calls `_add_condition` to create these
    weights, and `_gamma_and_beta` to read them.
    """

    def __init__(self, num_classes, axis, epsilon, condition_dim, **kwargs):
        super().__init__(**kwargs)
        optional = {"optional": True, "expected": "a positive integer"}
        self.num_classes = check_integer("num_classes", num_classes, **optional)
        self.condition_dim = check_integer("condition_dim", condition_dim, **optional)
        if (self.num_classes is None) == (self.condition_dim is None):
            raise ValueError(
                "`num_classes` or `condition_dim` must be given, and not both. Received: "
                f"num_classes={num_classes}, condition_dim={condition_dim}"
            )
        self.axis = check_integer("axis", axis, minimum=-math.inf)
        self.epsilon = check_float("epsilon", epsilon, above=0)
        self.supports_masking = True

    def _add_condition(self, images_shape):
        """Adds tables or kernels for `gamma` and `beta`, and returns the number of channels."""
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
        name = self._condition_name
        weight = {"shape": (getattr(self, name), channels), "autocast": False}
        check_weight(weight["shape"], **{name: getattr(self, name)})
        if self.condition_dim is None:
            self.gamma = self.add_weight(name="gamma", initializer="ones", **weight)
            self.beta = self.add_weight(name="beta", initializer="zeros", **weight)
        else:
            self.gamma_kernel = self.add_weight(name="gamma_kernel", initializer="zeros", **weight)
            self.beta_kernel = self.add_weight(name="beta_kernel", initializer="zeros", **weight)
        return channels

    @property
    def _condition_name(self):
        return "num_classes" if self.condition_dim is None else "condition_dim"

    def _check_axis(self, shape):
        rank = len(shape)
        if self.axis == 0 or not -rank < self.axis < rank:
            raise ValueError(
                f"`axis` must be an axis of `images`, which have rank {rank}, other than the batch "
                f"axis. Received: axis={self.axis} for images of shape {tuple(shape)}"
            )

    def _checked(self, labels, images):
        self._check_axis(images.shape)
        if labels is None:
            if self.num_classes == 1:
                return None
            name = self._condition_name
            raise ValueError(
                f"`labels` must be given, as {name}={getattr(self, name)}. Received: labels=None"
            )
        if self.condition_dim is None:
            labels, kind = check_labels(labels, self.num_classes), "integer class id"
        else:
            labels, kind = self._checked_vectors(labels), "vector"
        counts = images.shape[0], labels.shape[0]
        if None not in counts and counts[0] != counts[1]:  # A single label would broadcast.
            raise ValueError(
                f"`labels` must have shape {(counts[0], *labels.shape[1:])}: one {kind} per image. "
                f"Received: labels of shape {tuple(labels.shape)}"
            )
        return labels

    def _checked_vectors(self, vectors):
        if not isinstance(vectors, KerasTensor):
            vectors = ops.convert_to_tensor(vectors)
        dtype, shape = keras.backend.standardize_dtype(vectors.dtype), tuple(vectors.shape)
        is_wide = len(shape) == 2 and shape[1] in (None, self.condition_dim)
        if "float" not in dtype or not is_wide:
            raise ValueError(
                f"`labels` must be float vectors of shape (batch, {self.condition_dim}), as "
                f"condition_dim={self.condition_dim}. "
                f"Received: labels of dtype {dtype} and shape {shape}"
            )
        return vectors

    def _gamma_and_beta(self, labels, x):
        """Returns `gamma` and `beta` in the dtype of `x`, with shapes that broadcast to it."""
        if labels is None:
            return (self._expand(ops.cast(t[0], x.dtype), x) for t in (self.gamma, self.beta))
        if self.condition_dim is None:
            labels = ops.cast(labels, "int32")  # TensorFlow can't look up rows by uint8 labels.
            tables = (ops.take(table, labels, axis=0) for table in (self.gamma, self.beta))
            gamma, beta = (ops.cast(rows, x.dtype) for rows in tables)
        else:
            vectors = ops.cast(labels, x.dtype)
            gamma = 1.0 + ops.matmul(vectors, ops.cast(self.gamma_kernel, x.dtype))
            beta = ops.matmul(vectors, ops.cast(self.beta_kernel, x.dtype))
        return self._expand(gamma, x, batch=-1), self._expand(beta, x, batch=-1)

    def _expand(self, vector, x, batch=1):
        shape = [1] * len(x.shape)
        shape[0], shape[self.axis] = batch, x.shape[self.axis]
        return ops.reshape(vector, shape)

    def compute_output_shape(self, images_shape: tuple, labels_shape: tuple | None = None) -> tuple:
        return images_shape

    def compute_output_spec(self, images, labels=None, **kwargs):
        self._checked(labels, images)
        return KerasTensor(images.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict:
        config = {name: getattr(self, name) for name in ("num_classes", "axis", "epsilon")}
        if self.condition_dim is not None:  # Older versions don't accept `condition_dim`.
            config["condition_dim"] = self.condition_dim
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="keras_sagan")
class ConditionalBatchNorm(ConditionalNormBase):
    """Batch normalization whose `gamma` and `beta` depend on labels or on a vector per image.

    `outputs = (images - mean) / sqrt(variance + epsilon) * gamma + beta`. Labels select rows of the
    tables `gamma` and `beta`. Float vectors, such as attributes or a text embedding, are multiplied
    by two kernels: `gamma = 1 + vectors @ gamma_kernel` and `beta = vectors @ beta_kernel`. The
    kernels start as zeros, so in the first step, the layer ignores the vectors, and the gradient
    with respect to the vectors is 0. The mean and variance are computed over the full batch,
    regardless of the condition. The layer computes moments in two passes, in at least float32; a
    single pass would lose precision if the mean is large. With one class, the layer works like
    `BatchNormalization` and needs no labels. The default `momentum` and `epsilon` follow SAGAN, not
    Keras. The moving statistics don't depend on their initial values. During the first ten batches,
    they are the mean over all batches so far. Later, they are a moving average over approximately
    the last 1/40 of all batches (at least ten). The momentum therefore rises until it reaches
    `momentum`, and then stays constant.

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
        mask: Boolean tensor with the shape of `images` without the last axis, `True` at the
            positions to include in the moments, as in `keras.layers.BatchNormalization`. By
            default, all positions are included.
        images_mask: Same as `mask`. Keras passes masks under this name if there are labels.

    Returns:
        Float tensor with the same shape as `images`, in the layer's compute dtype.

    State:
        `moving_mean` and `moving_variance`, of shape `(channels,)`, are updated with
        `training=True` and used with `training=False`. If the layer's `trainable` is false, they
        are always used and never updated. `num_updates`, int32 of shape `()`, counts the updates.
        An empty batch doesn't change the state. Loading a file from an older version, which lacks
        `num_updates`, sets `num_updates` to a large value.

    Raises:
        ValueError: If an argument is out of range, neither or both of `num_classes` and
            `condition_dim` are given, `axis` isn't an axis of the images, the labels or vectors are
            missing or have the wrong dtype or shape, or the mask has the wrong rank. Labels that
            are out of range also raise an error, except in a traced graph.

    Example:
    >>> import numpy as np
    >>> layer = ConditionalBatchNorm(num_classes=10)
    >>> images = np.random.normal(3.0, 2.0, (8, 4, 4, 5)).astype("float32")
    >>> outputs = layer(images, np.arange(8), training=True)
    >>> abs(float(np.mean(outputs))) < 1e-5
    True

    Reference: [Dumoulin et al., 2017](https://arxiv.org/abs/1610.07629). The tables, `momentum` and
    `epsilon` follow the SAGAN authors' code. As in [BigGAN](https://arxiv.org/abs/1809.11096), the
    kernels have no biases, and `gamma` is centered at 1; as in
    [DiT](https://arxiv.org/abs/2212.09748), the kernels start as zeros.
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
            # Copy, because PyTorch's backward pass reads the mean after an update has changed it.
            mean = ops.cast(ops.copy(self.moving_mean), x.dtype)
            variance = ops.cast(self.moving_variance, x.dtype)
        gamma, beta = self._gamma_and_beta(labels, x)
        scale = gamma * ops.rsqrt(self._expand(variance, x) + self.epsilon)
        shift = beta - self._expand(mean, x) * scale
        if training and self.trainable:
            self._update_statistics(mean, variance, is_any)
        return ops.cast(x * scale + shift, self.compute_dtype)

    def _moments(self, x, mask):
        """Returns the mean, the variance, and whether they include at least one position."""
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
    """Returns a float32 scalar, the momentum for the next update of a moving average.

    `updates` is the number of previous updates. The weight of the new value in the `n`-th update is
    `max(1 - momentum, 1 / min(n, max(10, n / 40)))`, so the average doesn't depend on its initial
    value. Networks change fast early in training, so the average covers only approximately the last
    1/40 of the updates. With a `momentum` of 1, the average never changes.
    """
    if momentum >= 1.0:
        return ops.ones((), "float32")
    count = ops.cast(updates, "float32") + 1.0
    window = ops.minimum(count, ops.maximum(10.0, count / 40.0))
    return ops.minimum(momentum, 1.0 - 1.0 / window)
