"""The gradients of the two losses, as functions that assign nothing.

Variables are read, new states are returned. So each function can be compiled by XLA inside one
replica of a strategy, while the optimisers' collectives and all assignments stay outside.
"""

import contextlib

import keras
import tensorflow as tf
from keras import backend, layers, ops

from keras_sagan.layers.normalized_kernels import (
    given_kernels,
    normalize_kernels,
    normalized_layers,
)
from keras_sagan.models.judging import call, judge, judge_both
from keras_sagan.ops.normalization import ramped_momentum


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
        one), the values that layers assigned to all variables (`None` where they assigned none),
        the loss, and the real and the fake logits.
    """
    # The generator's state moves in its own step only.
    with keras.StatelessScope(), given_kernels(generator_layers(model), kernels):
        fake_images = call(model.generator, latents, fake_labels, training=True)
    real, fake = (images, labels), (tf.stop_gradient(fake_images), fake_labels)

    def loss_function():
        with ramped_statistics(model.discriminator, model.steps.value * model.d_steps):
            logits = judge_both(model.discriminator, real, fake, True, model.judges_apart)
        return model.loss_functions.discriminator(*logits), logits

    return _gradients(model.discriminator, model.d_optimizer, loss_function, share)


def generator_gradients(model, kernels, latents, labels, share):
    """Gradients of the generator's loss; arguments and results as in `discriminator_gradients`."""

    def loss_function():
        with (
            given_kernels(generator_layers(model), kernels),
            ramped_statistics(model.generator, model.steps.value),
        ):
            images = call(model.generator, latents, labels, training=True)
        # The discriminator's state and its own losses belong to its own step: dropped here.
        with keras.StatelessScope():
            logits = judge(model.discriminator, images, labels, training=True)
        return model.loss_functions.generator(logits), logits

    return _gradients(model.generator, model.g_optimizer, loss_function, share)


@contextlib.contextmanager
def ramped_statistics(network, updates):
    """Corrects the moving statistics of Keras's batch norms for their start, in one pass.

    `ConditionalBatchNorm` does so by itself. Keras's layer would begin with a mean of 0 and a
    variance of 1, of which a momentum of 0.99 leaves 13 % after 200 steps.

    Args:
        network: Keras model.
        updates: Integer tensor, the updates made before.
    """
    norms = [x for x in network._flatten_layers() if isinstance(x, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, momenta):
        dtype = backend.result_type(norm.compute_dtype, "float32")
        norm.momentum = ops.cast(ramped_momentum(momentum, updates), dtype)
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum


def _gradients(network, optimizer, loss_function, share):
    variables = network.trainable_variables
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variable.value for variable in variables])
        with _Assignments(tape) as scope:
            loss, logits = loss_function()
        # What layers added, and the regularizers of weights, which a scope would leave out.
        own = scope.losses + [v.regularizer(v) for v in variables if v.regularizer is not None]
        scaled = optimizer.scale_loss(sum((ops.cast(x, loss.dtype) for x in own), loss) * share)
    assigned = [scope.get_current_value(v) for v in variables]
    sources = [v.value for v in variables] + [x for x in assigned if x is not None]
    # The gradient of a table that was only looked up is sparse.
    found = [
        tf.convert_to_tensor(x) if isinstance(x, tf.IndexedSlices) else x
        for x in tape.gradient(scaled, sources)
    ]
    gradients, of_assigned = found[: len(variables)], iter(found[len(variables) :])
    for index, value in enumerate(assigned):
        if value is not None:
            parts = [x for x in (gradients[index], next(of_assigned)) if x is not None]
            gradients[index] = sum(parts) if parts else None
    states = [scope.get_current_value(v) for v in network.variables]
    return gradients, states, loss, logits


class _Assignments(keras.StatelessScope):
    """Collects what layers assign and add to the loss.

    A layer that assigns a trainable variable in `call`, as Keras's `SpectralNormalization` does,
    uses the new value from there on. Its gradient is that of the new value, as in a plain loop,
    where the assignment hides how the value was computed.
    """

    def __init__(self, tape):
        super().__init__(collect_losses=True)
        self._tape = tape

    def add_update(self, update):
        variable, value = update
        if variable.trainable:
            value = ops.stop_gradient(value)
            self._tape.watch(value)
        super().add_update((variable, value))


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
