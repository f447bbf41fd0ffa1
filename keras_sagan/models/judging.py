"""What a discriminator says of real and fake images."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_sagan.ops.compiled import compiled_parts

FEW = 8  # Images, enough to find something out about a network.


def call(network, inputs, labels, training):
    """Calls a network with or without labels."""
    return network(inputs if labels is None else [inputs, labels], training=training)


def judge(discriminator, images, labels, training):
    """Logits of images in float32, as a vector whatever shape the discriminator gives them."""
    return ops.reshape(ops.cast(call(discriminator, images, labels, training), "float32"), (-1,))


def judge_both(discriminator, real, fake, training, apart=None):
    """Logits of real and fake images from one pass, that is by the same normalized kernels.

    Args:
        discriminator: Keras model.
        real, fake: Pairs of images and labels (or `None`), of the same batch size.
        training: Boolean.
        apart: Boolean, whether to use a pass for each. A discriminator with batch statistics needs
            it: the generator's step shows it fake images alone. Defaults to `None`: found out by
            `has_batch_statistics`.

    Returns:
        Tuple of the real and the fake logits, float32 of shape `(batch,)` each.
    """
    if apart is None:
        with tf.init_scope():
            apart = has_batch_statistics(discriminator, real[0].shape[1:], real[1] is not None)
    if apart:
        return tuple(judge(discriminator, *pair, training) for pair in (real, fake))
    images = tf.concat([real[0], ops.cast(fake[0], real[0].dtype)], axis=0)
    labels = None if real[1] is None else tf.concat([tf.cast(real[1], tf.int32), fake[1]], axis=0)
    return tf.split(judge(discriminator, images, labels, training), 2)


def has_batch_statistics(discriminator, image_shape, has_labels):
    """Whether the logits of an image depend on the other images of its batch.

    Half of a batch of noise is judged twice, beside two other halves. Batch normalization and a
    minibatch standard deviation are found by that; a draw of `Dropout` isn't taken for them, as it
    is the same both times. The weights are noise too, so that the answer is the same before
    training and after.

    Args:
        discriminator: Keras model.
        image_shape: Tuple `(height, width, channels)`.
        has_labels: Boolean, whether it takes labels.

    Returns:
        Boolean.
    """
    for layer in discriminator._flatten_layers():
        if hasattr(layer, "moving_mean") and layer.trainable:
            return True
    rng = np.random.default_rng(0)
    shape = (FEW, *(size or 32 for size in image_shape))
    images, *others = rng.uniform(-1.0, 1.0, (3, *shape)).astype("float32")
    labels = np.zeros(2 * FEW, "int32") if has_labels else None
    weights = [
        (v, rng.normal(size=v.shape) / np.sqrt(np.prod(v.shape[:-1])))
        for v in discriminator.trainable_variables
    ]
    one, other = (
        values_of(judge, discriminator, np.concatenate([images, x]), labels, True, weights)
        for x in others
    )
    half = len(one) // 2
    scale = np.abs(one).max(initial=0.0)
    return not np.allclose(one[:half], other[:half], rtol=1e-5, atol=1e-5 * scale, equal_nan=True)


def values_of(function, network, inputs, labels, training=False, weights=None):
    """What `call` or `judge` gives, as an array; nothing moves, and XLA compiles nothing."""
    labels = None if labels is None else ops.convert_to_tensor(labels, "int32")
    with keras.StatelessScope(state_mapping=weights), compiled_parts(False):
        outputs = function(network, ops.convert_to_tensor(inputs), labels, training)
    return ops.convert_to_numpy(ops.cast(outputs, "float32"))
