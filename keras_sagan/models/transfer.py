"""Adapts a trained model to different classes, and freezes blocks."""

import os
import warnings

import keras

from keras_sagan.checks import MAX_COUNT, check_integer
from keras_sagan.layers import SNDense
from keras_sagan.layers.conditional_batch_norm import ConditionalNormBase
from keras_sagan.layers.spectral_norm import SpectralNormBase, initial_vector_u
from keras_sagan.models import blocks
from keras_sagan.models.baking import check_vocabularies, is_graph
from keras_sagan.models.connection import copy_network, copying, label_table
from keras_sagan.private_keras import layers_of, refresh_constants


def freeze_blocks(discriminator, count):
    """Freezes the first `count` blocks of a discriminator, and returns `count` as an integer."""
    count = check_integer("freeze_discriminator", count, 0, MAX_COUNT)
    layers = getattr(discriminator, "layers", [])
    last = [i for i, x in enumerate(layers) if x.name.startswith(f"block_{count}_")]
    if count and not last:
        names = sorted({"_".join(x.name.split("_")[:2]) for x in layers if x.name[:6] == "block_"})
        raise ValueError(
            "`freeze_discriminator` must be a number of blocks of the discriminator, whose layers "
            "are named block_1_… and so on, as `build_discriminator` does. "
            f"Received: freeze_discriminator={count} for the blocks {names}"
        )
    for layer in layers[: last[-1] + 1] if count else ():
        layer.trainable = False
    return count


def source_of(model):
    """Returns the given model, or the model that a file contains."""
    if isinstance(model, (str, os.PathLike)):
        model = keras.saving.load_model(os.path.expanduser(model), compile=False)
    if not all(hasattr(model, name) for name in ("generator", "discriminator", "latent_dim")):
        raise ValueError(
            "`model` must be a SAGAN, or the path of a .keras file of one. "
            f"Received: model={model!r}"
        )
    return model


def with_classes(name, network, before, after):
    """Copies a network and changes its classes from `before` to `after`; `None` means no labels.

    To add labels, each norm with `num_classes=1` becomes conditional, except `last_norm`, and a
    projection of the last dense layer's inputs is added to the logits. If the new
    network has no labels, its norms are called without them, and its `Add` layers lose the inputs
    that depend on them.
    """
    if before == after:
        return copy_network(name, network, "`from_model`")
    if not (is_graph(network) and hasattr(network, "_run_through_graph")):
        raise _refused(network, before, after)
    check_vocabularies(network)
    inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in network.inputs]
    labels, of_labels, copies = inputs[-1] if before else None, [], {}
    if before is None:
        labels = keras.Input((), dtype="int32", name="labels")
        inputs.append(labels)
    elif after is None:
        of_labels.append(labels)

    def is_of_labels(x):
        return any(x is other for other in of_labels)

    def copied(operation):
        if id(operation) not in copies:
            copies[id(operation)] = _copied(name, operation, before, after)
        return copies[id(operation)]

    def call(operation, *args, **kwargs):
        is_norm = isinstance(operation, ConditionalNormBase) and operation.num_classes is not None
        if is_norm and before is None and operation.num_classes == after:
            return operation(args[0], labels)
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if hasattr(x, "_keras_history")]
        others = [x for x in tensors if not is_of_labels(x)]
        if len(others) == len(tensors):
            return operation(*args, **kwargs)
        if is_norm:
            return operation(others[0])
        if type(operation).__name__ == "Add" and others:
            return others[0] if len(others) == 1 else operation(others)
        outputs = operation(*args, **kwargs)
        of_labels.extend(keras.tree.flatten(outputs))
        return outputs

    given = inputs[: len(network.inputs)]
    output = network._run_through_graph(given, operation_fn=copied, call_fn=call)
    if before is None and name == "discriminator":
        output = _projected(output, labels, after)
    inputs = inputs[:-1] if after is None else inputs
    try:
        if is_of_labels(output) or output is None:
            raise ValueError("its outputs depend on labels")
        return keras.Model(inputs[0] if after is None else inputs, output, name=network.name)
    except ValueError as error:
        raise _refused(network, before, after) from error


