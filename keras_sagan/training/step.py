"""One training step of a SAGAN: both losses, the order of updates, and the averaged generator.

A step computes `discriminator_loss` and updates the discriminator, `d_steps` times. Then the step
computes `generator_loss`, updates the generator, and calls `update_average`.

This module uses only `keras.ops`, except for gradients, random numbers and replicas, which are in
`keras_sagan.training.{tensorflow,jax,torch}`. In all functions, `gan` is a compiled `SAGAN`, and
`index` is the number of previous updates in this step. `real` and `fake` are pairs
`(images, labels)`, with float32 images `(batch, height, width, channels)` in [-1, 1], and integer
labels `(batch,)` or `None`.
"""

import collections
import functools
import itertools

import keras
from keras import ops

from keras_sagan import training
from keras_sagan.checks import accepts
from keras_sagan.layers.conditional_batch_norm import ConditionalBatchNorm, ramped_momentum
from keras_sagan.layers.spectral_norm import Scope
from keras_sagan.private_keras import layers_of

RAMP_UP = 0.05  # The maximum half-life of the average, as a share of the steps taken.


def train_step(gan, images, labels):
    """Updates the discriminator `d_steps` times, then the generator and its average once.

    Returns a list with `(d_loss, real_logits, fake_logits)` for each update of D, and `g_loss`.
    """
    batch, results = ops.shape(images)[0], []
    find_gradients_of_d = training.backend.traced_once(gan, discriminator_gradients, gan.d_steps)
    find_gradients_of_g = training.backend.traced_once(gan, generator_gradients)
    for index in range(gan.d_steps):
        noise = draw_noise(gan, index, batch)
        *found, d_loss, logits = find_gradients_of_d(index, images, labels, *noise)
        is_updated = update(gan.discriminator, gan.d_optimizer, *found)
        results.append((d_loss, *logits))
        if gan.slots.moving:
            gan.slots.move(logits, is_updated, batch)
    gan.slots.due = None  # A custom `train_step` may call this function again.
    noise = draw_noise(gan, gan.d_steps, batch)
    *found, g_loss, _ = find_gradients_of_g(gan.d_steps, images, labels, *noise)
    is_updated = update(gan.generator, gan.g_optimizer, *found)
    update_average(gan, is_updated, batch)
    gan.steps.assign_add(1)
    return results, g_loss


def test_step(gan, images, labels, seen):
    """Computes both losses without augmentation, penalties or updates.

    Returns `(d_loss, real_logits, fake_logits)` and `g_loss`. The latents depend on `seen`, the
    number of images already evaluated.
    """
    latents, fake_labels = draw_noise(gan, -1, ops.shape(images)[0], step=seen)
    fake_images = call(gan.generator, latents, fake_labels, training=False)
    logits = judge_both(gan, (images, labels), (fake_images, fake_labels), training=False)
    losses = gan.loss_functions
    return (losses.discriminator(*logits), *logits), losses.of_generator(*logits)


def discriminator_loss(gan, index, real, fake):
    """Returns D's loss, including all non-lazy penalties, and the pair of real and fake logits."""
    real, fake = augment(gan, index, 0, real), augment(gan, index, 1, fake)
    logits = judge_both(gan, real, fake, training=True)
    loss = gan.loss_functions.discriminator(*logits)
    for part, penalty in gan.slots.penalties:
        loss = loss + penalize(gan, index, part, penalty, real, fake, logits)
    return loss, logits


def lazy_penalty(gan, index, real, fake, part, penalty):
    """Returns the value of a lazy penalty, which is computed once per `every` updates of D."""
    real, fake = augment(gan, index, 0, real), augment(gan, index, 1, fake)
    logits = None
    if getattr(penalty, "uses_logits", False):
        with Assignments():  # Discard new state, as in `penalize`.
            logits = judge_both(gan, real, fake, training=True)
    return penalize(gan, index, part, penalty, real, fake, logits)


