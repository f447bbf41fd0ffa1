"""The work of an extractor shared among the replicas of a strategy."""

from collections.abc import Callable

import numpy as np

from keras_sagan.lazy import tf


def share_among_replicas(function: Callable, strategy, argument="feature_extractor") -> Callable:
    """Returns a function of numpy arrays whose batches are split among the replicas.

    Without a strategy of several replicas the function is returned as it is. The first call runs on
    one image in the strategy's scope, so that a network that is loaded on first use is mirrored.
    The order of the images is kept. A batch that doesn't divide evenly is padded with its last
    image, whose features are dropped.

    Args:
        function: From (float32 images or latents of shape (batch, ...), names) to a dictionary of
            tensors of shape (batch, ...). TensorFlow must be able to trace it, or the call raises
            `ValueError`.
        strategy: `tf.distribute.Strategy`, or `None`.
        argument: Where the function comes from, for messages.
    """
    replicas, traced = getattr(strategy, "num_replicas_in_sync", 1), {}
    if replicas == 1:
        return function

    def shared(images, names):
        if names not in traced:
            with strategy.scope():
                function(images[:1], names)
            traced[names] = tf.function(
                lambda part: strategy.run(function, (part, names)), reduce_retracing=True
            )
        missing = -len(images) % replicas
        parts = np.split(np.concatenate([images, images[-1:].repeat(missing, axis=0)]), replicas)
        values = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )
        try:
            outputs = traced[names](values)
        except (NotImplementedError, TypeError, AttributeError) as error:
            raise ValueError(
                f"`{argument}` must be made of TensorFlow or Keras operations to be shared "
                f"among replicas. Received: one that says {type(error).__name__}: {error}"
            ) from error
        return {
            name: strategy.gather(value, axis=0).numpy()[: len(images)]
            for name, value in outputs.items()
        }

    return shared
