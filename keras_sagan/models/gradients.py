"""The gradients of the two losses, as functions that assign nothing.

Variables are read, new states are returned. So each function can be compiled by XLA inside one
replica of a strategy, while the optimisers' collectives and all assignments stay outside.
"""

import keras
import tensorflow as tf
from keras import ops

from keras_sagan.layers.normalized_kernels import (
    given_kernels,
    normalize_kernels,
    normalized_layers,
)


def call(network, inputs, labels, training):
    """Calls a network with or without labels."""
    return network(inputs if labels is None else [inputs, labels], training=training)


def judge(discriminator, images, labels, training):
    """Logits of images in float32, as a vector whatever shape the discriminator gives them."""
    return ops.reshape(ops.cast(call(discriminator, images, labels, training), "float32"), (-1,))


def judge_both(discriminator, real, fake, training):
    """Logits of real and fake images from one pass, that is by the same normalised kernels.

    Args:
        discriminator: Keras model.
        real, fake: Pairs of images and labels (or `None`), of the same batch size.
        training: Boolean.

    Returns:
        Tuple of the real and the fake logits, float32 of shape `(batch,)` each.
    """
    images = tf.concat([real[0], ops.cast(fake[0], real[0].dtype)], axis=0)
    labels = None if real[1] is None else tf.concat([tf.cast(real[1], tf.int32), fake[1]], axis=0)
    return tf.split(judge(discriminator, images, labels, training), 2)


def generator_layers(model):
    """Normalised layers of the generator alone: the discriminator's updates move what it shares."""
    return normalized_layers(model.generator, besides=model.discriminator)


def generator_kernels(model):
    """The normalised kernels of `generator_layers`."""
    return normalize_kernels(generator_layers(model))


def discriminator_gradients(model, kernels, images, labels, latents, fake_labels, share):
    """Gradients of the discriminator's loss.

    Args:
        model: The `SAGAN`.
        kernels: Those of `generator_kernels`.
        images: float32 real images in [-1, 1].
        labels: Their integer labels, or `None`.
        latents, fake_labels: Those of the fake images.
        share: Float, the share of the global batch that this replica has: gradients are summed
            over replicas.

    Returns:
        Tuple of the gradients of the trainable variables (scaled by the loss scale, if there is
        one), the new values of the non-trainable ones (`None` where unchanged), the loss, and
        the real and the fake logits.
    """
    # The generator's state moves in its own step only.
    with keras.StatelessScope(), given_kernels(generator_layers(model), kernels):
        fake_images = call(model.generator, latents, fake_labels, training=True)
    real, fake = (images, labels), (tf.stop_gradient(fake_images), fake_labels)

    def loss_function():
        logits = judge_both(model.discriminator, real, fake, training=True)
        return model.loss_functions.discriminator(*logits), logits

    return _gradients(model.discriminator, model.d_optimizer, loss_function, share)


def generator_gradients(model, kernels, latents, labels, share):
    """Gradients of the generator's loss; arguments and results as in `discriminator_gradients`."""

    def loss_function():
        with given_kernels(generator_layers(model), kernels):
            images = call(model.generator, latents, labels, training=True)
        # The discriminator's state and its own losses belong to its own step: dropped here.
        with keras.StatelessScope():
            logits = judge(model.discriminator, images, labels, training=True)
        return model.loss_functions.generator(logits), logits

    return _gradients(model.generator, model.g_optimizer, loss_function, share)


def _gradients(network, optimizer, loss_function, share):
    variables = network.trainable_variables
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variable.value for variable in variables])
        with keras.StatelessScope(collect_losses=True) as scope:
            loss, logits = loss_function()
        # What layers added, and the regularizers of weights, which a scope would leave out.
        own = scope.losses + [v.regularizer(v) for v in variables if v.regularizer is not None]
        scaled = optimizer.scale_loss(sum((ops.cast(x, loss.dtype) for x in own), loss) * share)
    # The gradient of a table that was only looked up is sparse.
    gradients = [
        tf.convert_to_tensor(x) if isinstance(x, tf.IndexedSlices) else x
        for x in tape.gradient(scaled, variables)
    ]
    states = [scope.get_current_value(v) for v in network.non_trainable_variables]
    return gradients, states, loss, logits


def share_overflow(gradients):
    """Makes gradients that overflowed on one replica infinite on all, which then skip the update.

    Keras's `LossScaleOptimizer` looks at those of the first replica of each worker alone: another
    one's infinity would go into all weights, and two workers that differ would wait for each
    other without end.

    Args:
        gradients: List of this replica's gradients, `None` where there is none.

    Returns:
        A list of the same.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return gradients
    each = [tf.reduce_all(tf.math.is_finite(x)) for x in gradients if x is not None]
    overflows = 1.0 - tf.cast(tf.reduce_all(each), tf.float32)
    overflows = context.all_reduce(tf.distribute.ReduceOp.SUM, overflows)
    added = tf.where(overflows > 0.0, float("inf"), 0.0)
    return [None if x is None else x + tf.cast(added, x.dtype) for x in gradients]
