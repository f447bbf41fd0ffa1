"""One call that checks what every Keras layer owes its user."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sagan.layers import SNDense
from keras_sagan.ops import resampling

# JAX compiles whatever it runs, and would compile much the same again.
ON_JAX = keras.backend.backend() == "jax"
HALF_POLICIES = ("mixed_bfloat16",) if ON_JAX else ("mixed_float16", "mixed_bfloat16")
ON_TORCH = keras.backend.backend() == "torch"

needs_cpu_room = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow" and resampling.cpu is None,
    reason="without ops/cpu TensorFlow fails for no images",
)


def check_layer(cls, init_kwargs, inputs, tmp_path, trainable_weights, non_trainable_weights):
    """Checks config and file round trips, symbolic = eager, weight counts, policies, training.

    `inputs` is a tuple of arrays, the positional call arguments.
    """
    layer = cls(**init_kwargs)
    outputs = layer(*inputs)
    assert len(layer.trainable_weights) == trainable_weights
    assert len(layer.non_trainable_weights) == non_trainable_weights
    check_config(cls, layer)
    check_symbolic(layer, inputs, outputs)
    check_stateless(layer, inputs)
    check_file(layer, inputs, tmp_path)
    for policy in HALF_POLICIES:
        check_policy(cls, init_kwargs, inputs, policy)
    if resampling.cpu is not None:
        check_any_batch(layer, inputs, jit_compile=False)
    if ON_TORCH:  # An update between a call and its backward pass is no error.
        outputs = layer(*inputs, training=False)
        layer(*inputs, training=True)
        ops.sum(outputs).backward()
    # PyTorch takes up to half a minute to compile a step: one layer shows that it can.
    check_training(cls, init_kwargs, inputs, jit_compile=not ON_TORCH or cls is SNDense)


def check_config(cls, layer):
    config = layer.get_config()
    again = cls.from_config(config)
    assert again.get_config() == config
    assert keras.saving.get_registered_name(cls) == f"keras_sagan>{cls.__name__}"
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(restored) is cls


def as_inputs(inputs):
    return [keras.Input(x.shape[1:], dtype=x.dtype.name) for x in inputs]


def check_symbolic(layer, inputs, outputs):
    symbolic = layer(*as_inputs(inputs))
    assert symbolic.shape[1:] == tuple(outputs.shape[1:])
    assert symbolic.dtype == keras.backend.standardize_dtype(outputs.dtype)
    assert layer.compute_output_shape(*(x.shape for x in inputs)) == tuple(outputs.shape)


def check_stateless(layer, inputs):
    """Numpy arrays reach the layer as they are; it returns its state, and keeps none of it."""
    before, expected = (
        layer.get_weights(),
        ops.convert_to_numpy(ops.cast(layer(*inputs), "float32")),
    )
    arrays = [
        [ops.convert_to_numpy(variable.value) for variable in variables]
        for variables in (layer.trainable_variables, layer.non_trainable_variables)
    ]
    outputs, state = layer.stateless_call(*arrays, *inputs, training=True)
    assert tuple(outputs.shape) == expected.shape
    assert [tuple(x.shape) for x in state] == [x.shape for x in arrays[1]]
    outputs, _ = layer.stateless_call(*arrays, *inputs, training=False)
    outputs = ops.convert_to_numpy(ops.cast(outputs, "float32"))
    np.testing.assert_allclose(outputs, expected, rtol=0.05, atol=0.05)
    for old, new in zip(before, layer.get_weights()):
        np.testing.assert_array_equal(old, new)


def check_file(layer, inputs, tmp_path):
    symbols = as_inputs(inputs)
    model = keras.Model(symbols, layer(*symbols))
    expected = ops.convert_to_numpy(model(list(inputs)))
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    np.testing.assert_array_equal(ops.convert_to_numpy(again(list(inputs))), expected)
    for old, new in zip(model.weights, again.weights):
        np.testing.assert_array_equal(ops.convert_to_numpy(old), ops.convert_to_numpy(new))


def check_policy(cls, init_kwargs, inputs, policy):
    layer = cls(**init_kwargs, dtype=policy)
    outputs = layer(*inputs, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == policy.removeprefix("mixed_")
    check_stateless(layer, inputs)
    for weight in layer.weights:
        is_float = keras.backend.is_float_dtype(weight.dtype)
        assert weight.dtype == ("float32" if is_float else "int32"), weight.path
    reference = cls(**init_kwargs)
    reference(*inputs)
    reference.set_weights(layer.get_weights())
    expected = ops.convert_to_numpy(reference(*inputs))
    received = ops.convert_to_numpy(ops.cast(layer(*inputs), "float32"))
    np.testing.assert_allclose(received, expected, rtol=0.05, atol=0.05)


def check_any_batch(layer, inputs, jit_compile, free_axes=(0,)):
    """A program for batches of any size runs with images and without, with its gradients."""
    import tensorflow as tf

    expected = layer(*inputs).shape[1:]
    signature = [
        tf.TensorSpec([None if a in free_axes else n for a, n in enumerate(x.shape)], x.dtype)
        for x in inputs
    ]

    @tf.function(input_signature=signature, jit_compile=jit_compile)
    def function(*x):
        with tf.GradientTape() as tape:
            outputs = layer(*x, training=True)
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, tape.gradient(loss, layer.trainable_weights)

    if not jit_compile:  # After images, TensorFlow fails to compile the same without any.
        outputs, gradients = function(*map(tf.constant, inputs))
        assert tuple(outputs.shape) == (len(inputs[0]), *expected)
        assert any(np.any(tf.convert_to_tensor(gradient)) for gradient in gradients)
    outputs, gradients = function(*(tf.constant(x[:0]) for x in inputs))
    assert tuple(outputs.shape) == (0, *expected)
    for gradient, weight in zip(gradients, layer.trainable_weights):
        assert not np.any(tf.convert_to_tensor(gradient)), weight.path
    for weight in layer.weights:
        assert np.isfinite(ops.convert_to_numpy(weight)).all(), weight.path


def check_training(cls, init_kwargs, inputs, jit_compile):
    symbols = as_inputs(inputs)
    model = keras.Model(symbols, cls(**init_kwargs)(*symbols))
    model.compile("sgd", "mse", jit_compile=jit_compile)
    before = [ops.convert_to_numpy(w) for w in model.trainable_weights]
    targets = np.ones(model(list(inputs)).shape, "float32")
    history = model.fit(list(inputs), targets, batch_size=len(targets), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    after = [ops.convert_to_numpy(w) for w in model.trainable_weights]
    assert any(not np.array_equal(a, b) for a, b in zip(before, after))
