"""The TensorFlow part of a training step: gradients, random numbers, replicas, and the loop."""

import contextlib
import functools
import itertools
import os
import warnings

import tensorflow as tf
from keras import ops, tree

from keras_sagan.checks import is_absent
from keras_sagan.private_keras import layers_of

ONLY = {}

# Gradients


def gradients(function, variables):
    """Differentiates a function; the gradient of an unused variable is `None`."""
    values = [variable.value for variable in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        scalar, others = function()
    found = tape.gradient(scalar, values)
    # Convert the sparse gradients of embedding tables to dense tensors.
    return [None if x is None else tf.convert_to_tensor(x) for x in found], others


def input_gradient(total, inputs):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        result = total(inputs)
    return tape.gradient(result, inputs)


def cond(condition, function, otherwise):
    """Works like `keras.ops.cond`, but keeps `function` out of the surrounding graph.

    In the surrounding graph, TensorFlow's memory optimizer would sum gradients in temporary
    variables. Every run would create the variables, but free them only if the condition is true, so
    the next run would fail.
    """
    if not tf.executing_eagerly():
        apart = {"_noinline": True}
        function = tf.function(function, autograph=False, experimental_attributes=apart)
    return ops.cond(condition, function, otherwise)


def apply_scaled(optimizer, gradients, variables):
    optimizer.apply(gradients, variables)


# Random numbers: each replica draws them for the global batch, and uses its share of them


def draw_noise(seed, batch, latent_dim, num_classes=None):
    seed, (start, total) = _folded(seed), _share_of_batch(batch)
    bits = tf.random.stateless_uniform((total, latent_dim), seed, 0, 2**23, tf.int32)
    latents = tf.slice(normal_from_bits(bits), (start, 0), (batch, latent_dim))
    if num_classes is None:
        return latents, None
    labels = tf.random.stateless_uniform((total,), _fold_in(seed, 1), 0, num_classes, tf.int32)
    return latents, tf.slice(labels, (start,), (batch,))


def draw_uniform(seed, batch, columns):
    start, total = _share_of_batch(batch)
    # For the same seed, XLA draws different floats than TensorFlow, but the same integers.
    bits = tf.random.stateless_uniform((total, columns), _folded(seed), 0, 2**24, tf.int32)
    return tf.slice(tf.cast(bits, tf.float32) / 2.0**24, (start, 0), (batch, columns))


def normal_from_bits(bits):
    """Converts 23 random bits to a normally distributed number; 24 bits could make it infinite."""
    return tf.math.ndtri((tf.cast(bits, tf.float32) + 0.5) / 2.0**23)


def _share_of_batch(batch):
    """Returns the start of this replica's share of the global batch, and the global batch size."""
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group * batch, context.num_replicas_in_sync * batch


def _folded(seed):
    first, *others = seed
    return functools.reduce(_fold_in, others, [first, 0])


def _fold_in(seed, data):
    # Clear the sign bit: XLA and TensorFlow disagree on negative seeds.
    return tf.bitwise.bitwise_and(tf.random.experimental.stateless_fold_in(seed, data), 2**31 - 1)


# Replicas


def count_replicas():
    return tf.distribute.get_replica_context().num_replicas_in_sync


def mean_over_replicas(x):
    if count_replicas() == 1:
        return x
    return tf.distribute.get_replica_context().all_reduce("MEAN", x)


def traced_once(gan, function, count=1):
    """Binds `gan` to `function`, which is traced only once even if a step calls it `count` times.

    `function(gan, index, *tensors)` must not assign variables. With several replicas and
    `jit_compile=True`, XLA compiles only `function`; the replicas exchange gradients outside of it.
    Without XLA, `function` isn't traced on several replicas, because batch norms may exchange
    statistics.
    """
    function = functools.partial(function, gan)
    is_alone = count_replicas() == 1
    if gan.run_eagerly or (is_alone and count == 1) or not (is_alone or gan.jit_compile):
        return function
    traced = tf.function(function, jit_compile=gan.jit_compile and not is_alone, autograph=False)
    return lambda index, *tensors: traced(tf.constant(index), *tensors)


def share_overflow(gradients):
    """Makes all gradients infinite if any gradient overflows, so that all replicas skip the update.

    Keras's `LossScaleOptimizer` checks only the first replica of each worker: an overflow on
    another replica would corrupt all weights, and workers that disagree would deadlock.
    """
    each = [tf.reduce_all(tf.math.is_finite(x)) for x in gradients if x is not None]
    overflows = 1.0 - tf.cast(tf.reduce_all(each), tf.float32)
    overflows = tf.distribute.get_replica_context().all_reduce("SUM", overflows)
    added = tf.where(overflows > 0.0, float("inf"), 0.0)
    return [None if x is None else x + tf.cast(added, x.dtype) for x in gradients]


current_strategy = tf.distribute.get_strategy


def count_devices(strategy):
    """Returns the number of devices that share a batch."""
    return strategy.num_replicas_in_sync


def check_built_under(strategy, **owners):
    """Raises an error if a network or optimizer was built outside the strategy's scope."""
    for name, owner in owners.items():
        for variable in owner.variables:
            if not strategy.extended.variable_created_in_scope(variable.value):
                raise ValueError(
                    f"`{name}` must be built inside the `strategy.scope()` that the model is "
                    f"built in. Received: a {name} whose {variable.path} was made outside "
                    f"{type(strategy).__name__}"
                )


def check_scope(strategy, method, or_outside=True):
    """Raises an error if a method is called in the scope of a strategy other than the model's."""
    current = current_strategy()
    if current is strategy or (or_outside and not tf.distribute.has_strategy()):
        return
    raise ValueError(
        f"`{method}` must be called under the strategy that the model was built in"
        f"{', or outside of any' if or_outside else ''}. Received: a model built under "
        f"{type(strategy).__name__}, and the scope of {type(current).__name__}"
    )


def check_compile(strategy, jit_compile, computes_in_float16):
    """Raises an error for `jit_compile=True` or float16 under a `TPUStrategy`."""
    if not isinstance(strategy, tf.distribute.TPUStrategy):
        return
    if jit_compile is True:
        raise ValueError(
            '`jit_compile` must be False or "auto" under TPUStrategy, which always compiles the '
            "full step with XLA. Received: jit_compile=True"
        )
    if computes_in_float16:
        raise ValueError(
            "`dtype_policy` must be mixed_bfloat16 or float32 under TPUStrategy: TPUs have no "
            "float16 units, and bfloat16 needs no loss scale. Received: layers in float16"
        )


def check_replicated(model):
    """Raises an error for features that hang, or fail with unclear errors, on several replicas."""
    for name in ("g_optimizer", "d_optimizer"):
        optimizer = getattr(model, name)
        steps = getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps
        if steps:
            raise ValueError(
                f"`{name}` must not accumulate gradients over several replicas: Keras's optimizers "
                "can't exchange gradients once in several steps. Use a larger batch. Received: "
                f"gradient_accumulation_steps={steps} over "
                f"{model.distribute_strategy.num_replicas_in_sync} replicas"
            )
    layers = [*layers_of(model.generator), *layers_of(model.discriminator)]
    synchronized = [x.name for x in layers if getattr(x, "synchronized", False)]
    if model.jit_compile and synchronized:
        raise ValueError(
            "`jit_compile=True` over several replicas needs synchronized=False: XLA can't "
            "compile the exchange of statistics inside a layer. Received: "
            f"jit_compile=True and layer {synchronized[0]} with synchronized=True"
        )
    of_d = [x for x in layers_of(model.discriminator) if getattr(x, "synchronized", False)]
    if model.slots.lazy and of_d:
        raise ValueError(
            "`penalty` with an `every` above 1 needs synchronized=False over several replicas: "
            "TensorFlow can't exchange statistics inside a condition. Received: "
            f"penalty={model.penalty} and layer {of_d[0].name} with synchronized=True"
        )


def check_share(argument):
    """Checks nothing, because TensorFlow divides an array among the workers."""


# Inference


def compiled(function, variables, latent_dim, num_classes):
    signature = [tf.TensorSpec((None, latent_dim), "float32")]
    if num_classes is not None:
        signature.append(tf.TensorSpec((None,), "int32"))
    return tf.function(function, input_signature=signature, autograph=False)


def compiled_gradient(function, variables):
    @tf.function(autograph=False, reduce_retracing=True)
    def run(inputs, *others):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            losses = function(inputs, *others)
        return tape.gradient(losses, inputs), losses

    return run


# The loop


def make_step_function(model, step, check, is_training):
    """Returns the function for `fit` or `evaluate`; Keras calls it with an iterator.

    The function runs `steps_per_execution` steps, or fewer at the end of the data. Unlike Keras's
    own function, it can reduce logs over several workers, and doesn't use
    `tf.experimental.Optional`.
    """
    strategy = model.distribute_strategy
    if is_training and strategy.num_replicas_in_sync > 1:
        check_replicated(model)

    @tf.autograph.experimental.do_not_convert  # Keras also runs its steps without AutoGraph.
    def run(function, *args):
        logs = strategy.run(function, args)
        return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

    one_step, compiled_step = functools.partial(run, step), step
    if not model.run_eagerly:
        # With several replicas, `traced_once` compiles only the inner part of the step.
        jit_compile = model.jit_compile and strategy.num_replicas_in_sync == 1
        options = {"reduce_retracing": True, "autograph": False, "jit_compile": jit_compile}
        one_step = tf.function(one_step, **options)
        compiled_step = tf.function(step, **options) if jit_compile else step

    def step_of(stacked, index):
        return compiled_step(tree.map_structure(lambda x: None if x is None else x[index], stacked))

    def stack(*batches):
        return tree.map_structure(lambda *x: None if is_absent(x[0]) else tf.stack(x), *batches)

    @tf.function
    def many_steps(batches):
        """Runs a step on each batch, in a loop whose body is traced only once."""
        stacked = strategy.run(stack, batches)
        logs = run(step_of, stacked, 0)
        for index in tf.range(1, len(batches)):
            logs = run(step_of, stacked, index)
        return logs

    @tf.function
    def summed(values):
        return strategy.reduce("SUM", values, axis=None)

    def sizes_on_all(sizes):
        """Returns all replicas' batch sizes in order, given the sizes of this worker's replicas."""
        count, own = strategy.num_replicas_in_sync, iter(sizes)
        rows = strategy.experimental_distribute_values_from_function(
            lambda context: next(own) * tf.one_hot(context.replica_id_in_sync_group, count)
        )
        return [int(size) for size in summed(rows).numpy()]

    def check_on_all(parts, iterator):
        """Raises an error on all workers if a first batch is invalid or batch sizes differ."""
        is_known = check.has_passed and has_static_batches(iterator)
        gather = sizes_on_all if model._is_one_of_many and not is_known else list
        check.check_first(model, parts, gather)

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
        # The last batch of a dataset may be smaller: don't stack it with the others.
        if len(batches) > 1 and len(shapes) == 1 and not model.run_eagerly:
            return many_steps(tuple(batches))
        for batch in batches:
            logs = one_step(batch)
        return logs

    return function


@functools.cache  # Warn once per process.
def warn_of_slow_convolutions():
    """Warns if TensorFlow runs without oneDNN's convolutions, which are twice as fast.

    On Linux, TensorFlow disables oneDNN on processors that have AVX2 but no newer features, unless
    `TF_ENABLE_ONEDNN_OPTS=1` is set before TensorFlow is imported.
    """
    if "TF_ENABLE_ONEDNN_OPTS" in os.environ or tf.config.list_physical_devices("GPU"):
        return
    if needs_onednn_setting(processor_flags()):
        warnings.warn(
            "TensorFlow was imported without oneDNN's convolutions: a training step takes about "
            "twice as long on this processor. Import `keras_sagan` before TensorFlow and Keras, or "
            'start the program with `import os; os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"`.',
            stacklevel=3,
        )


def needs_onednn_setting(flags):
    """Returns whether TensorFlow disables oneDNN on a processor with these features."""
    enabling = ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")
    return "avx2" in flags and not flags.intersection(enabling)


def processor_flags():
    """Returns the set of this processor's features on Linux, and an empty set elsewhere."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("flags"):
                return set(line.split(":")[1].split())
    return set()


def local_parts(strategy, batch):
    """Returns a list with the images and labels of each replica of this process."""
    batch = batch if isinstance(batch, (tuple, list)) else (batch,)
    found = [strategy.experimental_local_results(part) for part in batch]
    count = max(map(len, found), default=1)
    # A missing part of the batch is a single `None`, not one `None` for each replica.
    return [tuple(part[i if len(part) > 1 else 0] for part in found) for i in range(count)]


def has_static_batches(iterator):
    """Returns whether all batches of an iterator are known to have the same size."""
    specs = tf.nest.flatten(getattr(iterator, "element_spec", None), expand_composites=True)
    shapes = [getattr(spec, "shape", None) for spec in specs]  # Missing labels have no shape.
    is_known = bool(shapes) and shapes[0] is not None
    return is_known and all(x is None or x[:1].is_fully_defined() for x in shapes)
