"""Trains a SAGAN on Fashion-MNIST and measures its FID.

Command:   python examples/fashion_mnist.py
Data:      the 10,000 images of Fashion-MNIST's test set, which ship with the package
Result:    runs/fashion_mnist/ with a sample grid per epoch, attention figures, training curves, the
           model, and run.json with all settings and scores; the README shows a recorded run

This is `keras-sagan train` with a different folder and the same options, which `--help` lists.
Ctrl-C saves the run, and the same command resumes it, with the same result as an uninterrupted run.
After a kill, it resumes from the newest checkpoint. `--data-dir` trains on the 60,000 training
images of the full IDX files, and `--dataset NAME` on a dataset of TensorFlow Datasets.
"""

import sys

from keras_sagan import cli


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    return cli.main(["train", *arguments], {"output": "runs/fashion_mnist"})


if __name__ == "__main__":
    sys.exit(main())
