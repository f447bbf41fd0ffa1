"""Estimates batch statistics for sampling, with several forward passes."""

import contextlib
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_sagan.private_keras import layers_of


@contextlib.contextmanager
def standing_statistics(network: keras.Model, batches: Iterable) -> Iterator[keras.Model]:
    """Uses standing statistics in a network's batch norm layers inside a `with` block.

    Moving averages from training lag behind the weights, and don't quite match averaged weights.
    Therefore, the network runs a forward pass in training mode on each batch. The means and the
    variances of the batches are averaged, and replace the moving averages. After the block, the
    moving statistics, the `vector_u` of spectral norms and the layers' `trainable` flags are
    restored.

    Args:
        network: Keras model with batch norm layers (anything with `moving_mean`, `moving_variance`
            and `momentum`).
        batches: Iterable of at least one batch of inputs to the network.

    Raises:
        ValueError: If the network has no batch norm layers, or no batches are given.

    Example:
    ```python
    batches = [[latents_of(64), labels_of(64)] for _ in range(16)]
    with standing_statistics(model.ema_generator, batches):
        images = model.generate(100)
    ```

    Reference: [Brock et al., 2019](https://arxiv.org/abs/1809.11096), section 3.
    """
    layers = [x for x in layers_of(network) if hasattr(x, "moving_variance")]
    if not layers:
        raise ValueError(
            "`network` must have batch norm layers for standing statistics. "
            f"Received: {network.name} without one"
        )
    statistics = [x for layer in layers for x in (layer.moving_mean, layer.moving_variance)]
    trainable = [(layer, layer.trainable) for layer in layers_of(network)]
    momenta = [(layer, layer.momentum) for layer in layers]
    network.trainable = True  # A frozen batch norm would use its moving statistics.
    kept = [(x, _to_numpy(x)) for x in network.non_trainable_variables]
    try:
        try:
            for layer in layers:
                layer.momentum = 0.0  # Each pass replaces the moving statistics completely.
            found = []
            for batch in batches:
                network(batch, training=True)
                found.append([_to_numpy(x).astype("float64") for x in statistics])
            if not found:
                raise ValueError("`batches` must hold at least one batch. Received: none")
        finally:
            for layer, momentum in momenta:
                layer.momentum = momentum
            for layer, value in trainable:
                layer.trainable = value
            _restore(kept)
        for variable, values in zip(statistics, zip(*found)):
            variable.assign(np.mean(values, axis=0).astype(variable.dtype))
        yield network
    finally:
        _restore(kept)


def _to_numpy(variable):
    return np.array(keras.ops.convert_to_numpy(variable))


def _restore(kept):
    for variable, value in kept:
        variable.assign(value)
