"""Does `DifferentiableAugmentation` give the values and gradients of the authors' code?

Command:   python benchmarks/augmentation.py --peer DiffAugment_tf.py --json
Measures   the largest differences of the images and of their gradients, for the same random
           numbers: each policy, images of several sizes with 1, 3 and 4 channels
Result:    benchmarks/results/augmentation.json and a table; the exit code is 1 if a difference is
           above 1e-6

`DiffAugment_tf.py` is the file of https://github.com/mit-han-lab/data-efficient-gans.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path
from unittest import mock

import common
import numpy as np
import tensorflow as tf

from keras_sagan.layers import DifferentiableAugmentation

COLUMNS = {"color": 3, "translation": 2, "cutout": 2}  # Random numbers for each image.
POLICIES = (*COLUMNS, "color,translation,cutout")
SHAPES = ((32, 32, 3), (64, 64, 1), (28, 28, 1), (9, 13, 4), (17, 20, 3))
LIMIT = 1e-6


def load(path):
    """Imports the authors' file as a module."""
    spec = importlib.util.spec_from_file_location("authors", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def given(columns):
    """A `tf.random.uniform` that returns given numbers in [0, 1), scaled to the range of a call."""
    remaining = iter(columns)

    def uniform(shape, minval=0, maxval=1, dtype=tf.float32):
        numbers = tf.reshape(next(remaining), shape)
        if dtype.is_integer:
            size = tf.cast(maxval - minval, tf.float32)
            return minval + tf.cast(tf.floor(numbers * size), dtype)
        return numbers

    return uniform


def value_and_gradient(function, images, weights):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = function(images)
        total = tf.reduce_sum(outputs * weights)
    return outputs, tape.gradient(total, images)


def compare(authors, policy, shape, count):
    rng = np.random.default_rng(0)
    images, weights = (
        tf.constant(rng.uniform(-1, 1, (count, *shape)).astype("float32")) for _ in range(2)
    )
    draws = [rng.random((count, COLUMNS[name]), "float32") for name in policy.split(",")]
    remaining = iter(draws)
    own = DifferentiableAugmentation(policy)
    found = value_and_gradient(lambda x: own(x, lambda _: next(remaining)), images, weights)
    columns = [column for draw in draws for column in draw.T]
    with mock.patch("tensorflow.random.uniform", given(columns)):
        expected = value_and_gradient(lambda x: authors.DiffAugment(x, policy), images, weights)
    return [float(tf.reduce_max(tf.abs(x - y))) for x, y in zip(found, expected)]


def main(arguments=None):
    parser = common.argument_parser(__doc__, "augmentation")
    parser.add_argument("--peer", type=Path, required=True, help="the file DiffAugment_tf.py")
    parser.add_argument("--count", type=int, default=256, help="images of each shape")
    settings = parser.parse_args(arguments)
    authors, rows = load(settings.peer), []
    for policy in POLICIES:
        for shape in SHAPES:
            value, gradient = compare(authors, policy, shape, settings.count)
            shown = "x".join(map(str, shape))
            rows.append({"policy": policy, "shape": shown, "value": value, "gradient": gradient})
    common.print_table(rows)
    common.record(
        __file__,
        settings.json,
        ["--peer", settings.peer.name, "--json"],
        packages=("tensorflow", "keras", "numpy"),
        sha256=hashlib.sha256(settings.peer.read_bytes()).hexdigest(),
        count=settings.count,
        rows=rows,
    )
    return int(max(max(row["value"], row["gradient"]) for row in rows) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
