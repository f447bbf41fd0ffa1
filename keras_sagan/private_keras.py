"""The private API of Keras that the package uses. Keras may change it without notice.

`tests/test_private_keras.py` lists every private name of Keras that the package uses, and fails if
Keras changes one of them.
"""

import keras

__all__ = []

layers_of = keras.Layer._flatten_layers  # Returns a network and all layers in it, at any depth.


def refresh_constants(network):
    """Makes each `Normalization` in a network use its variables after something assigned them.

    In Keras, only `adapt` and loading do this. Other layers' `finalize_state` discards their state.
    Returns whether there is a `Normalization`; compiled functions contain its values.
    """
    found = [x for x in layers_of(network) if isinstance(x, keras.layers.Normalization)]
    for layer in found:
        layer.finalize_state()
    return bool(found)


def replace_layer(owner, name, layer):
    """Replaces a layer in an attribute, and makes Keras stop tracking the old layer."""
    old = getattr(owner, name, None)
    if old is not None:
        owner._tracker.untrack(old)
    setattr(owner, name, layer)
