"""The private API of Keras that the package uses. Keras may change it without notice.

`USED` lists private attributes and methods, and where they are used. `tests/test_private_keras.py`
fails if Keras changes one of them.
"""

import keras

__all__ = []

layers_of = keras.Layer._flatten_layers  # Returns a network and all layers in it, at any depth.


def refresh_constants(network):
    """Makes each `Normalization` in a network use its variables after something assigned them.

    In Keras, only `adapt` and loading do this. Other layers' `finalize_state` discards their state.
    """
    for layer in layers_of(network):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def replace_layer(owner, name, layer):
    """Replaces a layer in an attribute, and makes Keras stop tracking the old layer."""
    old = getattr(owner, name, None)
    if old is not None:
        owner._tracker.untrack(old)
    setattr(owner, name, layer)


USED = {
    "_seed_generators": "models/sagan.py: to save the states of random numbers",
    "_metrics": "models/sagan.py: the metrics that a subclass adds",
    "_keras_history": "models/connection.py, models/batches.py: which layer made a tensor",
    "_run_through_graph": "models/transfer.py: to rebuild a functional model with other labels",
    "_symbolic_build": "models/sagan.py: replaced, because it would consume a batch",
    "_maybe_symbolic_build": "models/sagan.py: the same on TensorFlow",
    "_purge_model_variables": "models/sagan.py: replaced, because it would empty JAX's variables",
    "_use_cached_eval_dataset": "models/sagan.py: whether `fit` called `evaluate`",
    "_learning_rate": "training/optimizers.py: the schedule instead of its current value",
    "_iterations": "training/optimizers.py: the number of updates",
    "_get_current_learning_rate": "training/optimizers.py: replaced, to use the model's steps",
    "_value": "training/jax.py: a variable's array, set without a copy between devices",
    "_tracker": "private_keras.py: forgets a layer that another one replaces",
    "_jax_state_synced": "training/jax.py: makes Keras read the variables again",
}
