"""`python -m keras_sagan` is the command line too."""

import sys

from keras_sagan.cli import main

if __name__ == "__main__":
    sys.exit(main())
