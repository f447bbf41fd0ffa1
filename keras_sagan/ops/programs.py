"""Functions for code that runs while TensorFlow or JAX traces a program."""

import contextlib

import keras


def current_program():
    """Returns TensorFlow's current (or default) graph, or `None` on other backends."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.compat.v1.get_default_graph()


def outside_programs():
    """Returns a context in which operations run eagerly, even while a function is being traced."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.init_scope()
    if keras.backend.backend() == "jax":
        import jax

        return jax.ensure_compile_time_eval()
    return contextlib.nullcontext()
