"""Checks before training that a generator and a discriminator are compatible."""

import contextlib
import warnings

import keras

from keras_sagan.layers.conditional_batch_norm import ConditionalNormBase
from keras_sagan.models.baking import check_vocabularies, is_graph
from keras_sagan.private_keras import layers_of

# Maps each layer class that takes labels to the attribute with its number of classes.
LABEL_TABLES = {
    "ConditionalNormBase": "num_classes",
    "Embedding": "input_dim",
    "CategoryEncoding": "num_tokens",
    "OneHot": "num_classes",
}
# Operations that change only the shape or the dtype of labels.
KEEP_LABELS = ("Reshape", "Flatten", "ExpandDims", "Squeeze", "Cast", "Identity", "GetItem")


def connect(generator, discriminator, latent_dim, num_classes):
    """Builds both networks and returns the image shape, or raises an error if they don't match."""
    labels = [] if num_classes is None else [keras.Input((), dtype="int32")]
    latents = keras.Input((latent_dim,))
    others = " together with labels" if labels else " alone, as num_classes=None"
    try:
        _check_first_input(generator, latents.shape)
        images = generator([latents, *labels] if labels else latents)
    except Exception as error:
        raise ValueError(
            f"`generator` must take latents of shape (batch, {latent_dim}){others}. "
            f"Received: a generator that raises: {error}"
        ) from error
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4:
        raise ValueError(
            "`generator` must make images of shape (batch, height, width, channels). "
            f"Received: a generator with outputs of shape {shape}"
        )
    try:
        _check_first_input(discriminator, shape)
        images = keras.Input(shape[1:])
        logits = discriminator([images, *labels] if labels else images)
    except Exception as error:
        raise ValueError(
            f"`discriminator` must take what `generator` makes{others}. Received: a generator "
            f"with images of shape {shape}, and a discriminator that raises: {error}"
        ) from error
    _check_logits(logits)
    if num_classes is not None:
        _check_tables("generator", generator, num_classes)
        _check_tables("discriminator", discriminator, num_classes)
    return shape[1:]


def _check_first_input(network, shape):
    """Raises an error for a wrong input shape; Keras would accept one channel instead of three."""
    inputs = getattr(network, "inputs", None)
    expected = tuple(inputs[0].shape) if inputs else shape
    fits = len(expected) == len(shape) and all(
        None in pair or pair[0] == pair[1] for pair in zip(expected, shape)
    )
    if not fits:
        raise ValueError(f"it takes inputs of shape {expected}")


def _check_logits(logits):
    """Raises an error unless a discriminator returns one logit or one logit map per image."""
    shape = tuple(getattr(logits, "shape", ()))
    is_patch_map = len(shape) == 4 and shape[1] == 1 and shape[2] != 1  # (batch, 1, height, width)
    is_one_for_all = not shape or shape[0] == 1
    if is_one_for_all or (len(shape) > 1 and shape[-1] != 1 and not is_patch_map):
        received = f"outputs of shape {shape}"
        if not hasattr(logits, "shape"):
            shapes = keras.tree.map_structure(lambda x: tuple(x.shape), logits)
            received = f"a {type(logits).__name__} of outputs of shape {shapes}"
        raise ValueError(
            "`discriminator` must return one logit per image, of shape (batch,) or (batch, 1), "
            "or a map of logits per image, of shape (batch, height, width, 1). "
            f"Received: a discriminator with {received}"
        )


def _check_tables(name, network, num_classes):
    """Raises an error if a layer's table has fewer rows than classes; most devices don't check."""
    layers = layers_of(network)
    steps = [x for layer in layers for x in [layer, *getattr(layer, "operations", [])]]
    for step in {id(step): step for step in steps}.values():
        table = label_table(step)
        size = getattr(step, table) if table else None
        if size is None or size >= num_classes or not _may_take_labels(step):
            continue
        message = (
            f"`num_classes` must be at most {size}, the number of rows in `{step.name}` of the "
            f"{name}. Received: num_classes={num_classes}"
        )
        if is_graph(network) or isinstance(step, ConditionalNormBase):
            raise ValueError(message)
        # In a subclassed network, the layer may look up something other than labels.
        warnings.warn(f"{message}. If the layer takes no labels, ignore this.", stacklevel=5)


def label_table(step):
    """Returns the attribute of an operation in `LABEL_TABLES`, or `None`."""
    for kind in type(step).__mro__:
        # A user's class may have the same name, but not the attribute.
        if kind.__module__.startswith(("keras.", "keras_sagan.")) and kind.__name__ in LABEL_TABLES:
            return LABEL_TABLES[kind.__name__]
    return None


def _may_take_labels(step):
    """Returns whether the input of an operation may be labels; `True` if the input is unknown."""
    if isinstance(step, ConditionalNormBase):
        return step.num_classes > 1  # With a single class, the layer ignores labels.
    while True:
        inputs = keras.tree.flatten(getattr(step, "input", None))
        if not inputs or inputs[0] is None:
            return True
        step = inputs[0]._keras_history.operation
        if isinstance(step, keras.layers.InputLayer):
            return len(inputs[0].shape) < 3
        if type(step).__name__ not in KEEP_LABELS:
            return False


def check_unshared(generator, discriminator):
    """Raises an error if two networks share weights, which their copies wouldn't share."""
    known = {id(weight) for weight in discriminator.weights}
    shared = [weight.path for weight in generator.weights if id(weight) in known]
    if shared:
        raise ValueError(
            "`generator` and `discriminator` must not share layers if a model is saved or copied, "
            "because each network would get its own. Use `save_weights`, and load the weights into "
            f"a model that the same code built. Received: networks that share {', '.join(shared)}"
        )


@contextlib.contextmanager
def copying(name, network, needed_by):
    """Raises an error that names the network or layer that the `with` block can't copy."""
    try:
        yield
    except Exception as error:  # A user's class may raise any error.
        raise ValueError(
            f"`{name}` must be a network that can be copied for {needed_by}: replace each "
            "Lambda by a layer of your own, and let each class of your own pass `**kwargs` to its "
            "base and return its other arguments in `get_config`. "
            f"Received: {network.name}, whose copy raises: {error}"
        ) from error


def copy_network(name, network, needed_by):
    """Returns a network with the same configuration and new variables."""
    with copying(name, network, needed_by):
        check_vocabularies(network)
        if is_graph(network):
            return keras.models.clone_model(network)
        return network.__class__.from_config(network.get_config())
