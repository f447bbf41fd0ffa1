"""Which of two functions a program gets."""

import keras
import numpy as np
import pytest
from keras import ops
from programs import has_compiled_parts

from keras_sagan.ops.compiled import compiled, compiled_parts, is_cpu_only, uses_compiled

IS_TENSORFLOW = keras.backend.backend() == "tensorflow"


def inside(x, summand=0.0):
    return x + summand + 1.0


def elsewhere(x, summand=0.0):
    return x + summand + 2.0


FUNCTION = compiled(inside, elsewhere)


def test_on_cpus_with_tensorflow_it_is_compiled():
    received = ops.convert_to_numpy(FUNCTION(ops.zeros(3), summand=10.0))
    np.testing.assert_array_equal(received, np.full(3, 11.0 if is_cpu_only() else 12.0))
    assert is_cpu_only() is IS_TENSORFLOW  # Where the tests run.


@pytest.mark.skipif(not IS_TENSORFLOW, reason="about tf.function")
@pytest.mark.parametrize("jit_compile, expected", [(False, 1.0), (True, 2.0)])
def test_a_program_that_is_compiled_as_a_whole_has_none_of_its_own(jit_compile, expected):
    import tensorflow as tf

    def nested(x):
        return tf.function(FUNCTION, autograph=False)(x)

    for function in (FUNCTION, nested):
        program = tf.function(function, jit_compile=jit_compile, autograph=False)
        assert program(tf.zeros(3)).numpy().tolist() == [expected] * 3
        concrete = program.get_concrete_function(tf.TensorSpec((None,)))
        assert has_compiled_parts(concrete) is not jit_compile


@pytest.mark.skipif(not IS_TENSORFLOW, reason="about devices of TensorFlow")
def test_with_a_gpu_it_is_not(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0", "gpu:0"])
    assert not is_cpu_only()
    assert FUNCTION(ops.zeros(1)).numpy() == 2.0


@pytest.mark.skipif(not IS_TENSORFLOW, reason="about tf.function")
def test_small_examples_are_not_worth_it():
    import tensorflow as tf

    function = compiled(inside, elsewhere, least=6)
    for shape, expected in (((9, 2, 3), 1.0), ((9, 5), 2.0)):
        assert float(ops.max(function(ops.zeros(shape)))) == expected
    program = tf.function(function, input_signature=[tf.TensorSpec((9, None, 3))])
    assert float(ops.max(program(ops.zeros((9, 2, 3))))) == 2.0


def test_without_another_function_it_is_the_same_everywhere():
    assert ops.convert_to_numpy(compiled(inside)(ops.zeros(1))) == 1.0


def test_who_is_asked_whether_it_may_be_used():
    assert uses_compiled(True) and not uses_compiled(False)
    with compiled_parts(True):
        assert uses_compiled(False)
        with compiled_parts(False):
            assert not uses_compiled(True)
            assert ops.convert_to_numpy(FUNCTION(ops.zeros(1))) == 2.0
        assert uses_compiled(False)
    with pytest.raises(RuntimeError), compiled_parts(True):
        raise RuntimeError
    assert not uses_compiled(False)
