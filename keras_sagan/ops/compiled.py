"""Functions that XLA compiles in a program that isn't compiled as a whole."""

import contextlib
import contextvars
import functools
import math

import keras

MANY_IMAGES = 5_000  # From about so many on, inference gains more than it takes to compile.
_ALLOWED = contextvars.ContextVar("compiled_parts", default=None)


def compiled(function, elsewhere=None, least=0):
    """Has XLA compile a function of tensors where that pays: in TensorFlow's programs on CPUs.

    TensorFlow by itself writes the result of every operation to memory. XLA computes sums and
    products of the same size in one loop, but anew for each that needs them: what is to be kept
    should be the result of a function of its own. Each shape of the arguments is compiled when it
    is first met, in about a tenth of a second, and kept while the process lives.

    Args:
        function: Function of tensors, and of hashable keyword arguments.
        elsewhere: Function of the same arguments to be called on other backends, with GPUs or
            TPUs, in a program that XLA compiles as a whole, for small tensors, and in
            `compiled_parts(False)`. Defaults to `function`.
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
        if not uses_compiled(True) or is_small or not is_cpu_only() or is_in_compiled_program():
            return elsewhere(*tensors, **settings)
        return with_settings(**settings)(*tensors)

    return call


@contextlib.contextmanager
def compiled_parts(allowed):
    """Says whether the programs that are made inside use compiled functions.

    A program with them can't be converted to other formats, and takes long to start. So layers
    use them by themselves in training alone.

    Args:
        allowed: Boolean, for training and inference.
    """
    token = _ALLOWED.set(bool(allowed))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def uses_compiled(default):
    """Whether compiled functions may be used here: what `compiled_parts` says, if it does.

    Args:
        default: Boolean, the answer outside of it: for a layer whether it is called in training.
    """
    allowed = _ALLOWED.get()
    return bool(default) if allowed is None else allowed


def is_cpu_only():
    """Whether TensorFlow is the backend, on a machine without GPUs and TPUs."""
    if keras.backend.backend() != "tensorflow":
        return False
    return all("cpu" in device.lower() for device in keras.distribution.list_devices())


def current_program():
    """The graph of TensorFlow's that is being traced, or `None` on other backends."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.compat.v1.get_default_graph()


def outside_programs():
    """A scope in which values are known, while TensorFlow traces a program too."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()


def is_in_compiled_program():
    """Whether this is traced for a program of TensorFlow's that XLA compiles as a whole."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util  # TensorFlow has no public name for it.

    graph = current_program()
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(graph)
