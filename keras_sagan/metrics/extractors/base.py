"""The base class of the extractors."""

import functools
from collections.abc import Callable

import keras

from keras_sagan.ops.programs import outside_programs


def loads_network(load):
    """Decorates a method that loads a network: within a traced function, weights would be lost."""

    @functools.wraps(load)
    def wrapped(*args):
        with outside_programs():
            return load(*args)

    return wrapped


class Extractor:
    """Base class of extractors; subclasses implement `named_outputs` and store `arguments`."""

    arguments: tuple[str, ...] = ()
    named_outputs: Callable[..., dict]

    def __call__(self, images: keras.KerasTensor) -> keras.KerasTensor:
        return self.named_outputs(images)["features"]

    def get_config(self) -> dict:
        """Returns the arguments as a dictionary, for Keras to save."""
        return {name: getattr(self, name) for name in self.arguments}

    @classmethod
    def from_config(cls, config: dict) -> "Extractor":
        """Creates an extractor from the result of `get_config`."""
        return cls(**config)
