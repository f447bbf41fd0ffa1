"""Functions that XLA compiles in a program that isn't compiled as a whole."""

import contextlib
import contextvars
import functools
import math

import keras

MANY_IMAGES = 5_000  # From about so many on, inference gains more than it takes to compile.
_IN_INFERENCE = contextvars.ContextVar("compiled_inference", default=False)


def compiled(function, elsewhere=None, least=0):
    """Has XLA compile a function of tensors where that pays: in TensorFlow's programs on CPUs.

    TensorFlow by itself writes the result of every operation to memory. XLA computes sums and
    products of the same size in one loop, but anew for each that needs them: what is to be kept
    should be the result of a function of its own. Each shape of the arguments is compiled when it
    is first met, in about a tenth of a second.

    Args:
        function: Function of tensors, and of hashable keyword arguments.
        elsewhere: Function of the same arguments to be called on other backends, with GPUs or
            TPUs, in a program that XLA compiles as a whole, and for small tensors. Defaults to
            `function`.
        least: Integer, the numbers of an example from which it pays: those along all axes but
            the first of the first tensor. Defaults to `0`.

    Returns:
        Function of the same arguments.
    """
    elsewhere = elsewhere or function

    @functools.cache
    def with_settings(**settings):
        import tensorflow as tf

        function_of_tensors = functools.partial(function, **settings)
        return tf.function(function_of_tensors, jit_compile=True, autograph=False)

    @functools.wraps(elsewhere)
    def call(*tensors, **settings):
        sizes = tensors[0].shape[1:]
        is_small = least > 0 and (None in sizes or math.prod(sizes) < least)
        if is_small or not is_cpu_only() or _is_in_compiled_program():
            return elsewhere(*tensors, **settings)
        return with_settings(**settings)(*tensors)

    return call


@contextlib.contextmanager
def compiled_inference(allowed=True):
    """Lets layers use compiled functions outside of training too.

    A program with them can't be converted to other formats, and takes long to start. So layers
    use them for inference only where somebody who knows what becomes of the program says so.

    Args:
        allowed: Boolean. Defaults to `True`.
    """
    token = _IN_INFERENCE.set(allowed)
    try:
        yield
    finally:
        _IN_INFERENCE.reset(token)


def uses_compiled(training):
    """Whether a layer may use compiled functions: in training, and in `compiled_inference`.

    Args:
        training: Boolean, as of the layer's call.
    """
    return bool(training) or _IN_INFERENCE.get()


def is_cpu_only():
    """Whether TensorFlow is the backend, on a machine without GPUs and TPUs."""
    if keras.backend.backend() != "tensorflow":
        return False
    return all("cpu" in device.lower() for device in keras.distribution.list_devices())


def _is_in_compiled_program():
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util  # TensorFlow has no public name for it.

    graph = tf.compat.v1.get_default_graph()
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(graph)
