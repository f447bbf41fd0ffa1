"""TensorFlow's part of a training step: gradients, random numbers, replicas, and the loop.

`keras_sagan.training.step` has the algorithm and calls what is here.
"""

import functools
import itertools
import os
import warnings

import tensorflow as tf
from keras import tree

from keras_sagan.checks import is_absent

# Gradients


def gradients(function, variables):
    """Differentiates a function that returns a scalar and anything else.

    Args:
        function: Function without arguments, `() -> (scalar, others)`.
        variables: List of `keras.Variable`.

    Returns:
        Tuple of the list of gradients, `None` for a variable that isn't used, and the others.
    """
    values = [variable.value for variable in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        scalar, others = function()
    found = tape.gradient(scalar, values)
    # The gradient of a table that is only looked up is sparse.
    return [None if x is None else tf.convert_to_tensor(x) for x in found], others


def input_gradient(total, inputs):
    """The gradient of a scalar function with respect to its inputs, differentiable once more."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        result = total(inputs)
    return tape.gradient(result, inputs)


def apply_scaled(optimizer, gradients, variables):
    """Updates variables, and those of a `LossScaleOptimizer`."""
    optimizer.apply(gradients, variables)


# Random numbers


def draw_noise(seed, batch, latent_dim, num_classes=None):
    """Draws latents and labels for the global batch, and returns those of this replica.

    Args:
        seed: Tuple of integers or integer tensors, first the model's seed. The draws of two
            different tuples are independent.
        batch: Integer or integer tensor, the images of this replica.
        latent_dim: Positive integer.
        num_classes: Positive integer, or `None` for no labels.

    Returns:
        Tuple of standard normal latents, float32 of shape `(batch, latent_dim)`, and uniform
        labels, int32 of shape `(batch,)`, or `None`.
    """
    seed = _folded(seed)
    start, total = _share_of_batch(batch)
    latents = _stateless_normal((total, latent_dim), seed)
    latents = tf.slice(latents, (start, 0), (batch, latent_dim))
    if num_classes is None:
        return latents, None
    labels = tf.random.stateless_uniform((total,), _fold_in(seed, 1), 0, num_classes, tf.int32)
    return latents, tf.slice(labels, (start,), (batch,))


def draw_uniform(seed, batch, columns):
    """Draws float32 numbers in [0, 1), of shape `(batch, columns)`; `seed` as in `draw_noise`."""
    start, total = _share_of_batch(batch)
    # XLA draws other floats than TensorFlow, and the same integers.
    bits = tf.random.stateless_uniform((total, columns), _folded(seed), 0, 2**24, tf.int32)
    return tf.slice(tf.cast(bits, tf.float32) / 2.0**24, (start, 0), (batch, columns))


def _share_of_batch(batch):
    """Where this replica's part of the global batch starts, and the size of the global batch."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group * batch, context.num_replicas_in_sync * batch


def _folded(seed):
    first, *others = seed
    return functools.reduce(_fold_in, others, [first, 0])


def _fold_in(seed, data):
    # Clear the sign bit: XLA and TensorFlow disagree on negative seeds.
    return tf.bitwise.bitwise_and(tf.random.experimental.stateless_fold_in(seed, data), 2**31 - 1)


def _stateless_normal(shape, seed):
    """Normal numbers that are the same inside XLA as outside, unlike TensorFlow's own."""
    return normal_from_bits(tf.random.stateless_uniform(shape, seed, 0, 2**23, tf.int32))


def normal_from_bits(bits):
    """Normal numbers from 23 random bits: with 24 the largest would round to infinity."""
    return tf.math.ndtri((tf.cast(bits, tf.float32) + 0.5) / 2.0**23)


# Replicas


def count_replicas():
    """The number of replicas that share the global batch."""
    return tf.distribute.get_replica_context().num_replicas_in_sync


def traced_once(gan, function, count=1):
    """Wraps `function(gan, index, *tensors)`, which assigns nothing, for `count` calls in a step.

    Several calls are traced once. Over several replicas XLA compiles the function if the model has
    `jit_compile=True`, and the exchange of gradients stays outside; without XLA it isn't wrapped
    there, as its batch norms may exchange statistics.
    """
    function = functools.partial(function, gan)
    is_alone = count_replicas() == 1
    if gan.run_eagerly or (is_alone and count == 1) or not (is_alone or gan.jit_compile):
        return function
    traced = tf.function(function, jit_compile=gan.jit_compile and not is_alone, autograph=False)
    return lambda index, *tensors: traced(tf.constant(index), *tensors)


def share_overflow(gradients):
    """Makes gradients that overflowed on one replica infinite on all, which then skip the update.

    Keras's `LossScaleOptimizer` looks at the first replica of each worker only: an infinity of
    another replica would reach all weights, and two workers that differ would deadlock.

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


ONLY = {}  # The values of arguments of `compile` that this backend can do, if not all.


def current_strategy():
    """The strategy that is active; TensorFlow has one for a single device too."""
    return tf.distribute.get_strategy()


def count_devices(strategy):
    """The devices that a batch is shared among."""
    return strategy.num_replicas_in_sync


def is_multi_worker(strategy):
    """Whether every worker has its own share of the data."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def check_built_under(strategy, **owners):
    """Raises for a network or optimizer that was built outside of the scope of a strategy."""
    for name, owner in owners.items():
        for variable in owner.variables:
            if not strategy.extended.variable_created_in_scope(variable.value):
                raise ValueError(
                    f"`{name}` must be built inside the `strategy.scope()` that the model is "
                    f"built in. Received: a {name} whose {variable.path} was made outside of "
                    f"{type(strategy).__name__}"
                )


def check_scope(strategy, method, or_outside=True):
    """Raises unless a method is called under the strategy that its model was built in."""
    current = current_strategy()
    if current is strategy or (or_outside and not tf.distribute.has_strategy()):
        return
    raise ValueError(
        f"`{method}` must be called under the strategy that the model was built in"
        f"{', or outside of any' if or_outside else ''}. Received: a model built under "
        f"{type(strategy).__name__}, and the scope of {type(current).__name__}"
    )


def check_compile(strategy, jit_compile, computes_in_float16):
    """Raises for what a `TPUStrategy` can't do, before it fails obscurely or trains on in silence.

    Args:
        strategy: A `tf.distribute.Strategy`; anything goes with another one.
        jit_compile: As given to `compile`.
        computes_in_float16: Boolean, whether a layer does.

    Raises:
        ValueError: For `jit_compile=True`, or float16.
    """
    if not isinstance(strategy, tf.distribute.TPUStrategy):
        return
    if jit_compile is True:
        raise ValueError(
            '`jit_compile` must be False or "auto" under TPUStrategy, which has XLA compile the '
            "whole step by itself. Received: jit_compile=True"
        )
    if computes_in_float16:
        raise ValueError(
            "`dtype_policy` must be mixed_bfloat16 or float32 under TPUStrategy: TPUs have no "
            "float16 units, and bfloat16 needs no loss scale. Received: layers in float16"
        )


def check_replicated(model):
    """Raises for what can't work over several replicas, before it hangs or fails obscurely."""
    for name in ("g_optimizer", "d_optimizer"):
        optimizer = getattr(model, name)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        if optimizer.gradient_accumulation_steps:
            raise ValueError(
                f"`{name}` must not accumulate gradients over several replicas: Keras's optimisers "
                "can't exchange gradients every so many steps only. Use a larger batch. Received: "
                f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps} over "
                f"{model.distribute_strategy.num_replicas_in_sync} replicas"
            )
    if not model.jit_compile:
        return
    for network in (model.generator, model.discriminator):
        for layer in network._flatten_layers():
            if getattr(layer, "synchronized", False):
                raise ValueError(
                    "`jit_compile=True` over several replicas needs synchronized=False: XLA can't "
                    "compile the exchange of statistics inside a layer. Received: "
                    f"jit_compile=True and layer {layer.name} with synchronized=True"
                )


