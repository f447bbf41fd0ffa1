"""The work of an extractor shared among the replicas of a strategy."""

import numpy as np

from keras_sagan.lazy import tf


def share_among_replicas(function, strategy, argument="feature_extractor"):
    """Makes a function of arrays whose batches are cut into one part for each replica.

    The first call runs on one image in the strategy's scope, so that a network that is loaded on
    first use is mirrored. The order of the images is kept; a batch that doesn't divide is filled
    up with its last image, whose features are dropped.

    Args:
        function: From (float32 images or latents of shape (batch, ...), names) to a dictionary of
            tensors of shape (batch, ...). TensorFlow must be able to trace it.
        strategy: `tf.distribute.Strategy`.
        argument: String, what the function comes from, for messages.

    Returns:
        A function of the same arguments, which returns numpy arrays.

    Raises:
        ValueError: When called, if the function can't be traced.
    """
    traced = {}

    def shared(images, names):
        if names not in traced:
            with strategy.scope():
                function(images[:1], names)
            traced[names] = tf.function(
                lambda part: strategy.run(function, (part, names)), reduce_retracing=True
            )
        replicas = strategy.num_replicas_in_sync
        missing = -len(images) % replicas
        padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        parts = np.split(padded, replicas)
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
