"""What a training run consists of besides its data: variables by name, and the configuration."""

import json
import re
import warnings

import keras
import numpy as np
from keras import backend, ops

from keras_sagan.layers.conditional_batch_norm import SETTLED
from keras_sagan.lazy import tf

NETWORKS = ("generator", "discriminator", "ema_generator")
SETTINGS = ("d_steps", "ema_momentum", "ema_start")
# These don't change the function of the weights, or are listed by the layers inside.
_IGNORED = {
    *("name", "trainable", "seed", "module", "registered_name", "build_config", "dtype"),
    *("layers", "input_layers", "output_layers", "algorithm", "query_chunk_size"),
}
_MAY_CHANGE = ("policy", "rate", "stddev", "synchronized", "_regularizer", "_constraint")


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
    """Returns what a model consists of: its variables' names, shapes, dtypes; optimizers; seed."""
    variables = {part: describe(x) for part, x in state_of(model).items()}
    return {"variables": variables, "optimizers": optimizer_names(model), "seed": model.seed}


def read_state(model, copy=True):
    """Returns the values of all variables, those of the metrics included, by `keyed`'s key.

    Args:
        model: A compiled `SAGAN`.
        copy: Boolean. Without a copy, the next step may reuse the memory. Defaults to `True`.

    Returns:
        Dictionary of arrays; numpy can't store bfloat16, and float32 can, exactly.
    """
    values = {}
    for key, variable in keyed({**state_of(model), "metrics": metrics_of(model)}).items():
        value = ops.convert_to_numpy(variable)
        value = np.array(value) if copy else np.asarray(value)
        values[key] = value.astype("float32") if value.dtype.kind == "V" else value
    return values


def restore_state(model, manifest, values, path):
    """Gives a model what a checkpoint holds.

    Args:
        model: A `SAGAN`, compiled or not.
        manifest: Dictionary, the checkpoint's.
        values: Dictionary from keys to arrays.
        path: String, the checkpoint, for errors.

    Raises:
        ValueError: If its architecture or configuration is another.
    """
    check_architecture(model, manifest, path)
    check_configuration(model, manifest.get("configuration"), path)
    # A rate may have been set at the end of the epoch, after the step was saved.
    assign_state(model, manifest["seed"], {**values, **manifest["learning_rates"]})


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
    saved = {key: saved[key] for key in ("variables", "optimizers")}
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


# The configuration


