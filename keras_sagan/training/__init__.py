"""The training step, and what each backend adds to it."""

from keras_sagan.training.tensorflow import input_gradient

__all__ = ["input_gradient"]
