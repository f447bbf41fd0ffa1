"""The private parts of Keras that the package uses: Keras may change them without notice.

`layers_of` is called as it is. The others are attributes and methods of objects, used where they
are named here; `tests/test_private_keras.py` fails first when Keras changes one.
"""

import keras

__all__ = []  # Private to the package.

layers_of = keras.Layer._flatten_layers  # A network and all layers in it, at any depth.

USED = {
    "_seed_generators": "models/sagan.py: to save the states of random numbers",
    "_metrics": "models/sagan.py: the metrics that a subclass adds",
    "_keras_history": "models/connection.py, models/batches.py: which layer made a tensor",
    "_run_through_graph": "models/transfer.py: to build a graph of layers again with other labels",
    "_symbolic_build": "models/sagan.py: replaced, as it would read a batch",
    "_maybe_symbolic_build": "models/sagan.py: the same on TensorFlow",
    "_purge_model_variables": "models/sagan.py: replaced, as it would empty variables on JAX",
    "_use_cached_eval_dataset": "models/sagan.py: tells the evaluation in `fit` from another",
    "_learning_rate": "training/optimizers.py: a schedule, not its value",
    "_iterations": "training/optimizers.py: the counter of updates",
    "_get_current_learning_rate": "training/optimizers.py: replaced, to count steps of the model",
    "_value": "training/jax.py: a variable's array, set without a copy between devices",
    "_jax_state_synced": "training/jax.py: has Keras read the variables again",
}
