"""The base class of the extractors."""

from collections.abc import Callable
from typing import Any

import keras

from keras_sagan.ops.programs import outside_programs


class Extractor:
    """Base class of the feature extractors.

    Subclasses implement `named_outputs` and `_build`, and set the attributes named in `arguments`.
    """

    arguments: tuple[str, ...] = ()
    named_outputs: Callable[..., dict]
    _build: Callable[[], Any]
    _network: Any = None

    def __call__(self, images: keras.KerasTensor) -> keras.KerasTensor:
        return self.named_outputs(images)["features"]

    def _load(self):
        """Returns the network, which is built on the first call."""
        if self._network is None:
            with outside_programs():  # Weights created during tracing would be lost.
                network = self._build()
            network.trainable = False  # Without gradients, PyTorch stores no activations.
            self._network = network
        return self._network

    def get_config(self) -> dict:
        """Returns the arguments as a dictionary, for Keras to save."""
        return {name: getattr(self, name) for name in self.arguments}

    @classmethod
    def from_config(cls, config: dict) -> "Extractor":
        """Creates an extractor from the result of `get_config`."""
        return cls(**config)
