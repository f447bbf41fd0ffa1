"""The JAX part of a training step: gradients, random numbers, devices, and the loop.

On JAX, a step is a pure function of all variables, and a scope collects the values that the step
assigns. Under a `keras.distribution`, a step receives the global batch, and JAX splits the batch
across the devices.
"""

import functools

import jax
import keras
from keras import ops

from keras_sagan.distribution import gather
from keras_sagan.layers.spectral_norm import Scope
from keras_sagan.training.whole_batch import (  # noqa: F401
    check_compile,
    cond,
    count_replicas,
    mean_over_replicas,
    traced_once,
)

ONLY = {}

# Gradients


def gradients(function, variables):
    """Differentiates a function; the gradient of an unused variable is 0."""

    def of_values(values):
        with Scope(zip(variables, values)):
            return function()

    return jax.grad(of_values, has_aux=True)([variable.value for variable in variables])


def input_gradient(total, inputs):
    return jax.grad(total)(inputs)


def apply_scaled(optimizer, gradients, variables):
    """Updates the variables, and the state of a `LossScaleOptimizer`.

    Keras assigns the new values in a conditional, which JAX doesn't support, so this function
    computes both branches.
    """
    is_finite = optimizer.check_finite(gradients)
    scale, count = optimizer.dynamic_scale, optimizer.step_counter
    with Scope() as scope:
        optimizer.inner_optimizer.apply([x / scale for x in gradients], variables)
    every = [*variables, *optimizer.inner_optimizer.variables]
    for variable, value in zip(every, scope.assigned(every)):
        if value is not None:
            variable.assign(ops.where(is_finite, value, variable.value))
    is_time = count == optimizer.dynamic_growth_steps - 1
    factor = ops.where(is_finite, ops.where(is_time, 2.0, 1.0), 0.5)
    count.assign(ops.where(ops.logical_and(is_finite, ops.logical_not(is_time)), count + 1, 0))
    scale.assign(scale * factor)


# Random numbers


def draw_noise(seed, batch, latent_dim, num_classes=None):
    latent_key, label_key = jax.random.split(_key(seed))
    latents = _shared(jax.random.normal(latent_key, (batch, latent_dim)))
    if num_classes is None:
        return latents, None
    return latents, _shared(jax.random.randint(label_key, (batch,), 0, num_classes))


def draw_uniform(seed, batch, columns):
    return _shared(jax.random.uniform(_key(seed), (batch, columns)))


def _key(seed):
    first, *others = (jax.numpy.asarray(x).astype("uint32") for x in seed)
    return functools.reduce(jax.random.fold_in, others, jax.random.key(first, impl="threefry2x32"))


def _shared(tensor):
    """Distributes a tensor over the devices along the batch axis, like the images."""
    distribution = current_strategy()
    if distribution is None:
        return tensor
    layout = distribution.get_data_layout(tensor.shape)
    return keras.distribution.distribute_tensor(tensor, layout)


# Devices. On JAX, a strategy is a `keras.distribution` or `None`.

current_strategy = keras.distribution.distribution


def count_devices(strategy):
    """Returns the number of devices that share a batch."""
    if strategy is None:
        return 1
    mesh = strategy.device_mesh
    return mesh.shape[mesh.axis_names.index(strategy.batch_dim_name)]


def check_built_under(strategy, **owners):
    """Raises an error if a network or optimizer was built before the distribution was set."""
    for name, owner in owners.items():
        for variable in owner.variables if strategy is not None else ():
            if len(variable.value.devices()) < strategy.device_mesh.devices.size:
                raise ValueError(
                    f"`{name}` must be built after `keras.distribution.set_distribution`, or in "
                    f"the distribution's `scope()`. Received: a {name} whose {variable.path} was "
                    f"made before {type(strategy).__name__} was set"
                )


def check_scope(strategy, method, or_outside=True):
    """Raises an error unless the current distribution is the one that the model was built under."""
    current, processes = current_strategy(), jax.process_count()
    if processes > 1 and getattr(current, "auto_shard_dataset", True):
        raise ValueError(
            f"`{method}` on several processes needs a distribution of all their devices with "
            "auto_shard_dataset=False, as `keras_sagan.distribution.make_strategy` sets it: each "
            f"process gives its share of a batch. Received: {current} on {processes} processes"
        )
    if current is not strategy:
        built, called = (type(x).__name__ if x else "no distribution" for x in (strategy, current))
        raise ValueError(
            f"`{method}` must be called under the distribution that the model was built in: set it "
            f"before the networks are built. Received: a model built under {built}; now: {called}"
        )


def check_share(argument):
    """Raises an error, because several processes can't train on an array."""
    raise ValueError(
        f"`{argument}` must be a dataset that yields this process's share of each batch, as "
        "`keras_sagan.data.make_dataset` does: each process would train on every image of an "
        f"array. Received: an array on each of {jax.process_count()} processes"
    )


