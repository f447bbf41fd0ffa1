"""Runs the command line as `python -m keras_sagan`."""

import sys

from keras_sagan.cli import main

if __name__ == "__main__":
    sys.exit(main())
