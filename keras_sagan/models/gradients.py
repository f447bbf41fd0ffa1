"""The gradients of the two losses, as functions that assign nothing.

Variables are read, new states are returned. So each function can be compiled by XLA inside one
replica of a strategy, while the optimisers' collectives and all assignments stay outside.
"""

import collections

import keras
import tensorflow as tf
from keras import ops

from keras_sagan.layers.normalized_kernels import (
    given_kernels,
    normalize_kernels,
    normalized_layers,
)
from keras_sagan.models.averaging import moving_statistics
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
        logits = judge_both(model.discriminator, real, fake, True, model.judges_apart)
        return model.loss_functions.discriminator(*logits), logits

    updates = model.steps.value * (model.d_steps * (2 if model.judges_apart else 1))
    return _gradients(model.discriminator, model.d_optimizer, loss_function, share, updates)


def generator_gradients(model, kernels, latents, labels, share):
    """Gradients of the generator's loss; arguments and results as in `discriminator_gradients`."""

    def loss_function():
        with given_kernels(generator_layers(model), kernels):
            images = call(model.generator, latents, labels, training=True)
        # The discriminator's state and its own losses belong to its own step: dropped here.
        with keras.StatelessScope():
            logits = judge(model.discriminator, images, labels, training=True)
        return model.loss_functions.generator(logits), logits

    updates = model.steps.value
    return _gradients(model.generator, model.g_optimizer, loss_function, share, updates)


def _gradients(network, optimizer, loss_function, share, updates):
    variables = network.trainable_variables
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variable.value for variable in variables])
        with _Assignments(tape, moving_statistics(network), updates) as scope:
            loss, logits = loss_function()
            # The regularizers of weights, which a scope would leave out.
            own = [v.regularizer(v) for v in variables if v.regularizer is not None]
        own += scope.losses
        scaled = optimizer.scale_loss(sum((ops.cast(x, loss.dtype) for x in own), loss) * share)
    # Of each variable the value before, and each that was assigned to it.
    sources = [[v.value, *scope.assigned.get(id(v), [])] for v in variables]
    gradients = []
    for found in tape.gradient(scaled, sources):
        # The gradient of a table that was only looked up is sparse.
        parts = [tf.convert_to_tensor(x) for x in found if x is not None]
        gradients.append(sum(parts[1:], parts[0]) if parts else None)
    states = [scope.get_current_value(v) for v in network.variables]
    return gradients, states, loss, logits


class _Assignments(keras.StatelessScope):
    """Collects what layers assign and add to the loss.

    A layer that assigns a trainable variable in `call`, as Keras's `SpectralNormalization` does,
    uses the new value from there on. Its gradient is that of the new value, as in a plain loop,
    where the assignment hides how the value was computed.

    The moving statistics of Keras's batch norms forget their initial values, as those of
    `ConditionalBatchNorm` do by themselves: of a mean of 0 and a variance of 1, a momentum of 0.99
    would leave 13 % after 200 steps.

    Args:
        tape: `tf.GradientTape`.
        statistics: Dictionary from the id of a moving statistic to its momentum.
        updates: Integer tensor, the updates of the statistics made before.
    """

    def __init__(self, tape, statistics, updates):
        super().__init__(collect_losses=True)
        self._tape, self._statistics, self._updates = tape, statistics, updates
        self.assigned = collections.defaultdict(list)

    def add_update(self, update):
        variable, value = update
        if id(variable) in self._statistics:
            value = self._ramped(variable, value)
        elif variable.trainable:
            value = ops.stop_gradient(value)
            self._tape.watch(value)
        self.assigned[id(variable)].append(value)
        super().add_update((variable, value))

    def _ramped(self, variable, value):
        momentum = self._statistics[id(variable)]
        earlier = self.assigned[id(variable)]
        old = earlier[-1] if earlier else variable.value
        kept = ramped_momentum(momentum, self._updates + len(earlier))
        factor = ops.cast((1.0 - kept) / (1.0 - momentum), variable.dtype)
        return old + (value - old) * factor


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
