"""Whether TensorFlow traces a program just now. On other backends there is none to ask about."""

import contextlib

import keras


def current_program():
    """The graph that TensorFlow traces, its default graph in eager mode, or `None` elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.compat.v1.get_default_graph()


def outside_programs():
    """A scope in which values are known, also while TensorFlow traces a program."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()
