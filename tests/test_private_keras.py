"""Fails first, and by name, when Keras changes a private part that the package uses."""

import ast
import importlib
import inspect
from pathlib import Path

import keras
import pytest

from keras_sagan import private_keras

PACKAGE = Path(private_keras.__file__).parent
TREES = {p: ast.parse(p.read_text(encoding="utf-8")) for p in sorted(PACKAGE.rglob("*.py"))}
OTHERS = {
    "_exit",
    "_replace",
    "_inputs",
    "_made",
}  # Python's, tf.data's, and our own on a data set.


def model():
    inputs = keras.Input((2,))
    made = keras.Sequential([inputs, keras.layers.Dense(1), keras.layers.Dropout(0.5)])
    made.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.5, 4)), "mse")
    made.optimizer.build(made.trainable_variables)
    return made


def trainer(backend):
    # Importing a backend's trainer imports the backend, which may not be installed.
    source = Path(importlib.import_module("keras.src").__file__).parent
    return (source / "backend" / backend / "trainer.py").read_text(encoding="utf-8")


def maker_is_known():
    layer = keras.layers.Dense(1)
    return layer(keras.Input((2,)))._keras_history.operation is layer


def graph():
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(1)(inputs))


# Where each name is used, what for, and what must hold.
CHECKS = {
    # models/sagan.py: to save the states of random numbers.
    "_seed_generators": lambda: len(model().layers[-1]._seed_generators) == 1,
    # models/sagan.py: the metrics that a subclass adds.
    "_metrics": lambda: isinstance(model()._metrics, list),
    # models/connection.py, models/transfer.py: which layer made a tensor.
    "_keras_history": maker_is_known,
    # models/transfer.py: to rebuild a functional model with other labels.
    "_run_through_graph": lambda: (
        {"inputs", "operation_fn", "call_fn"}
        <= inspect.signature(graph()._run_through_graph).parameters.keys()
    ),
    # models/sagan.py: replaced, because it would consume a batch.
    "_symbolic_build": lambda: (
        {"iterator", "data_batch"}
        <= inspect.signature(keras.Model._symbolic_build).parameters.keys()
    ),
    # models/sagan.py: the same on TensorFlow.
    "_maybe_symbolic_build": lambda: "_maybe_symbolic_build(iterator=" in trainer("tensorflow"),
    # models/sagan.py: replaced, because it would empty JAX's variables.
    "_purge_model_variables": lambda: "self._purge_model_variables(" in trainer("jax"),
    # models/sagan.py: whether `fit` called `evaluate`.
    "_use_cached_eval_dataset": lambda: all(
        "_use_cached_eval_dataset=True" in trainer(x) for x in ("tensorflow", "jax", "torch")
    ),
    # training/optimizers.py: the schedule instead of its current value.
    "_learning_rate": lambda: callable(model().optimizer._learning_rate),
    # training/optimizers.py: the number of updates.
    "_iterations": lambda: int(model().optimizer._iterations) == 0,
    # training/optimizers.py: replaced, to use the model's steps.
    "_get_current_learning_rate": lambda: (
        float(model().optimizer._get_current_learning_rate()) == 0.5
    ),
    # private_keras.py: forgets a layer that another one replaces.
    "_tracker": lambda: callable(model()._tracker.untrack),
    # training/jax.py: a variable's array, set without a copy between devices.
    "_value": lambda: model().weights[0]._value is not None,
    # training/jax.py: makes Keras read the variables again.
    "_jax_state_synced": lambda: "if self._jax_state_synced" in trainer("jax"),
}


def test_layers_of_a_network():
    network = keras.Sequential([keras.Input((2,)), model()])
    names = [type(layer).__name__ for layer in private_keras.layers_of(network)]
    assert names.count("Sequential") == 2 and {"Dense", "Dropout"} <= set(names)


@pytest.mark.parametrize("name", CHECKS)
def test_keras_has_it(name):
    assert CHECKS[name](), f"Keras {keras.__version__}: {name}; see above where it is used"


def test_no_other_is_used():
    own, used = set(), {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            if isinstance(node, ast.Attribute):
                of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if isinstance(node.ctx, ast.Store) and of_self:
                    own.add(node.attr)
                elif node.attr.startswith("_") and not node.attr.endswith("_"):
                    used[node.attr] = path.relative_to(PACKAGE).as_posix()
    foreign = {name: path for name, path in used.items() if name not in own | OTHERS}
    assert foreign.keys() <= CHECKS.keys() | {"_flatten_layers"}, foreign
