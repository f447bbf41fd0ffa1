"""The base class of the extractors."""

from collections.abc import Callable

import keras


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
