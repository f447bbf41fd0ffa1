"""Reads, compares and restores the variables and the configuration of a training run."""

import itertools
import json
import re
import warnings

import keras
import numpy as np
from keras import backend, ops

from keras_sagan.layers.conditional_batch_norm import SETTLED
from keras_sagan.lazy import tf
from keras_sagan.private_keras import layers_of, refresh_constants

# Maps names in checkpoints to a model's attributes. Reading `ema_generator` may copy weights.
NETWORKS = {"generator": "generator", "discriminator": "discriminator", "ema_generator": "_average"}
SETTINGS = (
    *("d_steps", "ema_momentum", "ema_half_life", "ema_start", "top_k", "freeze_discriminator"),
)
# Configuration keys to ignore: most don't affect outputs; nested layers are compared separately.
_IGNORED = {
    *("name", "trainable", "seed", "module", "registered_name", "build_config", "dtype"),
    *("layers", "input_layers", "output_layers", "algorithm", "query_chunk_size"),
}
_MAY_CHANGE = ("policy", "rate", "stddev", "synchronized", "_regularizer", "_constraint")


def check_model(model):
    """Raises ValueError unless a model has the attributes that a checkpoint needs."""
    for name in ("generator", "discriminator", "d_optimizer", "steps", "seed"):
        if not hasattr(model, name):
            raise ValueError(
                "`TrainingCheckpoint` must be given a compiled SAGAN. "
                f"Received: {type(model).__name__} without `{name}`"
            )


def state_of(model):
    """Returns the variables of each network, each optimizer and the model, except metrics."""
    networks = {name: getattr(model, attribute, None) for name, attribute in NETWORKS.items()}
    parts = {name: list(x.variables) for name, x in networks.items() if x is not None}
    known = {id(variable) for variables in parts.values() for variable in variables}
    parts["model"] = [variable for variable in model.variables if id(variable) not in known]
    parts.update({name: list(x.variables) for name, x in optimizers_of(model).items()})
    return parts


def optimizers_of(model):
    """Returns a dictionary of a model's optimizers; it is empty if the model isn't compiled."""
    # A SAGAN's `optimizer` combines both optimizers. Other models have only `optimizer`.
    single = getattr(model, "optimizer", None)
    found = {
        "optimizer": getattr(model, "g_optimizer", single),
        "d_optimizer": getattr(model, "d_optimizer", None),
    }
    return {part: optimizer for part, optimizer in found.items() if optimizer is not None}


def metrics_of(model):
    """Returns the variables of a model's metrics, which contain the running sums for the epoch."""
    return [variable for metric in model.metrics for variable in metric.variables]


def steps_of(model):
    return int(ops.convert_to_numpy(model.steps))


class FiniteCheck:
    """A callable that returns the names of all variables with NaN or infinite values.

    With `compiles=True`, the check is compiled, so that it is fast enough to run at every step.
    """

    def __init__(self, model, compiles=False):
        found = [(part, x) for part, variables in state_of(model).items() for x in variables]
        found = [(part, x) for part, x in found if backend.is_float_dtype(x.dtype)]
        # Use lists, because variables in two nested models may have the same path.
        self._model, self._names = model, [f"{part}/{x.path}" for part, x in found]

        def flags_of(values):
            # Stack the flags, so that reading them waits for the device only once.
            return ops.stack([ops.all(ops.isfinite(value)) for value in values])

        if compiles and backend.backend() == "jax":
            import jax

            flags_of = jax.jit(flags_of)

        def flags():
            return flags_of([x.value for _, x in found])

        is_graph = compiles and backend.backend() == "tensorflow"
        self._flags = tf.function(flags) if is_graph else flags

    def __call__(self):
        # On JAX, `fit` keeps the current values outside the variables until `jax_state_sync`.
        if hasattr(self._model, "jax_state_sync"):
            self._model.jax_state_sync()
        flags = ops.convert_to_numpy(self._flags())
        return [name for name, is_finite in zip(self._names, flags) if not is_finite]


def learning_rates_of(model):
    """Returns a dictionary of the optimizers' learning rates; `keyed` describes the keys."""
    rates = keyed({part: x.variables for part, x in optimizers_of(model).items()})
    return {
        key: float(ops.convert_to_numpy(rate))
        for key, rate in rates.items()
        if key.endswith(":learning_rate")
    }


def keyed(parts):
    """Returns a dictionary of variables with keys such as `generator:00002:dense:kernel`."""
    return {
        f"{part}:{index:05d}:{variable.path.replace('/', ':')}": variable
        for part, variables in parts.items()
        for index, variable in enumerate(variables)
    }


