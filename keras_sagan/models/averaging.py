"""The averaged generator: an exponential moving average of all that a generator has."""

import keras
import tensorflow as tf
from keras import backend

from keras_sagan.layers.conditional_batch_norm import ConditionalBatchNorm
from keras_sagan.ops.normalization import matching_momentum, ramped_momentum

RAMP_UP = 0.05  # The half-life of the average is at most this share of the steps taken.


def update_average(average, generator, steps, ema_momentum, ema_start=0, is_updated=True):
    """Moves an averaged generator by one step.

    Args:
        average, generator: Keras models of the same architecture.
        steps: Integer variable, the training steps taken before this one.
        ema_momentum: Float in [0, 1), the largest share that the average keeps.
        ema_start: Integer, the step before which the average is a copy.
        is_updated: `True` or a boolean tensor, whether this step changed the generator. Otherwise
            the average stays too. Defaults to `True`.

    Reference:
        [Karras et al., 2020](https://arxiv.org/abs/1912.04958): the ramp is that of the authors'
        code.
    """
    taken = tf.cast(steps.value, "float32")
    ramp = tf.pow(0.5, 1.0 / (RAMP_UP * tf.maximum(taken, 1e-3)))
    momentum = tf.where(taken < ema_start, 0.0, tf.minimum(ema_momentum, ramp))
    momenta = {
        key: matching_momentum(momentum, ramped_momentum(own, steps.value))
        for key, own in moving_statistics(generator, ConditionalBatchNorm).items()
    }
    for mean, variable in zip(average.variables, generator.variables):
        value = variable.value
        if backend.is_float_dtype(variable.dtype):
            share = tf.cast(1.0 - momenta.get(id(variable), momentum), variable.dtype)
            moved = mean + share * (value - mean)
            if is_updated is not True:
                moved = tf.where(is_updated, moved, mean)
            value = tf.where(share == 1, value, moved)
        mean.assign(value)


def moving_statistics(network, *kinds):
    """Returns the momentum of the moving statistics of a network's batch norms.

    Args:
        network: Keras model.
        *kinds: Classes of layers to find besides `keras.layers.BatchNormalization`.

    Returns:
        Dictionary from the id of a variable to a float below 1; those that never move are left
        out.
    """
    norms = (keras.layers.BatchNormalization, *kinds)
    found = [x for x in network._flatten_layers() if isinstance(x, norms) and x.built]
    return {
        id(statistic): float(norm.momentum)
        for norm in found
        for statistic in (norm.moving_mean, norm.moving_variance)
        if norm.momentum < 1
    }