def check_batch(model, check, batch):
    """Calls `BatchCheck.check_first`; each process checks its own share of the batch."""
    batch = batch if isinstance(batch, (tuple, list)) else (batch,)
    if jax.process_count() == 1:
        check.check_first(model, [batch])
        return

    def gather_sizes(sizes):
        if check.has_passed:  # Later batches need no communication.
            return [*check.size, *sizes]
        check.size = sizes
        return [size for each in gather(None, sizes) for size in each]

    shards = [[shard.data for shard in x.addressable_shards] for x in batch if x is not None]
    check.check_first(model, [*zip(*shards)], gather_sizes)


# Inference


def compiled(function, variables, latent_dim, num_classes):
    @jax.jit
    def run(values, *inputs):
        with Scope(zip(variables, values)):
            return function(*inputs)

    def padded(*inputs):
        # Pad the batch to a power of two, because each size is compiled separately.
        count = inputs[0].shape[0]
        missing = (1 << (count - 1).bit_length()) - count
        inputs = [ops.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in inputs]
        return run(_values_here(variables), *inputs)[:count]

    return padded


def compiled_gradient(function, variables):
    @jax.jit
    def run(values, inputs, *others):
        def total(inputs):
            with Scope(zip(variables, values)):
                losses = function(inputs, *others)
            return losses.sum(), losses

        return jax.grad(total, has_aux=True)(inputs)

    return lambda *tensors: run(_values_here(variables), *tensors)


def _values_here(variables):
    """Returns the values of variables; with several processes, each process uses its own copies."""
    values = [variable.value for variable in variables]
    return values if jax.process_count() == 1 else [x.addressable_data(0) for x in values]


# The loop


class StepScope(Scope):
    """A scope in which only the variables that were given can be assigned."""

    def add_update(self, update):
        if id(update[0]) not in self._given:
            raise ValueError(
                "`train_step` and `test_step` may assign only variables that the model tracks, as "
                "JAX would lose others. Before training, make the variable, its layer or its "
                "metric an attribute of the model, or the variables of a built optimizer, as in "
                "`self.q_state = self.q_optimizer.variables`. "
                f"Received: an assignment to {update[0].path}, which the model doesn't track"
            )
        super().add_update(update)


def make_pure_step(model, step, is_training=True):
    """Turns a step into a pure function `(state, data) -> (logs, state)`, which JAX can compile.

    Also returns a function that yields the groups of variables in the state, in Keras's order.

    If the third argument of the pure function is a result of `Slots.due_in`, the function computes
    only the lazy penalties in this set. Otherwise, it contains a conditional for each lazy penalty.
    """

    def groups():
        yield model.trainable_variables
        yield model.non_trainable_variables
        if is_training:
            yield model.optimizer.variables
        yield model.metrics_variables

    def pure_step(state, data, due=None):
        if due is not None:
            model.slots.due = due
        pairs = [pair for group, values in zip(groups(), state) for pair in zip(group, values)]
        with StepScope(pairs):
            logs = step(data)
            return logs, tuple([variable.value for variable in group] for group in groups())

    return pure_step, groups


def make_step_function(model, step, check, is_training):
    """Returns the function for `fit` or `evaluate`.

    Keras calls the function with the model's state and an iterator. The function runs
    `steps_per_execution` steps, or fewer at the end of the data. Unlike Keras's own function, it
    writes the new values to the variables after every step. Callbacks and other
    threads can therefore read current values without `jax_state_sync`, and callbacks can assign
    variables. After an interrupt, variables have the values of the last complete step.
    """
    pure_step, groups = make_pure_step(model, step, is_training)
    shardings = None
    if model.jit_compile and not model.run_eagerly:
        if current_strategy() is not None:
            shardings = tuple([v.value.sharding for v in group] for group in groups())
        pure_step = jax.jit(
            pure_step, donate_argnums=0, static_argnums=2, out_shardings=(None, shardings)
        )

    def next_batch(iterator):
        try:
            return next(iterator)
        except ValueError as error:
            if "divide" not in str(error):
                raise
            raise ValueError(
                f"`{check.argument}` must yield batches that the devices divide: use "
                "drop_remainder=True and a batch that is a multiple of "
                f"{count_devices(current_strategy())}. Received: a batch that JAX refuses: {error}"
            ) from error

    def function(state, iterator):
        for taken in range(model.steps_per_execution):
            try:
                data = next_batch(iterator)
            except StopIteration:
                if taken:
                    break
                check.at_end()
                raise
            check_batch(model, check, data)
            due = None
            if is_training and model.slots.lazy:  # Reading `steps` waits for the previous step.
                due = model.slots.due_in(int(model.steps.value), model.d_steps)
            with model._step_lock:  # During the step, variables have no valid values.
                if shardings and not all(x.committed for group in state for x in group):
                    # JAX would compile the step again for values that aren't committed to devices.
                    state = jax.device_put(state, shardings)
                logs, state = pure_step(state, data, due)
                for group, values in zip(groups(), state):
                    for variable, value in zip(group, values):
                        variable._value = value  # `assign` would copy the value between devices.
                model._jax_state_synced = True  # Makes Keras read the variables before each step.
        return logs, state

    return function