def architecture_of(model):
    """Returns the seed, the optimizers' classes, and each variable's path, shape and dtype."""
    variables = {
        part: [[v.path, list(v.shape), backend.standardize_dtype(v.dtype)] for v in found]
        for part, found in state_of(model).items()
    }
    optimizers = {part: _class_name(x) for part, x in optimizers_of(model).items()}
    return {"variables": variables, "optimizers": optimizers, "seed": model.seed}


def _class_name(optimizer):
    name, inner = type(optimizer).__name__, getattr(optimizer, "inner_optimizer", None)
    return name if inner is None else f"{name}({_class_name(inner)})"


def read_state(model, copy=True):
    """Returns a dictionary of all variables as arrays, including metrics; see `keyed` for the keys.

    Without `copy`, the next step may overwrite the arrays. bfloat16 becomes float32 without loss.
    """
    values = {}
    for key, variable in keyed({**state_of(model), "metrics": metrics_of(model)}).items():
        value = np.asarray(variable)  # A view of the variable on some backends.
        value = value.copy() if copy else value
        values[key] = value.astype("float32") if value.dtype.kind == "V" else value
    return values


def restore_state(model, manifest, values, path):
    """Restores a model from a checkpoint; raises ValueError if the two don't match."""
    check_architecture(model, manifest, path)
    check_configuration(model, manifest.get("configuration"), path)
    # The manifest has newer learning rates, because callbacks may set them after the save.
    assign_state(model, manifest["seed"], {**values, **manifest["learning_rates"]})


def assign_state(model, seed, values):
    """Assigns a seed and variables to a model; `values` is in the format that `read_state` returns.

    The model must have the same architecture. Values of networks or optimizers that the model
    doesn't have are skipped. If two keys differ only in their paths, the later value is used.
    """
    # Match variables by position, because names of layers and optimizers differ between processes.
    by_place = {tuple(key.split(":", 2)[:2]): value for key, value in values.items()}
    has_counts = any(map(_is_count, values))
    for part, variables in state_of(model).items():
        places = sorted(place for place in by_place if place[0] == part)
        if not has_counts:
            for count in [x for x in variables if _is_count(x.path)]:
                count.assign(SETTLED)
            variables = [x for x in variables if not _is_count(x.path)]
        for variable, place in zip(variables, places):
            variable.assign(by_place[place])
    if refresh_constants(model) or model.seed != seed:
        model.seed = seed
        model.retrace()


def check_architecture(model, saved, path):
    """Raises ValueError if a model's architecture differs from `saved`; ignores the optimizers of a
    model that isn't compiled.
    """
    present = architecture_of(model)
    variables, optimizers = saved["variables"], saved["optimizers"]
    if not present["optimizers"]:
        variables = {part: x for part, x in variables.items() if part not in optimizers}
        # Remove the last variables, which `compile` adds for an augmentation or a penalty.
        count = len(present["variables"].get("model", []))
        variables["model"] = variables.get("model", [])[:count]
        optimizers = {}
    if not any(_is_count(entry[0]) for entries in variables.values() for entry in entries):
        for part, entries in present["variables"].items():
            present["variables"][part] = [x for x in entries if not _is_count(x[0])]
    saved = {"variables": variables, "optimizers": optimizers}
    if difference := first_difference(saved, present):
        raise ValueError(
            f"The checkpoint must be of the same architecture as the model: {difference}. "
            f"Received: the checkpoint {path}"
        )


def first_difference(saved, present):
    """Describes the first difference between two `architecture_of` results, or returns `None`."""
    # Compare the networks first, because a difference there makes the optimizers differ too.
    for part in [*present["variables"], *saved["variables"]]:
        classes = [x["optimizers"].get(part) for x in (saved, present)]
        # Treat `Adam` and `FusedAdam` as equal, because they have the same slots.
        if len({str(name).replace("FusedAdam", "Adam") for name in classes}) > 1:
            return f"`{part}` is {classes[0]} in the checkpoint and {classes[1]} in the model"
        pair = [x["variables"].get(part, []) for x in (saved, present)]
        for one, other in itertools.zip_longest(*pair):
            if one is None or other is None:
                owner = "model" if one is None else "checkpoint"
                return f"in `{part}`, only the {owner} has {_in_words(*(one or other))}"
            if _comparable(part, *one) != _comparable(part, *other):
                return (
                    f"in `{part}`, the checkpoint has {_in_words(*one)} where the model has "
                    f"{_in_words(*other)}"
                )
    return None


def _comparable(part, path, shape, dtype):
    # Ignore numeric suffixes of Keras's default names ("conv2d_3"), the name of the model or
    # optimizer at the start of a path, and the width of integers, which depends on the backend.
    name = path if part in NETWORKS else path.split("/", 1)[-1]
    name = re.sub(r"_\d+(?=[/_]|$)", "", name)
    return name, list(shape), "integer" if "int" in dtype else dtype


