"""The graph that TensorFlow is tracing. Other backends have none."""

import contextlib

import keras


def current_program():
    """Returns the graph being traced, the default graph in eager mode, or `None` elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.compat.v1.get_default_graph()


def outside_programs():
    """A scope in which values are known, even while TensorFlow traces a graph."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()
