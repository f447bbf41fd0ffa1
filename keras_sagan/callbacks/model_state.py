"""What a training run consists of besides its data: every variable of a model, by name."""

import re

from keras import backend, ops

from keras_sagan.layers.conditional_batch_norm import SETTLED
from keras_sagan.lazy import tf

NETWORKS = ("generator", "discriminator", "ema_generator")


def check_model(model):
    """Raises unless a model has what a checkpoint of training holds."""
    for name in ("generator", "discriminator", "d_optimizer", "steps", "seed"):
        if not hasattr(model, name):
            raise ValueError(
                "`TrainingCheckpoint` must be given a compiled SAGAN. "
                f"Received: {type(model).__name__} without `{name}`"
            )


def state_of(model):
    """Returns all that training changes, except metrics: networks, the rest, optimisers.

    Args:
        model: A `SAGAN`, or another Keras model.

    Returns:
        Dictionary from a part's name, such as `"generator"`, to its list of variables, the states
        of seed generators included. Parts that the model hasn't got are absent.
    """
    networks = {name: getattr(model, name, None) for name in NETWORKS}
    parts = {name: list(x.variables) for name, x in networks.items() if x is not None}
    known = {id(variable) for variables in parts.values() for variable in variables}
    parts["model"] = [variable for variable in model.variables if id(variable) not in known]
    parts.update({name: list(x.variables) for name, x in optimizers_of(model).items()})
    return parts


def optimizers_of(model):
    """Returns the optimizers of a model by part; none if it isn't compiled."""
    # A SAGAN's `optimizer` is over both networks; that of another model is its only one.
    single = getattr(model, "optimizer", None)
    found = {
        "optimizer": getattr(model, "g_optimizer", single),
        "d_optimizer": getattr(model, "d_optimizer", None),
    }
    return {part: optimizer for part, optimizer in found.items() if optimizer is not None}


def metrics_of(model):
    """Returns the variables of a model's metrics, which hold the sums of the epoch so far."""
    return [variable for metric in model.metrics for variable in metric.variables]


class FiniteCheck:
    """Looks for NaN and infinity in all that `state_of` returns.

    Args:
        model: A compiled `SAGAN`, or another Keras model.
        compiles: Boolean, whether to make one function of it, for use at every step.

    Returns:
        When called, a list of strings: the parts and paths of the variables that aren't finite,
        networks before optimisers.
    """

    def __init__(self, model, compiles=False):
        found = [  # No dictionary: layers of two nested models may share a path.
            (f"{part}/{variable.path}", variable)
            for part, variables in state_of(model).items()
            for variable in variables
            if backend.is_float_dtype(variable.dtype)
        ]
        self._model = model
        self._names = [name for name, _ in found]

        def flags_of(values):
            # One wait for the device, not one for each.
            return ops.stack([ops.all(ops.isfinite(value)) for value in values])

        if compiles and backend.backend() == "jax":
            import jax

            flags_of = jax.jit(flags_of)

        def flags():
            return flags_of([variable.value for _, variable in found])

        is_graph = compiles and backend.backend() == "tensorflow"
        self._flags = tf.function(flags) if is_graph else flags

    def __call__(self):
        if hasattr(self._model, "jax_state_sync"):  # `fit` on JAX keeps the values to itself.
            self._model.jax_state_sync()
        flags = ops.convert_to_numpy(self._flags())
        return [name for name, is_finite in zip(self._names, flags) if not is_finite]


def learning_rates_of(model):
    """Returns the learning rates of a model's optimisers that are variables, by `keyed`'s key."""
    parts = {part: x.variables for part, x in optimizers_of(model).items()}
    rates = {k: v for k, v in keyed(parts).items() if k.endswith(":learning_rate")}
    return {k: float(ops.convert_to_numpy(v)) for k, v in rates.items()}


def describe(variables):
    """Returns `[path, shape, dtype]` of each variable, as JSON holds them."""
    return [[v.path, list(v.shape), backend.standardize_dtype(v.dtype)] for v in variables]


def optimizer_names(model):
    """Returns the classes of a model's optimisers, by part."""
    return {part: _class_name(optimizer) for part, optimizer in optimizers_of(model).items()}


def _class_name(optimizer):
    inner = getattr(optimizer, "inner_optimizer", None)
    name = _without_fused(type(optimizer).__name__)
    return name if inner is None else f"{name}({_class_name(inner)})"


def _without_fused(name):
    """The name of an optimizer's class, where `FusedAdam` is what `Adam` was before."""
    return name.replace("FusedAdam", "Adam")


def keyed(parts):
    """Returns the variables of parts under keys that are unique, and sort as they stand."""
    return {
        f"{part}:{index:05d}:{variable.path.replace('/', ':')}": variable
        for part, variables in parts.items()
        for index, variable in enumerate(variables)
    }


def architecture_of(model):
    """Returns what a checkpoint must share with a model: names, shapes, dtypes, optimisers."""
    variables = {part: describe(x) for part, x in state_of(model).items()}
    return {"variables": variables, "optimizers": optimizer_names(model)}


