"""Converts networks to plain Keras layers, for inference without this package."""

import functools
import math

import keras
import numpy as np
from keras import layers, ops

from keras_sagan.layers.conditional_batch_norm import ConditionalNormBase
from keras_sagan.layers.conditional_group_norm import ConditionalGroupNorm
from keras_sagan.layers.differentiable_augmentation import DifferentiableAugmentation
from keras_sagan.layers.self_attention import SelfAttention
from keras_sagan.layers.sn_conv2d import SNConv2D
from keras_sagan.layers.sn_convolutions import SNConv1D, SNConv2DTranspose, SNConv3D
from keras_sagan.layers.sn_dense import SNDense
from keras_sagan.layers.sn_embedding import SNEmbedding
from keras_sagan.layers.spectral_norm import SpectralNormMixin
from keras_sagan.layers.spectral_norm_wrapper import SpectralNorm
from keras_sagan.ops.attention import attend
from keras_sagan.private_keras import layers_of, refresh_constants

PLAIN = {
    SNConv1D: layers.Conv1D,
    SNConv2D: layers.Conv2D,
    SNConv2DTranspose: layers.Conv2DTranspose,
    SNConv3D: layers.Conv3D,
    SNDense: layers.Dense,
    SNEmbedding: layers.Embedding,
}
OWN_SETTINGS = ("power_iterations", "epsilon", "equality_constrained", "resample")


def bake_spectral_norm(model: keras.Model) -> keras.Model:
    """Returns a copy of a network with plain Keras layers and the same outputs at inference.

    Kernels are divided by their spectral norms once, and `SpectralNorm(layer)` is replaced with its
    inner layer. Self-attention is replaced with convolutions, matrix products and a softmax; the
    last kernel is multiplied by `gamma`. `ConditionalBatchNorm` is replaced with scales and
    offsets, which are computed from the moving statistics and stored in embeddings (or in dense
    layers, if the conditions are vectors). `ConditionalGroupNorm` and `ConditionalLayerNorm` are
    replaced with a `GroupNormalization`, followed by scales and offsets. You can load, export and
    convert the copy without this package. Don't train it.

    Args:
        model: A built functional or sequential Keras model, such as `SAGAN.generator`. Nested
            models are copied too. The copy is a functional model.

    Raises:
        ValueError: If the model has its own `call` or isn't built, or if a layer has no plain Keras
            equivalent. Examples are a custom layer that contains normalized layers, and attention
            with pattern="ylg".

    Example:
    >>> import keras
    >>> from keras_sagan import SNDense
    >>> network = keras.Sequential([keras.Input((3,)), SNDense(2)])
    >>> baked = bake_spectral_norm(network)
    >>> type(baked.layers[-1]).__name__
    'Dense'
    """
    check_graph(model)
    new_values = []
    replaced = {}  # Maps layer ids to the functions that replace the layers.

    def clone(operation):
        if _replacement_of(operation)[0]:
            return operation  # `call` replaces this layer later.
        _check_bakable(operation, model)
        source = operation.layer if isinstance(operation, SpectralNorm) else operation
        plain = PLAIN.get(type(source), type(source))
        config = {**source.get_config(), "name": operation.name}
        if plain is not type(source):
            config = {k: v for k, v in config.items() if k not in OWN_SETTINGS}
        new = plain.from_config(config)
        if isinstance(operation, layers.Layer):
            new_values.append((new, _weights(operation)))
        return new

    def call(operation, *args, **kwargs):
        if isinstance(operation, layers.UpSampling2D):
            return _up(operation, *args, **kwargs)
        make, names = _replacement_of(operation)
        if make is None:
            return operation(*args, **kwargs)
        if kwargs.get("return_attention_scores"):
            raise ValueError(
                f"`model` must not call {type(operation).__name__} with "
                f"return_attention_scores=True. Received: {model.name}, where {operation.name} does"
            )
        arguments = [*args, *(kwargs[name] for name in names[len(args) :] if name in kwargs)]
        if id(operation) not in replaced:
            replaced[id(operation)] = make(operation, arguments[0].shape, new_values)
        return replaced[id(operation)](*arguments[: len(names)])

    baked = copy_graph(model, clone, call)
    for new, values in new_values:
        if values:
            new.set_weights(values)
    refresh_constants(baked)
    return baked


def is_graph(model):
    """Returns whether a model is functional or sequential, without a `call` of its own."""
    is_functional = isinstance(model, keras.Model) and hasattr(model, "operations")
    is_known = is_functional or isinstance(model, keras.Sequential)
    return is_known and type(model).call.__module__.startswith("keras.")