def configuration_of(model):
    """Returns the configuration of a model, ready for JSON.

    Args:
        model: A `SAGAN`. Of a layer or network without `get_config` its class alone is noted.

    Returns:
        Dictionary with `"networks"`, from a network's name to a list of its layers; `"settings"`
        of the model; and the version of Keras.
    """
    settings = {name: getattr(model, name, None) for name in SETTINGS}
    settings.update(getattr(model, "ttur", {}))
    losses = getattr(model, "loss_functions", None)
    if losses is not None:  # Of a compiled model.
        settings["loss"] = losses[:2]
    for part, optimizer in optimizers_of(model).items():
        config = _config(getattr(optimizer, "inner_optimizer", optimizer))
        config.pop("learning_rate", None)  # A variable, which schedules and callbacks move.
        settings.update({f"{part}.{name}": value for name, value in config.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of lambdas, which aren't compared.
        networks = {name: _layers(getattr(model, name)) for name in NETWORKS[:2]}
    return {"keras": keras.__version__, "settings": _as_json(settings), "networks": networks}


def check_configuration(model, saved, path):
    """Raises for layers that compute something else, and warns of other settings of training.

    Args:
        model: A `SAGAN` whose variables fit the checkpoint.
        saved: What `configuration_of` returned when the checkpoint was written, or `None` for a
            checkpoint of an older version, which isn't checked.
        path: String, the checkpoint, for the messages.

    Raises:
        ValueError: If layers differ in more than what is likely changed on purpose.
    """
    if saved is None:
        return
    present = configuration_of(model)
    settings = _differing("`{}`", saved["settings"], present["settings"])
    refused, allowed = [], [text for _, text in settings]
    for part, layers in present["networks"].items():
        for name, text in _differing_layers(part, saved, layers, present["keras"]):
            (allowed if name.endswith(_MAY_CHANGE) else refused).append(text)
    if refused:
        raise ValueError(
            "The checkpoint must be of the same configuration as the model. "
            f"{'; '.join(refused)}. Received: the checkpoint {path}"
        )
    if allowed:
        warnings.warn(
            f"The checkpoint {path} was written with other settings: {'; '.join(allowed)}. The "
            "model's are used, except learning rates, which are the checkpoint's.",
            stacklevel=5,
        )


def _layers(network):
    """Returns the layers and operations of a network in order, those inside others too."""
    result, seen = [], set()

    def add(owner):
        operations = getattr(owner, "operations", None) if isinstance(owner, keras.Model) else None
        if operations is None:
            operations = owner._flatten_layers(include_self=False, recursive=False)
        inputs = _inputs(owner)
        for operation in operations:
            if id(operation) in seen or not isinstance(operation, keras.Operation):
                continue
            seen.add(id(operation))
            config = {k: v for k, v in _config(operation).items() if k not in _IGNORED}
            if "batch_shape" in config:
                config["batch_shape"] = config["batch_shape"][1:]
            if isinstance(operation, keras.Layer):
                config["policy"] = operation.dtype_policy.name
            result.append(
                {
                    "class": type(operation).__name__,
                    "name": operation.name,
                    "config": config,
                    "inputs": inputs.get(operation.name),
                }
            )
            if isinstance(operation, keras.Layer):
                add(operation)

    add(network)
    return result


def _inputs(network):
    """Returns what each layer of a functional network is called on, by the layer's name."""
    layers = _config(network, drop=False).get("layers", [])
    try:
        index = {layer["name"]: i for i, layer in enumerate(layers)}
        return {x["name"]: _indexed(x["inbound_nodes"], index) for x in layers}
    except (KeyError, TypeError):  # A user's own, or a Sequential.
        return {}


def _indexed(value, index):
    """Replaces Keras's tensors by the position of the layer that they come from."""
    if isinstance(value, list):
        return [_indexed(x, index) for x in value]
    if not isinstance(value, dict):
        return value
    config = value.get("config")
    if isinstance(config, dict) and "keras_history" in config:
        name, *rest = config["keras_history"]
        return [index.get(name), *rest]
    # Keras lists `training` for networks that were built in some ways, and not in others.
    return {k: _indexed(x, index) for k, x in value.items() if k not in ("training", "mask")}


def _config(thing, drop=True):
    """Returns the configuration of a layer or optimizer, `{}` where it has none."""
    try:
        config = _as_json(thing.get_config(), drop)
    except Exception:  # Whatever a user's own `get_config` raises.
        return {}
    return config if isinstance(config, dict) else {}


def _as_json(value, drop=True):
    """Returns a configuration as JSON has it, without what `_IGNORED` names."""
    value = json.loads(json.dumps(value, default=_described))
    return _dropped(value) if drop else value


def _described(value):
    if hasattr(value, "tolist"):
        return value.tolist()
    # `repr` may contain an address in memory.
    return getattr(value, "__name__", type(value).__name__)


def _dropped(value):
    if isinstance(value, list):
        return [_dropped(x) for x in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__lambda__":  # Its code names files and lines.
        return "lambda"
    return {
        key: _dropped(x)
        for key, x in value.items()
        if key not in _IGNORED and not key.endswith("_initializer")
    }


def _differing(name, saved, present):
    """Yields the keys of two dictionaries whose values differ, and a text; both must have them."""
    for key in present:
        one, other = (json.dumps(x.get(key), sort_keys=True) for x in (saved, present))
        if key in saved and one != other:
            yield key, f"{name.format(key)} is {one} in the checkpoint and {other} in the model"


def _differing_layers(part, saved, layers, version):
    before = saved["networks"].get(part, [])
    for one, other in zip(before, layers):
        where = f"`{other['name']}` of the {part}"
        if one["class"] != other["class"]:
            yield "class", f"{where} is a {one['class']} in the checkpoint, not a {other['class']}"
            return
        yield from _differing(f"`{{}}` of {where}", one["config"], other["config"])
        known = [one["inputs"], other["inputs"]]
        # Other versions of Keras may list inputs in another format.
        if saved["keras"] == version and None not in known and known[0] != known[1]:
            yield "inputs", f"{where} has other inputs in the checkpoint than in the model"
    if len(before) != len(layers):
        yield (
            "layers",
            f"the {part} has {len(before)} layers in the checkpoint and {len(layers)} in the model",
        )