def _copied(name, operation, before, after):
    if isinstance(operation, keras.Model):
        return with_classes(name, operation, before, after)
    if not isinstance(operation, keras.Layer):
        return operation
    with copying(name, operation, "`from_model`"):
        config, table = operation.get_config(), label_table(operation)
        if table in config:
            is_norm, size = isinstance(operation, ConditionalNormBase), config[table]
            gets_none = is_norm and size == 1 and operation.name == "last_norm"
            if size == (before or 1) and (before or is_norm) and not gets_none:
                config[table] = after or 1
        return type(operation).from_config(config)


def _projected(logits, labels, num_classes):
    dense = logits._keras_history.operation
    if not isinstance(dense, keras.layers.Dense):
        return None
    is_normalized = isinstance(dense, SNDense)
    names = ("power_iterations", "epsilon", "equality_constrained")
    settings = {name: getattr(dense, name) for name in names} if is_normalized else {}
    embedding = blocks.normalized_layers(is_normalized, settings)[-1]
    return blocks.project(logits, dense.input, labels, embedding, num_classes)


def _refused(network, before, after):
    return ValueError(
        "`num_classes` must be that of the model to start from, unless its networks are "
        "functional models that take labels in the same way as those of `build_generator` and "
        "`build_discriminator`. "
        f"Received: num_classes={after} for {network.name}, which has num_classes={before}"
    )


def take_weights(network, source):
    """Copies weights from a network if their shapes match; returns the other weights' paths.

    With different classes, each row of an embedding or norm starts as the mean of the old rows.
    """
    known = {id(variable): old for variable, old in _pairs(network, source)}
    layers, new = layers_of(network), []
    norms = [x for x in layers if isinstance(x, ConditionalNormBase) and x.condition_dim is None]
    tables = [table for x in norms for table in (x.gamma, x.beta)]
    tables += [x.embeddings for x in layers if isinstance(x, keras.layers.Embedding)]
    for variable in network.variables:
        old = known.get(id(variable))
        if old is not None and tuple(old.shape) == tuple(variable.shape):
            variable.assign(keras.ops.convert_to_numpy(old))
            continue
        new.append(variable.path)
        if old is not None and any(variable is table for table in tables):
            mean = keras.ops.convert_to_numpy(old).mean(axis=0, keepdims=True)
            variable.assign(mean.repeat(variable.shape[0], axis=0))
    for layer in layers:
        normalized = layer.normalized_kernels() if isinstance(layer, SpectralNormBase) else []
        for kernel, norm, vector_u in normalized:
            if kernel.path in new:
                vector_u.assign(initial_vector_u(kernel, norm))
                new += [] if vector_u.path in new else [vector_u.path]
    refresh_constants(network)
    return new


def _pairs(network, source):
    """Yields a pair `(variable, source_variable)` for each variable of a copied network.

    In a functional model, layers with the same name match, because classes may add or remove
    layers. All else matches in order: a copy's automatic names and paths have other numbers.
    """
    if hasattr(network, "operations"):
        known = {layer.name: layer for layer in source.layers}
        others = [x for x in network.layers if x.name not in known]
        for layer in network.layers:
            if layer.name in known:
                yield from _pairs(layer, known.pop(layer.name))
        if [type(x) for x in others] == [type(x) for x in known.values()]:
            for layer, old in zip(others, known.values()):
                yield from _pairs(layer, old)
        return
    variables = network.variables, source.variables
    names = [[x.name.rstrip("_0123456789") for x in each] for each in variables]
    if names[0] == names[1]:
        yield from zip(*variables)


def warn_of_new_weights(paths, num_classes):
    """Warns about the weights that weren't copied from the source model."""
    if paths:
        names = ", ".join(paths[:8]) + (", …" if len(paths) > 8 else "")
        warnings.warn(
            f"{len(paths)} weights don't fit num_classes={num_classes} and are new, see "
            f"`new_weights`: {names}",
            stacklevel=3,
        )