def check_graph(model):
    """Raises an error unless a model is functional or sequential, and built."""
    if not is_graph(model) or not getattr(model, "inputs", None):
        raise ValueError(
            "`model` must be a functional or sequential Keras model that is built and doesn't have "
            "its own `call`. "
            f"Received: model={model!r} of type {type(model).__name__}"
        )
    check_vocabularies(model)


def check_vocabularies(network):
    """Raises an error if a vocabulary isn't in its layer's configuration, and so not in copies."""
    kinds = layers.StringLookup, layers.IntegerLookup, layers.TextVectorization
    for layer in layers_of(network):
        if isinstance(layer, kinds) and layer.get_config()["vocabulary"] is None:
            raise ValueError(
                f"`vocabulary` of {layer.name} in {network.name} must be a list that is passed to "
                "the layer, because a copy of the network has no vocabulary from `adapt`, "
                "`set_vocabulary` or a file. Received: vocabulary=None"
            )


def copy_graph(model, clone, call=None):
    """Returns a functional copy of a model, including copies of nested models.

    `clone` copies a layer, and `call` calls the copy, as in `keras.models.clone_model`. The copy
    isn't compiled. A layer that several models share is copied only once.
    """
    copies = {}

    def copied(operation):
        if id(operation) not in copies:
            copies[id(operation)] = (graph if is_graph(operation) else clone)(operation)
        return copies[id(operation)]

    def graph(model):
        if isinstance(model, keras.Sequential):
            ends = (x if len(x) > 1 else x[0] for x in (model.inputs, model.outputs))
        else:
            ends = model.input, model.output
        functional = keras.Model(*ends, name=model.name)
        return keras.models.clone_model(functional, clone_function=copied, call_function=call)

    return graph(model)


def _check_bakable(operation, model):
    if isinstance(operation, SpectralNorm) or type(operation) in PLAIN:
        return
    for x in layers_of(operation) if isinstance(operation, layers.Layer) else ():
        if any(cls.__module__.startswith("keras_sagan.") for cls in type(x).__mro__):
            where = "" if x is operation else f" in {operation.name}"
            raise ValueError(
                "`model` must have no layers that can't become plain Keras layers. "
                f"Received: {model.name} with {x.name} of type {type(x).__name__}{where}"
            )


def _replacement_of(operation):
    """Returns a pair: a function that creates the replacement (or `None`), and the input names."""
    if isinstance(operation, SelfAttention):
        return _plain_attention, ("inputs",)
    if isinstance(operation, ConditionalNormBase):
        return _plain_norm, ("images", "labels")
    if isinstance(operation, DifferentiableAugmentation):  # Inference doesn't augment images.
        return (lambda *_: lambda images: images), ("images",)
    if isinstance(operation, SNConv2D) and operation.resample is not None:
        return _plain_resampling, ("inputs",)
    return None, ()


def _weights(layer):
    """Returns a layer's weights, with normalized kernels, to load into its replacement."""
    if isinstance(layer, SpectralNorm):
        kernels = {id(kernel): value for kernel, value in layer.normalized_weights()}
        weights = layer.layer.weights
        return [ops.convert_to_numpy(kernels.get(id(weight), weight)) for weight in weights]
    if not isinstance(layer, SpectralNormMixin):
        return layer.get_weights()
    rest = [w for w in layer.weights if w is not layer._raw_weight() and w is not layer.vector_u]
    kernel = ops.cast(layer.normalized_weight(), layer.variable_dtype)
    return [ops.convert_to_numpy(x) for x in (kernel, *rest)]


