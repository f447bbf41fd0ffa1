"""Warnings of networks that end in the wrong activation, given at the first batch."""

import warnings

import keras
import numpy as np

from keras_sagan.models.judging import FEW, call, judge, values_of

FAR = 1e3  # Times larger than any input: a bounded output is at its bound there.
# Endings of a network that pass on the range of what comes before them.
SHAPES = ("Reshape", "Flatten", "Permute", "Squeeze", "Transpose", "Cast", "Identity")
SHAPES += ("Cropping2D", "UpSampling2D", "GlobalAveragePooling2D", "AveragePooling2D")
FILLS_RANGE = ("tanh", "hardtanh", "softsign")
ONE_SIDED = ("sigmoid", "hardsigmoid", "softmax", "relu", "relu6", "softplus", "exponential")
ONE_SIDED += ("logsigmoid", "logsoftmax")
KNOWN = {name.replace("_", "").lower() for name in dir(keras.activations)} | {"prelu"}


def warn_of_outputs(generator, discriminator, latents, images, labels):
    """Warns of a generator or a discriminator that ends in the wrong activation.

    Where the graph of layers doesn't tell, values do.

    Args:
        generator, discriminator: Keras models.
        latents: float32 latents.
        images: As many float32 images in [-1, 1].
        labels: As many labels, or `None`.
    """
    latents, images = latents[:FEW], images[:FEW]
    labels = None if labels is None else labels[:FEW]
    ending = last_activation(generator)
    if ending in (None, "add"):
        ending = _ending_by_values(generator, latents, labels)
    if ending in ONE_SIDED:
        _warn(f"`generator` ends in {ending}: its images never fill [-1, 1], where the real ones "
              "lie. End it in tanh.")  # fmt: skip
    elif ending is not None and ending not in FILLS_RANGE:
        name = "no activation" if ending == "linear" else ending
        _warn(f"`generator` ends in {name}: its images may leave [-1, 1], where the real ones lie "
              "and `generate` clips. End it in tanh.")  # fmt: skip
    ending = last_activation(discriminator)
    if ending is None:
        far = [values_of(judge, discriminator, sign * FAR * images, labels) for sign in (-1, 1)]
        bounds = np.abs(np.concatenate(far)[:, None] - [-1.0, 0.0, 1.0]).min(axis=1)
        ending = "sigmoid or tanh" if bounds.max() < 1e-3 and np.ptp(far) > 0 else None
    if ending not in (None, "add", "linear", "leakyrelu"):
        _warn(f"`discriminator` ends in {ending}: the losses need logits, which may be any real "
              "number. End it in a layer without an activation.")  # fmt: skip


def last_activation(network):
    """Returns the name of the activation that a network ends in.

    Args:
        network: Keras model.

    Returns:
        String without underscores, `"linear"` for none, `"add"` for a sum, or `None` where the
        graph of layers doesn't tell.
    """
    tensors = getattr(network, "outputs", None)
    while tensors:
        operation = tensors[0]._keras_history.operation
        name = _activation_of(operation)
        if name != "shape":
            return name
        tensors = keras.tree.flatten(operation.input)
    return None


def _activation_of(operation):
    kind = type(operation).__name__
    if isinstance(operation, keras.Model):
        return last_activation(operation)
    activation = getattr(operation, "activation", None)
    is_only_activation = isinstance(operation, keras.layers.Activation)
    if kind in SHAPES or (is_only_activation and activation is keras.activations.linear):
        return "shape"
    # Layers such as `ReLU` and the functions of `ops` are named as what they do.
    name = getattr(activation, "__name__", kind).replace("_", "").lower()
    return name if name in KNOWN or kind == "Add" else None


def _ending_by_values(generator, latents, labels):
    near = values_of(call, generator, latents, labels, training=True)
    far = values_of(call, generator, FAR * latents, labels)
    images = np.concatenate([near, far])
    if images.min() >= 0 and images.max() > 0:
        return "relu" if images.max() > 1.001 else "sigmoid"
    return "linear" if np.abs(images).max() > 1.001 else None


def _warn(message):
    warnings.warn(message, stacklevel=4)