def assign_state(model, seed, values):
    """Gives a model a state: the counterpart of `keyed(state_of(model))`.

    Args:
        model: A `SAGAN` of the same architecture.
        seed: Integer, the seed of its latents.
        values: Dictionary from keys to arrays. Parts that the model doesn't have are skipped, and
            of two keys with the same part and position the later one counts.
    """
    by_part = {}
    for key, value in values.items():
        # Keras numbers the names of layers and optimizers within a process: only positions count.
        part, _, rest = key.partition(":")
        by_part.setdefault(part, {})[rest.partition(":")[0]] = value
    has_counts = any(map(_is_count, values))
    for part, variables in state_of(model).items():
        if not has_counts:
            counts, variables = _apart(variables, lambda variable: variable.path)
            for count in counts:
                count.assign(SETTLED)
        for variable, (_, value) in zip(variables, sorted(by_part.get(part, {}).items())):
            variable.assign(value)
    if model.seed != seed:
        # The seed is a constant in functions that were traced before.
        model.seed = seed
        for make, function in (
            (model.make_train_function, model.train_function),
            (model.make_test_function, model.test_function),
        ):
            if function is not None:
                make(force=True)


def check_architecture(model, saved, path):
    """Raises unless a checkpoint fits a model; one that isn't compiled needs no optimisers.

    Args:
        model: A `SAGAN`.
        saved: Dictionary, what `architecture_of` returned when the checkpoint was written.
        path: String, the checkpoint, for the message.

    Raises:
        ValueError: If something differs; the message says what differs first.
    """
    present = architecture_of(model)
    saved = {key: saved[key] for key in present}
    saved["optimizers"] = {k: _without_fused(name) for k, name in saved["optimizers"].items()}
    if not present["optimizers"]:
        optimizers = saved["optimizers"]
        saved["variables"] = {k: v for k, v in saved["variables"].items() if k not in optimizers}
        saved["optimizers"] = {}
    if not any(_is_count(path) for part in saved["variables"].values() for path, *_ in part):
        for part, entries in present["variables"].items():
            present["variables"][part] = _apart(entries, lambda entry: entry[0])[1]
    difference = first_difference(saved, present)
    if difference is not None:
        raise ValueError(
            f"The checkpoint must be of the same architecture as the model: {difference}. "
            f"Received: the checkpoint {path}"
        )


def first_difference(saved, present):
    """Says what differs first between two architectures.

    Args:
        saved: Dictionary with `"variables"`, from part to what `describe` returns, and
            `"optimizers"`, what `optimizer_names` returns.
        present: The same of the model at hand.

    Returns:
        String, or `None` where nothing differs. Numbers that Keras adds to names don't count.
    """
    # The networks come first: what differs there makes the optimisers differ too.
    for part in [*present["variables"], *saved["variables"]]:
        pair = [x["variables"].get(part) for x in (saved, present)]
        if None in pair:
            has, hasnt = ("model", "checkpoint") if pair[0] is None else ("checkpoint", "model")
            return f"the {has} has a part `{part}` and the {hasnt} hasn't"
        classes = [x["optimizers"].get(part) for x in (saved, present)]
        if classes[0] != classes[1]:
            return f"`{part}` is {classes[0]} in the checkpoint and {classes[1]} in the model"
        for one, other in zip(*pair):
            names = [_plain(x[0], part) for x in (one, other)]
            kinds = [[list(x[1]), _kind(x[2])] for x in (one, other)]
            if names[0] != names[1] or kinds[0] != kinds[1]:
                return (
                    f"in `{part}`, the checkpoint has {_in_words(one)} where the model has "
                    f"{_in_words(other)}"
                )
        if len(pair[0]) != len(pair[1]):
            has = "checkpoint" if len(pair[0]) > len(pair[1]) else "model"
            extra = max(pair, key=len)[min(map(len, pair))]
            return f"in `{part}`, only the {has} has {_in_words(extra)}"
    return None


def _is_count(path):
    """Whether it is the count of a `ConditionalBatchNorm`, which older checkpoints don't have."""
    return path.endswith("num_updates")


def _apart(items, path_of):
    """Splits a list into the counts of batch norms and all else."""
    lists = [], []
    for item in items:
        lists[not _is_count(path_of(item))].append(item)
    return lists


def _plain(path, part):
    # Keras numbers layers within a process ("conv2d_3"), and the model's or the optimiser's own
    # name leads the paths of its own variables: neither says that two models differ.
    name = path if part in NETWORKS else path.split("/", 1)[-1]
    return re.sub(r"_\d+(?=[/_]|$)", "", name)


def _kind(dtype):
    return "integer" if "int" in dtype else dtype  # Backends count in integers of other sizes.


def _in_words(entry):
    path, shape, dtype = entry
    return f"`{path}` of shape {tuple(shape)} and dtype {dtype}"
