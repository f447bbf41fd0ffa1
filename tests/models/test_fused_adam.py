"""Adam in one kernel against Keras's, which is composed of ten."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas

from keras_sagan.models import FusedAdam

SETTINGS = [
    {},
    {"beta_1": 0.0, "beta_2": 0.99, "epsilon": 1e-3},
    {"weight_decay": 0.1, "clipnorm": 0.5},
    {"amsgrad": True},
    {"gradient_accumulation_steps": 2},
    {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)},
]


def gradients(step):
    rng = np.random.default_rng(step)
    return [tf.constant(rng.normal(size=shape), "float32") for shape in ((3, 4), (5,))]


def train(optimizer, steps, variables=None, in_graph=False):
    """The variables and the slots after so many steps."""
    if variables is None:
        variables = [keras.Variable(x) for x in gradients(100)]
    optimizer.build(variables)
    apply = tf.function(optimizer.apply) if in_graph else optimizer.apply
    for step in range(steps):
        apply(gradients(step))
    return [x.numpy() for x in (*variables, *optimizer.variables)]


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("in_graph", [False, True])
def test_equals_keras(settings, in_graph):
    settings = {"learning_rate": 0.01, **settings}
    found = [
        train(cls(**settings), 4, in_graph=in_graph) for cls in (FusedAdam, keras.optimizers.Adam)
    ]
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert not np.allclose(found[0][0], gradients(100)[0])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_hand_computable_first_step(jit_compile):
    """Its first step is the learning rate, in the direction of the sign."""
    variable = keras.Variable([1.0, 1.0, 1.0])
    optimizer = FusedAdam(0.1)
    optimizer.build([variable])
    apply = tf.function(lambda x: optimizer.apply([x], [variable]), jit_compile=jit_compile)
    apply(tf.constant([2.0, -3.0, 0.0]))
    np.testing.assert_allclose(variable.numpy(), [0.9, 1.1, 1.0], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_in_half_precision(dtype):
    """On GPUs TensorFlow has no kernel of Adam for bfloat16."""
    operations = []
    for cls in (FusedAdam, keras.optimizers.Adam):
        variable = keras.Variable([1.0, -2.0, 3.0], dtype=dtype)
        optimizer = cls(0.125, beta_1=0.5, beta_2=0.75, epsilon=1e-3)  # Not 1 in bfloat16.
        optimizer.build([variable])
        gradient = tf.constant([0.5, -0.25, 0.0], dtype)
        graph = tf.function(optimizer.apply).get_concrete_function([gradient]).graph
        operations.append({x.type for x in graph.get_operations()})
        for _ in range(3):
            optimizer.apply([gradient], [variable])
        found = np.float32(keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")))
        np.testing.assert_allclose(found, [0.625, -1.625, 3.0], atol=0.03)
    assert ("ResourceApplyAdam" in operations[0]) == (dtype == "float16")


def test_takes_over_from_keras():
    """The slots are Keras's, in Keras's order."""
    variables = [keras.Variable(x) for x in gradients(100)]
    keras_adam, ours = keras.optimizers.Adam(0.01), FusedAdam(0.01)
    train(keras_adam, 2, variables)
    ours.build(variables)
    for mine, theirs in zip(ours.variables, keras_adam.variables):
        assert mine.name == theirs.name
        mine.assign(theirs)
    start = [x.numpy() for x in variables]
    expected = train(keras_adam, 2, variables)
    for variable, value in zip(variables, start):
        variable.assign(value)
    for received, value in zip(train(ours, 2, variables), expected):
        np.testing.assert_allclose(received, value, rtol=1e-5, atol=1e-7)


def test_every_replica_has_the_same_and_the_sum_of_gradients():
    strategy = two_replicas()
    with strategy.scope():
        variables = [keras.Variable(x) for x in gradients(100)]
        optimizer = FusedAdam(0.01)
        optimizer.build(variables)

    @tf.function
    def step():
        def on_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            share = tf.where(tf.equal(replica, 0), 0.25, 0.75)
            optimizer.apply([share * x for x in gradients(0)], variables)

        strategy.run(on_replica)

    step()
    copies = [strategy.experimental_local_results(x.value) for x in variables]
    expected = train(FusedAdam(0.01), 1)
    for pair, value in zip(copies, expected):
        assert np.array_equal(*[x.numpy() for x in pair])
        np.testing.assert_allclose(pair[0].numpy(), value, rtol=1e-5, atol=1e-7)


def test_comes_back_from_its_configuration():
    optimizer = FusedAdam(0.25, beta_1=0.5)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is FusedAdam and again.get_config() == optimizer.get_config()
