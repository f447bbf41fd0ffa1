"""Pipelines for tests that don't go through this package's own."""


def untuned(dataset):
    """A `tf.data.Dataset` at whose end TensorFlow doesn't wait for who tunes it (docs/faq.md)."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
