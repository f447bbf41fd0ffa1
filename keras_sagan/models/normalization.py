"""Copies models, and adds spectral normalization to their layers."""

from collections.abc import Collection

import keras

from keras_sagan.checks import check_list
from keras_sagan.layers.self_attention import SelfAttention
from keras_sagan.layers.spectral_norm import SpectralNormBase, initial_vector_u
from keras_sagan.layers.spectral_norm_wrapper import SpectralNorm
from keras_sagan.models.baking import PLAIN, check_graph, copy_graph, is_graph
from keras_sagan.private_keras import layers_of, refresh_constants

NORMALIZED = {plain: normalized for normalized, plain in PLAIN.items()}


def apply_spectral_norm(
    model: keras.Model,
    include: Collection[str | type[keras.Layer]] | None = None,
    exclude: Collection[str | type[keras.Layer]] | None = None,
) -> keras.Model:
    """Copies a model and applies spectral normalization to its layers.

    `Dense`, `Conv2D` and the other layers that have a normalized version become `SNDense`,
    `SNConv2D` and so on. Other layers with kernels, including subclasses of these layers, are
    wrapped in `SpectralNorm`. Layers that are already normalized don't change. The copy has the
    same layer names and starts with the same weights, but its outputs differ, because kernels are
    divided by their spectral norms. `bake_spectral_norm` converts the copy to plain Keras layers.

    Args:
        model: A built functional or sequential Keras model. Nested models are copied too. The copy
            is functional, and isn't compiled.
        include: List of names or classes of the layers to normalize. The name of a nested model
            selects all its layers. The name of a layer inside a wrapper, such as `TimeDistributed`,
            selects the wrapper. `None` selects all layers with kernels.
        exclude: List of names or classes of layers not to normalize, interpreted as in `include`.

    Raises:
        ValueError: If the model has its own `call`, isn't built, or has layers that are quantized
            or adapted by LoRA; if an entry of `include` or `exclude` matches no layer; or if an
            entry of `include` matches a layer without kernels or with normalized kernels.

    Example:
    >>> import keras
    >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> type(apply_spectral_norm(network).layers[-1]).__name__
    'SNDense'

    Reference:
        [Miyato et al., 2018](https://arxiv.org/abs/1802.05957), algorithm 1.
    """
    check_graph(model)
    found = list(_layers(model))
    for name in ("quantization_mode", "lora_enabled"):
        changed = [x.name for _, parts in found for x in parts if getattr(x, name, None)]
        if changed:
            raise ValueError(
                "`model` must not have layers that are quantized or adapted by LoRA. "
                f"Received: {model.name} with {changed[0]}"
            )
    chosen = [x for x, _ in found if _obstacle(x) is None]
    if include is not None:
        chosen = _matches("include", include, found, are_normalized=True)
    if exclude is not None:
        excluded = _matches("exclude", exclude, found)
        chosen = [x for x in chosen if not any(x is other for other in excluded)]
    chosen_ids = {id(x) for x in chosen}
    copies = []  # Pairs of a layer and its copy.

    def clone(operation):
        cls, config = type(operation), operation.get_config()
        is_chosen = id(operation) in chosen_ids
        if is_chosen and isinstance(operation, SelfAttention):
            copy = cls.from_config({**config, "use_spectral_norm": True})
        elif is_chosen and cls in NORMALIZED:
            copy = NORMALIZED[cls].from_config(config)
        else:
            copy = cls.from_config(config)
            copy = SpectralNorm(copy, name=operation.name) if is_chosen else copy
        if isinstance(operation, keras.Layer):
            copies.append((operation, copy))
        return copy

    normalized = copy_graph(model, clone)
    for original, copy in copies:
        kernels = _normalized_kernels(copy) if id(original) in chosen_ids else []
        vector_ids = {id(vector_u) for *_, vector_u in kernels}
        weights = [x for x in copy.weights if id(x) not in vector_ids]
        for weight, value in zip(weights, original.get_weights(), strict=True):
            weight.assign(value)
        for kernel, norm, vector_u in kernels:
            vector_u.assign(initial_vector_u(kernel, norm))
    refresh_constants(normalized)
    return normalized


def _normalized_kernels(layer):
    normalized = [x for x in layers_of(layer) if isinstance(x, SpectralNormBase)]
    return [kernel for x in normalized for kernel in x.normalized_kernels()]


def _layers(model, models=()):
    """Yields `(layer, parts)` for each layer of a model and of nested models.

    `parts` contains the layer, the nested models that contain it, and all of its sublayers.
    """
    for layer in model.layers:
        if is_graph(layer):
            yield from _layers(layer, (*models, layer))
        else:
            yield layer, (*models, *layers_of(layer))


def _obstacle(layer):
    """Returns the error that explains why a layer can't be normalized, or `None`."""
    try:
        SpectralNorm(layer)._find_kernels()
    except ValueError as error:
        return error
    return None


def _matches(argument, entries, found, are_normalized=False):
    """Returns the layers in `found` that have one of the given names or classes."""
    matches = []
    for entry in check_list(argument, entries):
        is_class = isinstance(entry, type)
        new = [
            layer
            for layer, parts in found
            if any(isinstance(x, entry) if is_class else x.name == entry for x in parts)
        ]
        if not new:
            raise ValueError(
                f"`{argument}` must contain names or classes of layers of `model`. "
                f"Received: {argument}={entries!r}, where {entry!r} matches no layer of "
                f"{sorted({x.name for _, parts in found for x in parts})}"
            )
        able = [x for x in new if _obstacle(x) is None]
        # If a class or nested model matches several layers, skip those that can't be normalized.
        named = [x for x in new if x.name == entry]
        wrong = [x for x in (named if able else new) if _obstacle(x)]
        if are_normalized and wrong:
            raise ValueError(
                f"`{argument}` must contain layers that have kernels and aren't normalized "
                f"already. Received: {argument}={entries!r}, which includes {wrong[0].name}"
            ) from _obstacle(wrong[0])
        matches += able if are_normalized else new
    return matches
