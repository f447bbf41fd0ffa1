"""The command line: `keras-sagan train | sample | attention | evaluate | export`."""

from keras_sagan.cli.main import main

__all__ = ["main"]