def check_share(argument):
    """Nothing: TensorFlow gives each worker its share of an array."""


# Inference


def compiled(function, network, latent_dim, num_classes):
    """Compiles a function of latents and labels that calls a network, whatever the batch."""
    signature = [tf.TensorSpec((None, latent_dim), "float32")]
    if num_classes is not None:
        signature.append(tf.TensorSpec((None,), "int32"))
    return tf.function(function, input_signature=signature, autograph=False)


# The loop


def make_step_function(model, step, check, is_training):
    """Makes the function that Keras's `fit` and `evaluate` call with an iterator.

    Unlike Keras's own it reduces logs in a way that works for several workers, has no
    `tf.experimental.Optional` in its loop, and shows each batch to `check` before it is used.

    Args:
        model: A compiled `SAGAN`.
        step: Its `train_step` or `test_step`.
        check: `BatchCheck`, for errors that a compiled step can't raise.
        is_training: Boolean, whether it is the first of them.

    Returns:
        Function `(iterator) -> logs` that takes `steps_per_execution` steps, or what is left.
    """
    strategy = model.distribute_strategy
    if is_training and strategy.num_replicas_in_sync > 1:
        check_replicated(model)

    @tf.autograph.experimental.do_not_convert  # As in Keras, whose steps aren't converted either.
    def run(function, *args):
        logs = strategy.run(function, args)
        return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

    def one_step(batch):
        return run(step, batch)

    def step_of(stacked, index):
        return compiled_step(tree.map_structure(lambda x: None if x is None else x[index], stacked))

    @tf.function
    def many_steps(batches):
        """All batches in one call, as turns of a loop whose body is traced once."""
        stacked = strategy.run(lambda *parts: tree.map_structure(stack, *parts), batches)
        logs = run(step_of, stacked, 0)
        for index in tf.range(1, len(batches)):
            logs = run(step_of, stacked, index)
        return logs

    @tf.function
    def summed(values):
        return strategy.reduce("SUM", values, axis=None)

    def check_on_all(parts, iterator):
        """Raises on every worker if one's first batch is bad, or a batch isn't shared equally."""
        sizes, error = own_sizes(parts)
        if is_multi_worker(strategy) and not (check.has_passed and has_static_batches(iterator)):
            own = iter(sizes)  # One for each replica of this worker, in order.
            rows = strategy.experimental_distribute_values_from_function(
                lambda context: (
                    next(own)
                    * tf.one_hot(context.replica_id_in_sync_group, strategy.num_replicas_in_sync)
                )
            )
            sizes = [int(size) for size in summed(rows).numpy()]
        if error is not None:
            raise error
        is_first = not check.has_passed
        check.check_sizes(sizes, len(parts))
        if is_first:
            model._see_first_batch(parts[0])

    def own_sizes(parts):
        """Images of each replica of this process, and what is wrong with them, or `None`."""
        try:
            check(parts)
        except ValueError as error:
            return [check.REFUSED] * len(parts), error
        return [part[0].shape[0] for part in parts], None

    compiled_step = step
    if not model.run_eagerly:
        # Over several replicas the model compiles the inner part of its step by itself.
        jit_compile = model.jit_compile and strategy.num_replicas_in_sync == 1
        options = {"reduce_retracing": True, "autograph": False}
        one_step = tf.function(one_step, jit_compile=jit_compile, **options)
        if jit_compile:
            compiled_step = tf.function(step, jit_compile=True, **options)

    def function(iterator):
        warn_of_slow_convolutions()
        batches, shapes = [], set()
        try:
            for batch in itertools.islice(iterator, model.steps_per_execution):
                parts = local_parts(strategy, batch)
                check_on_all(parts, iterator)
                batches.append(batch)
                shapes.add(tuple(tuple(part[0].shape) for part in parts))
        except tf.errors.OutOfRangeError:
            pass
        if not batches:
            check.at_end()
            raise StopIteration
        # The last batch of a data set may be smaller, and can't be stacked with others.
        if len(batches) > 1 and len(shapes) == 1 and not model.run_eagerly:
            return many_steps(tuple(batches))
        for batch in batches:
            logs = one_step(batch)
        return logs

    return function