def _plain_attention(layer, shape, new_values):
    """Returns a function that replaces a self-attention layer; its argument is a feature map."""
    first, rank = layer.data_format == "channels_first", layer.rank
    if layer.pattern != "dense":
        raise ValueError(
            '`model` must have attention layers with pattern="dense". '
            f"Received: {layer.name} with pattern={layer.pattern!r}"
        )
    pool, dtype = layer.pool_size, layer.dtype_policy
    settings = {"data_format": "channels_last", "dtype": dtype}
    convs = {}
    for name in ("query", "key", "value", "output"):
        old = getattr(layer, f"{name}_conv")
        if old is None:  # With l2 scores, query and key share their weights.
            continue
        convs[name] = getattr(layers, f"Conv{rank}D")(
            old.filters, 1, use_bias=False, name=f"{layer.name}_{name}", **settings
        )
        share = ops.convert_to_numpy(layer.gamma) if name == "output" else 1.0
        kernel = _weights(old)[0] * share
        new_values.append((convs[name], [kernel.reshape((1,) * rank + kernel.shape[-2:])]))

    def locations(x, is_pooled):
        if is_pooled and pool > 1:
            # TensorFlow has no 3D pooling in float16 on CPUs.
            kind = {**settings, "dtype": "float32"} if rank == 3 else settings
            x = getattr(layers, f"MaxPooling{rank}D")(pool, **kind)(x)
        return layers.Reshape((math.prod(x.shape[1:-1]), x.shape[-1]), dtype=dtype)(x)

    def call(inputs):  # A layer may be called on maps of several sizes.
        size = inputs.shape[2:] if first else inputs.shape[1:-1]
        if None in size:
            raise ValueError(
                "`model` must have feature maps of known size before attention layers. "
                f"Received: {layer.name} on a map of shape {tuple(inputs.shape)}"
            )
        axes = range(1, rank + 2)
        x = layers.Permute((*axes[1:], 1), dtype=dtype)(inputs) if first else inputs
        query = convs["query"](x)
        key = convs["key"](x) if "key" in convs else query
        value = convs["value"](x)
        query, key, value = locations(query, False), locations(key, True), locations(value, True)
        x, _ = attend(query, key, value, layer.num_heads, layer.scores)
        x = layers.Reshape((*size, x.shape[-1]), dtype=dtype)(x)
        x = convs["output"](x)
        x = layers.Permute((rank + 1, *axes[:-1]), dtype=dtype)(x) if first else x
        return layers.Add(dtype=dtype)([inputs, x])

    return call


def _plain_resampling(layer, shape, new_values):
    """Returns a function that applies resampling and convolution in separate layers."""
    config = {k: v for k, v in layer.get_config().items() if k not in OWN_SETTINGS}
    conv = layers.Conv2D.from_config({**config, "activation": None})
    new_values.append((conv, _weights(layer)))
    settings = {"data_format": layer.data_format, "dtype": layer.dtype_policy}
    if layer.resample == "up":
        steps = [functools.partial(_up, layers.UpSampling2D(2, **settings)), conv]
    else:
        steps = [conv, layers.AveragePooling2D(2, **settings)]
    if layer.kernel_size == (1, 1):  # Compute a 1 x 1 convolution on the smaller map.
        steps.reverse()
    steps.append(layers.Activation(layer.activation, dtype=layer.dtype_policy))
    return lambda x: functools.reduce(lambda x, step: step(x), steps, x)


def _up(layer, x):
    """Upsamples a map, and restores the static shape that LiteRT's converter needs."""
    x = layer(x)
    is_known = None not in x.shape[1:]
    return layers.Reshape(x.shape[1:], dtype=layer.dtype_policy)(x) if is_known else x


def _plain_norm(layer, shape, new_values):
    """Returns a function of `(images, labels)` with the same outputs as a conditional norm."""
    axis, is_group = layer.axis % len(shape), isinstance(layer, ConditionalGroupNorm)
    is_vector = layer.condition_dim is not None
    weights = (layer.gamma_kernel, layer.beta_kernel) if is_vector else (layer.gamma, layer.beta)
    moments = () if is_group else (layer.moving_mean, layer.moving_variance)
    gamma, beta, *moments = (
        ops.convert_to_numpy(x).astype("float64") for x in (*weights, *moments)
    )
    kind = layers.BatchNormalization
    if is_group:
        kind = functools.partial(layers.GroupNormalization, layer.groups)
    norm = functools.partial(kind, axis=axis, epsilon=layer.epsilon, name=layer.name)
    if layer.num_classes == 1:
        new = norm(dtype=layer.dtype_policy)
        new_values.append((new, [gamma[0], beta[0], *moments]))
        return lambda images, labels=None: new(images)
    normalize = norm(center=False, scale=False, dtype="float32") if is_group else None
    count = shape[axis]
    mean, share = np.zeros(count), np.ones(count)
    if not is_group:
        mean, share = moments[0], 1.0 / np.sqrt(moments[1] + layer.epsilon)
    scale, steps = gamma * share, []
    for name, rows, bias in (
        ("scale", scale, share),
        ("offset", beta - scale * mean, -share * mean),
    ):
        settings = {"dtype": "float32", "name": f"{layer.name}_{name}"}
        if is_vector:
            steps.append(layers.Dense(count, **settings))
        else:
            steps.append(layers.Embedding(*rows.shape, **settings))
        new_values.append((steps[-1], [rows, bias] if is_vector else [rows]))
    channels = [1] * (len(shape) - 1)
    channels[axis - 1] = count

    def call(images, labels):
        rows = [layers.Reshape(channels, dtype="float32")(step(labels)) for step in steps]
        x = normalize(images) if is_group else images
        x = layers.Multiply(dtype="float32")([x, rows[0]])
        x = layers.Add(dtype="float32")([x, rows[1]])
        return layers.Activation("linear", dtype=layer.dtype_policy)(x)

    return call