def penalize(gan, index, part, penalty, real, fake, logits=None):
    """Returns the value of a penalty."""
    arguments = [functools.partial(judge, gan.discriminator, training=True), real, fake]
    arguments[0].logits = logits
    if not accepts(penalty, 3):
        arguments.append(draw_uniform(gan, index, 4 + part, ops.shape(real[0])[0]))
    with Assignments():  # Discard new state, because each update changes D's state only once.
        return penalty(*arguments)


def generator_loss(gan, index, real, latents, labels):
    """Returns G's loss and the logits; real logits are `None` unless the loss uses them."""
    fake = call(gan.generator, latents, labels, training=True), labels
    fake = augment(gan, index, 1, fake)
    with Scope():  # Discard D's new state and D's layer losses: only D's update uses them.
        if gan.uses_real_logits:
            logits = judge_both(gan, augment(gan, index, 0, real), fake, training=True)
        else:
            logits = None, judge(gan.discriminator, *fake, training=True)
    if gan.top_k is not None:
        logits = best_fakes(gan.top_k, logits, ops.shape(latents)[0])
    return gan.loss_functions.of_generator(*logits), logits


def best_fakes(top_k, logits, batch):
    """Returns the logits of the `top_k` fake images that D rates as most realistic.

    Real logits are selected at the same indices. The rating of an image is the mean of its logits.
    """
    if isinstance(top_k, float) and isinstance(batch, int):
        count = max(int(top_k * batch + 1e-4), 1)  # In floating point, 0.29 * 100 < 29.
    elif isinstance(top_k, float):  # TensorFlow may know the batch size only at run time.
        count = ops.maximum(ops.cast(top_k * ops.cast(batch, "float32") + 1e-4, "int32"), 1)
    else:
        replicas = training.backend.count_replicas()
        if top_k % replicas:
            raise ValueError(
                f"`top_k` must be a share, or an integer that the {replicas} replicas divide. "
                f"Received: top_k={top_k}"
            )
        count = top_k // replicas
    rows = [None if x is None else ops.reshape(x, (batch, -1)) for x in logits]
    best = ops.top_k(ops.mean(rows[1], axis=1), count, sorted=False)[1]
    return tuple(None if x is None else ops.reshape(ops.take(x, best, 0), (-1,)) for x in rows)


def judge_both(gan, real, fake, training):
    """Returns real and fake logits from one pass, so that both use the same normalized kernels.

    If the discriminator uses batch statistics (`gan.judges_apart`), real and fake images need
    separate passes, because the batch contains only fake images in the generator's update.
    """
    if gan.judges_apart:
        return tuple(judge(gan.discriminator, *pair, training) for pair in (real, fake))
    images = ops.concatenate([real[0], ops.cast(fake[0], real[0].dtype)])
    labels = None if real[1] is None else ops.concatenate([ops.cast(real[1], "int32"), fake[1]])
    return tuple(ops.split(judge(gan.discriminator, images, labels, training), 2))


def judge(discriminator, images, labels, training):
    """Returns logits as a float32 vector, regardless of the discriminator's output shape."""
    return ops.reshape(ops.cast(call(discriminator, images, labels, training), "float32"), (-1,))


def call(network, inputs, labels, training):
    """Calls a network with or without labels."""
    return network(inputs if labels is None else [inputs, labels], training=training)


def augment(gan, index, part, pair):
    """Applies the augmentation to real (`part=0`) or fake (`part=1`) images."""
    if gan.slots.augmentation is None:
        return pair
    images, labels = pair
    uniform = draw_uniform(gan, index, 2 + part, ops.shape(images)[0])
    return gan.slots.augment(images, uniform), labels


def draw_uniform(gan, index, part, batch):
    """Returns a function `uniform(columns)` that draws numbers for one part of an update."""
    calls = itertools.count()

    def uniform(columns):
        seed = (gan.seed, gan.steps.value, index, part, next(calls))
        return training.backend.draw_uniform(seed, batch, columns)

    return uniform