def _in_words(path, shape, dtype):
    return f"`{path}` of shape {tuple(shape)} and dtype {dtype}"


def _is_count(path):
    """Returns whether a path belongs to a `num_updates` variable, which older checkpoints lack."""
    return path.endswith("num_updates")


def configuration_of(model):
    """Returns the Keras version and a model's settings and layers, as JSON types."""
    settings = {name: getattr(model, name, None) for name in SETTINGS}
    settings.update(getattr(model, "ttur", {}))
    losses = getattr(model, "loss_functions", None)
    if losses is not None:
        settings["loss"] = losses[:2]
    for part, optimizer in optimizers_of(model).items():
        config = _plain(_config(getattr(optimizer, "inner_optimizer", optimizer)))
        config.pop("learning_rate", None)  # Callbacks may change the learning rate.
        settings.update({f"{part}.{name}": value for name, value in config.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns about lambdas, which aren't compared.
        names = ("generator", "discriminator")
        networks = {name: list(_layers(getattr(model, name), set())) for name in names}
    return {"keras": keras.__version__, "settings": _plain(settings), "networks": networks}


def check_configuration(model, saved, path):
    """Raises ValueError if the networks would compute different results than the saved networks.

    Other differences only cause a warning. `saved` is the saved result of `configuration_of`, or
    `None` in older checkpoints.
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
            f"The checkpoint {path} was written with different settings: {'; '.join(allowed)}. The "
            "model keeps its settings, but takes the learning rates of the checkpoint.",
            stacklevel=5,
        )


def _layers(owner, seen):
    """Yields a dictionary for each layer and operation of a network, including nested ones."""
    operations = getattr(owner, "operations", None) if isinstance(owner, keras.Model) else None
    if operations is None:
        operations = layers_of(owner, include_self=False, recursive=False)
    inputs = _inputs(owner)
    for operation in operations:
        if id(operation) in seen or not isinstance(operation, keras.Operation):
            continue
        seen.add(id(operation))
        is_layer, config = isinstance(operation, keras.Layer), _plain(_config(operation))
        if "batch_shape" in config:
            config["batch_shape"] = config["batch_shape"][1:]
        if is_layer:
            config["policy"] = operation.dtype_policy.name
        yield {
            "class": type(operation).__name__,
            "name": operation.name,
            "config": config,
            "inputs": inputs.get(operation.name),
        }
        if is_layer:
            yield from _layers(operation, seen)


def _inputs(network):
    """Returns a dictionary that maps the layers of a functional network to their inputs."""
    layers = _config(network).get("layers", [])
    try:
        index = {layer["name"]: i for i, layer in enumerate(layers)}
        # Ignore `training` and `mask`: some ways of building a network don't record them.
        ignored = ("training", "mask")
        return {x["name"]: _plain(x["inbound_nodes"], ignored, index) for x in layers}
    except (KeyError, TypeError):  # Only functional networks list their inputs.
        return {}


def _config(thing):
    """Returns the configuration of a layer or optimizer, or `{}` if it has none."""
    try:
        config = thing.get_config()
    except Exception:  # A user's `get_config` may raise any error.
        return {}
    return config if isinstance(config, dict) else {}


def _plain(value, ignored=_IGNORED, index=None):
    """Converts a configuration to JSON types, without the ignored keys.

    If `index` maps layer names to positions, each tensor is replaced by its layer's position.
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(x, ignored, index) for x in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if not isinstance(value, dict):  # Don't use `repr`, which may contain a memory address.
        return getattr(value, "__name__", type(value).__name__)
    if value.get("class_name") == "__lambda__":  # A lambda's serialized code has line numbers.
        return "lambda"
    config = value.get("config")
    if index is not None and isinstance(config, dict) and "keras_history" in config:
        name, *rest = config["keras_history"]
        return [index.get(name), *rest]
    return {
        str(key): _plain(x, ignored, index)
        for key, x in value.items()
        if key not in ignored and not str(key).endswith("_initializer")
    }


def _differing(name, saved, present):
    """Yields the key and a description of each difference between two dictionaries."""
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
        # Compare inputs only within one Keras version, because the format depends on the version.
        if saved["keras"] == version and None not in known and known[0] != known[1]:
            yield "inputs", f"{where} has different inputs in the checkpoint and in the model"
    if len(before) != len(layers):
        text = f"{len(before)} layers in the checkpoint and {len(layers)} in the model"
        yield "layers", f"the {part} has {text}"
