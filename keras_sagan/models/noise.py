"""Latents and fake labels as a pure function of the seed and the step."""

import tensorflow as tf


def draw_noise(seed, batch, latent_dim, num_classes=None):
    """Draws for the global batch, and returns what falls to this replica.

    Args:
        seed: Tuple of integers or integer tensors, first the model's seed; the draws of two that
            differ are independent.
        batch: Integer or integer tensor, the images of this replica.
        latent_dim: Positive integer.
        num_classes: Positive integer, or `None` for no labels.

    Returns:
        Tuple of standard normal latents, float32 of shape `(batch, latent_dim)`, and uniform
        labels, int32 of shape `(batch,)`, or `None`.
    """
    first, *others = seed
    seed = [first, 0]
    for other in others:
        seed = _fold_in(seed, other)
    context = tf.distribute.get_replica_context()
    start = context.replica_id_in_sync_group * batch
    total = context.num_replicas_in_sync * batch
    latents = _stateless_normal((total, latent_dim), seed)
    latents = tf.slice(latents, (start, 0), (batch, latent_dim))
    if num_classes is None:
        return latents, None
    labels = tf.random.stateless_uniform((total,), _fold_in(seed, 1), 0, num_classes, tf.int32)
    return latents, tf.slice(labels, (start,), (batch,))


def _fold_in(seed, data):
    # Without the signs: XLA draws other numbers than TensorFlow from a negative seed.
    return tf.bitwise.bitwise_and(tf.random.experimental.stateless_fold_in(seed, data), 2**31 - 1)


def _stateless_normal(shape, seed):
    """Normal numbers that are the same inside XLA as outside, where TensorFlow's own differ."""
    return normal_from_bits(tf.random.stateless_uniform(shape, seed, 0, 2**23, tf.int32))


def normal_from_bits(bits):
    """Normal numbers from 23 random bits: with 24 the largest would round to infinity."""
    return tf.math.ndtri((tf.cast(bits, tf.float32) + 0.5) / 2.0**23)