@functools.cache  # Once in a process.
def warn_of_slow_convolutions():
    """Warns if TensorFlow runs without oneDNN's convolutions, which take half the time.

    On Linux, TensorFlow leaves them off on processors with AVX2 only, unless
    `TF_ENABLE_ONEDNN_OPTS=1` is set when it is imported.
    """
    if "TF_ENABLE_ONEDNN_OPTS" in os.environ or tf.config.list_physical_devices("GPU"):
        return
    if needs_onednn_setting(processor_flags()):
        warnings.warn(
            "TensorFlow was imported without oneDNN's convolutions, so that a training step takes "
            "about twice as long on this processor. Import `keras_sagan` before TensorFlow and "
            'Keras, or start the program with `import os; os.environ["TF_ENABLE_ONEDNN_OPTS"] = '
            '"1"`.',
            stacklevel=3,
        )


def needs_onednn_setting(flags):
    """Whether TensorFlow leaves oneDNN off on a processor with these features."""
    enabling = ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")
    return "avx2" in flags and not flags.intersection(enabling)


def processor_flags():
    """The features of this processor as Linux names them; none elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("flags")]
    except OSError:
        return set()
    return set(lines[0].split(":")[1].split()) if lines else set()


def local_parts(strategy, batch):
    """Returns a list with a tuple for each replica of this process: its parts of the batch."""
    batch = batch if isinstance(batch, (tuple, list)) else (batch,)
    found = [strategy.experimental_local_results(part) for part in batch]
    count = max(map(len, found), default=1)
    # A part that is `None` is `None` on every replica.
    return [tuple(part[i if len(part) > 1 else 0] for part in found) for i in range(count)]


def has_static_batches(iterator):
    """Whether all batches of an iterator are known to be as large as the first."""
    specs = tf.nest.flatten(getattr(iterator, "element_spec", None), expand_composites=True)
    shapes = [getattr(spec, "shape", None) for spec in specs]  # Absent labels have none.
    is_known = bool(shapes) and shapes[0] is not None
    return is_known and all(x is None or x[:1].is_fully_defined() for x in shapes)


def stack(*parts):
    return None if is_absent(parts[0]) else tf.stack(parts)