def draw_noise(gan, index, batch, step=None):
    """Draws latents and labels for fake images; they depend on the seed, the step and `index`."""
    step = gan.steps.value if step is None else step
    return training.backend.draw_noise(
        (gan.seed, step, index), batch, gan.latent_dim, gan.num_classes
    )


# Gradients and updates


def discriminator_gradients(gan, index, images, labels, latents, fake_labels):
    """Returns the discriminator's gradients and new state (for `update`), loss and logits."""
    with Scope():  # Discard new state: G's state changes only in G's update.
        fake_images = call(gan.generator, latents, fake_labels, training=True)
    real, fake = (images, labels), (ops.stop_gradient(fake_images), fake_labels)
    loss = functools.partial(discriminator_loss, gan, index, real, fake)
    updates = gan.steps.value * gan.d_steps + index
    passes = updates * (2 if gan.judges_apart else 1)
    found = find_gradients(gan.discriminator, gan.d_optimizer, loss, passes)
    if gan.slots.lazy:
        value_of = functools.partial(lazy_penalty, gan, index, real, fake)
        found = gan.slots.add_lazy(gan, index, updates, value_of, found)
    return found


def generator_gradients(gan, index, images, labels, latents, fake_labels):
    """Returns the generator's gradients and new state (for `update`), loss and logits."""
    loss = functools.partial(generator_loss, gan, index, (images, labels), latents, fake_labels)
    return find_gradients(gan.generator, gan.g_optimizer, loss, gan.steps.value)


def find_gradients(network, optimizer, loss_function, updates):
    """Differentiates a loss with respect to a network's weights, and collects the new state.

    Returns the gradients (multiplied by the loss scale), the new values of all variables (`None`
    for a variable that isn't assigned), the loss, and the logits.
    """
    variables = network.trainable_variables

    def scaled_loss():
        with Assignments(network, updates) as scope:
            loss, logits = loss_function()
            own = [v.regularizer(v) for v in variables if v.regularizer is not None]
        if ops.ndim(loss):  # `ndim` is `None` if TensorFlow doesn't know the rank.
            raise ValueError(
                "`loss` and `penalty` must return scalars, such as the mean over the images. "
                f"Received: a loss of shape {tuple(loss.shape)}"
            )
        own += scope.losses
        total = sum((ops.cast(x, loss.dtype) for x in own), loss)
        states = scope.assigned(network.variables)
        # The optimizer sums gradients over the replicas, whose batches have the same size.
        scaled = optimizer.scale_loss(total / training.backend.count_replicas())
        return scaled, (loss, logits, states)

    gradients, (loss, logits, states) = training.backend.gradients(scaled_loss, variables)
    return gradients, states, loss, logits


def update(network, optimizer, gradients, states):
    """Applies gradients and state from `find_gradients`; returns whether they were applied.

    With a loss scale, neither gradients nor state are applied if the gradients overflow, because
    the state may have overflowed too.
    """
    is_updated, apply = True, optimizer.apply
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        if training.backend.count_replicas() > 1:
            gradients = training.backend.share_overflow(gradients)
        is_updated = optimizer.check_finite(gradients)
        apply = functools.partial(training.backend.apply_scaled, optimizer)
    for variable, state in zip(network.variables, states):
        if state is not None:
            if is_updated is not True:
                state = ops.where(is_updated, ops.cast(state, variable.dtype), variable.value)
            variable.assign(state)
    apply(gradients, network.trainable_variables)
    return is_updated


# The averaged generator


