"""The configuration of a model, which a checkpoint stores beside the variables."""

import json
import warnings

import keras

from keras_sagan.callbacks.model_state import optimizers_of

_NETWORKS = ("generator", "discriminator")
_SETTINGS = ("d_steps", "ema_momentum", "ema_start")
# These don't change the function of the weights, or are listed by the layers inside.
_IGNORED = {
    *("name", "trainable", "seed", "module", "registered_name", "build_config", "dtype"),
    *("layers", "input_layers", "output_layers", "algorithm", "query_chunk_size"),
}
_MAY_CHANGE = ("policy", "rate", "stddev", "synchronized", "_regularizer", "_constraint")


def configuration_of(model):
    """Returns the configuration of a model, ready for JSON.

    Args:
        model: A `SAGAN`. Of a layer or network without `get_config` its class alone is noted.

    Returns:
        Dictionary with `"networks"`, from a network's name to a list of its layers; `"settings"`
        of the model; and the version of Keras.
    """
    settings = {name: getattr(model, name, None) for name in _SETTINGS}
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
        networks = {name: _layers(getattr(model, name)) for name in _NETWORKS}
    return {"keras": keras.__version__, "settings": _plain(settings), "networks": networks}


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
        config = _plain(thing.get_config(), drop)
    except Exception:  # Whatever a user's own `get_config` raises.
        return {}
    return config if isinstance(config, dict) else {}


def _plain(value, drop=True):
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
