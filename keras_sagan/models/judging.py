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
            `has_batch_statistics`, unless the images have no values yet.

    Returns:
        Tuple of the real and the fake logits, float32 of shape `(batch,)` each.
    """
    if apart is None:
        apart = hasattr(real[0], "numpy") and has_batch_statistics(discriminator, *real)
    if apart:
        return tuple(judge(discriminator, *pair, training) for pair in (real, fake))
    images = tf.concat([real[0], ops.cast(fake[0], real[0].dtype)], axis=0)
    labels = None if real[1] is None else tf.concat([tf.cast(real[1], tf.int32), fake[1]], axis=0)
    return tf.split(judge(discriminator, images, labels, training), 2)


def has_batch_statistics(discriminator, images, labels):
    """Whether the logits of an image depend on the other images of its batch.

    Half of a batch is judged twice, beside two other halves. Batch normalization and a minibatch
    standard deviation are found by that; a draw of `Dropout` isn't taken for them, as it is the
    same both times.

    Args:
        discriminator: Keras model.
        images: float32 images in [-1, 1]; the first few are enough.
        labels: Their labels, or `None`.

    Returns:
        Boolean.
    """
    if any(getattr(layer, "synchronized", False) for layer in discriminator._flatten_layers()):
        return True  # It can't be called outside of its replica.
    images = np.asarray(ops.convert_to_numpy(images[:FEW]))
    others = (images[::-1] * -0.5, images * 0.25)
    labels = None if labels is None else np.tile(ops.convert_to_numpy(labels[:FEW]), 2)
    pair = [
        values_of(judge, discriminator, np.concatenate([images, other]), labels, training=True)
        for other in others
    ]
    half = len(pair[0]) // 2
    one, other = (logits[:half] for logits in pair)
    return not np.allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())


def values_of(function, network, inputs, labels, training=False):
    """What `call` or `judge` gives, as an array; nothing moves, and XLA compiles nothing."""
    labels = None if labels is None else ops.convert_to_tensor(labels, "int32")
    with keras.StatelessScope(), compiled_parts(False):
        outputs = function(network, ops.convert_to_tensor(inputs), labels, training)
    return ops.convert_to_numpy(ops.cast(outputs, "float32"))