def update_average(gan, is_updated, batch):
    """Updates the exponential moving average of the generator, if there is one.

    The momentum is `ema_momentum`, or is computed from `ema_half_life`. The momentum is lower early
    in training, as in the code of [Karras et al., 2020](https://arxiv.org/abs/1912.04958), and 0
    before step `ema_start`. Moving statistics are averaged with a lower momentum than weights, so
    that both averages have the same lag. If the generator's update was skipped, the average is
    unchanged.
    """
    average = gan._average
    if average is None:
        return
    steps = ops.cast(gan.steps.value, "float32")
    ramp = ops.power(0.5, 1.0 / (RAMP_UP * ops.maximum(steps, 1e-3)))
    momentum = gan.ema_momentum
    if gan.ema_half_life is not None:  # The half-life is measured in images.
        images = ops.cast(batch * training.backend.count_replicas(), "float32")
        momentum = ops.power(0.5, images / gan.ema_half_life)
    momentum = ops.where(steps < gan.ema_start, 0.0, ops.minimum(momentum, ramp))
    statistics = moving_statistics(gan.generator, ConditionalBatchNorm)
    inner = {key: ramped_momentum(own, gan.steps.value) for key, own in statistics.items()}
    momenta = {key: matching_momentum(momentum, own) for key, own in inner.items()}
    for mean, variable in zip(average.variables, gan.generator.variables):
        value = variable.value
        if keras.backend.is_float_dtype(variable.dtype):
            share = ops.cast(1.0 - momenta.get(id(variable), momentum), variable.dtype)
            moved = mean + share * (value - mean)
            if is_updated is not True:
                moved = ops.where(is_updated, moved, mean.value)
            value = ops.where(share == 1, value, moved)
        mean.assign(value)


def matching_momentum(momentum, inner):
    """Returns the momentum for averaging moving statistics, so that they match averaged weights.

    The values in a moving average with momentum `m` have a mean age of `m / (1 - m)` updates. If a
    moving average is averaged again, the two mean ages add up. With the returned momentum, the
    average of statistics whose own momentum is `inner` has the same mean age as weights averaged
    with `momentum`. If the statistics are already older than these weights, the result is 0.
    """
    age, inner_age = (x / (1.0 - x) for x in (momentum, inner))
    missing = ops.maximum(age - inner_age, 0.0)
    return missing / (1.0 + missing)


def moving_statistics(network, *kinds):
    """Returns a dictionary from the id of each moving statistic of batch norms to its momentum.

    `kinds` are classes of layers to find in addition to `keras.layers.BatchNormalization`.
    Statistics that never change (`momentum=1`) are skipped.
    """
    norms = (keras.layers.BatchNormalization, *kinds)
    found = [x for x in layers_of(network) if isinstance(x, norms) and x.built]
    return {
        id(statistic): float(norm.momentum)
        for norm in found
        for statistic in (norm.moving_mean, norm.moving_variance)
        if norm.momentum < 1
    }


# Scopes for the values that layers assign


class Assignments(Scope):
    """Collects the values that a network's layers assign, and the losses that they add.

    A layer that assigns a trainable variable in `call`, as Keras's `SpectralNormalization` does,
    uses the new value afterwards. The gradient with respect to the new value becomes the gradient
    of the variable, as in a plain training loop.

    The moving statistics of Keras's batch norms are corrected so that their initial values have no
    influence, as in `ConditionalBatchNorm`. Otherwise, with a momentum of 0.99, the initial values
    would still have a weight of 13 % after 200 steps. `updates` is the number of previous updates.
    """

    def __init__(self, network=None, updates=0):
        super().__init__(collect_losses=True)
        self._momenta = {} if network is None else moving_statistics(network)
        self._updates = updates
        self._counts = collections.Counter()  # The number of assignments to each variable.

    def add_update(self, update):
        variable, value = update
        key = id(variable)
        if variable.trainable:
            old = ops.cast(variable.value, value.dtype)
            value = ops.stop_gradient(value) + (old - ops.stop_gradient(old))
        elif key in self._momenta:
            momentum, old = self._momenta[key], self.get_current_value(variable)
            old = variable.value if old is None else old
            kept = ramped_momentum(momentum, self._updates + self._counts[key])
            share = ops.cast((1.0 - kept) / (1.0 - momentum), variable.dtype)
            value = old + (value - old) * share
            self._counts[key] += 1
        super().add_update((variable, value))
