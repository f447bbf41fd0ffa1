"""Trains the classifier whose features are used to evaluate gray images of 28 or 32 pixels.

What it does: trains `keras_sagan.metrics.build_grey_classifier` on the 60,000 training images of
    Fashion-MNIST, evaluates it on the 10,000 test images, and writes the weights with a JSON
    record beside them. The test images aren't used for training.
Command: python examples/train_grey_classifier.py --data_dir DIR
    DIR holds the four original IDX files (Debian package dataset-fashion-mnist, or
    https://github.com/zalandoresearch/fashion-mnist).
Time: about 4 minutes on 2 CPU cores. Hardware: any.
Expected result: a test accuracy of 92.4 %. The shipped weights are from such a run; on the same
    machine, two runs wrote identical files.
"""

import argparse
import hashlib
import json
import pathlib
import platform
import shlex
import sys
import time

import keras
import numpy as np

from keras_sagan.data import load_fashion_mnist
from keras_sagan.metrics import build_grey_classifier


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="folder of the four IDX files")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", default="runs/grey_classifier")
    return parser.parse_args()


def to_model_space(images):
    """Converts uint8 images of 28 pixels to float32 in [-1, 1], padded with black to 32 pixels."""
    return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))).astype("float32") / 127.5 - 1.0


def main():
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    images, labels = load_fashion_mnist(args.data_dir, split="train")
    images = to_model_space(images)
    model = build_grey_classifier(32)
    steps = args.epochs * -(-len(images) // args.batch_size)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(args.learning_rate, steps)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    generator = np.random.default_rng(args.seed)
    start = time.time()
    for epoch in range(args.epochs):
        flipped = generator.random(len(images)) < 0.5
        batch = np.where(flipped[:, None, None, None], images[:, :, ::-1], images)
        model.fit(
            batch,
            labels,
            batch_size=args.batch_size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=2,
        )
    seconds = time.time() - start

    test_images, test_labels = load_fashion_mnist(args.data_dir, split="test")
    _, accuracy = model.evaluate(
        to_model_space(test_images), test_labels, batch_size=500, verbose=0
    )
    output_dir = pathlib.Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    weights = output_dir / "grey_classifier.weights.h5"
    # Save a copy that was never compiled, so that the file holds no optimizer.
    shipped = build_grey_classifier(32)
    shipped.set_weights(model.get_weights())
    shipped.save_weights(weights)
    record = {
        "test_accuracy": round(float(accuracy), 4),
        "test_images": len(test_images),
        "train_images": len(images),
        "parameters": model.count_params(),
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "seed": args.seed,
        "training_seconds": round(seconds, 1),
        "command": "python examples/train_grey_classifier.py --data_dir DIR"
        + "".join(f" {shlex.quote(word)}" for word in without_data_dir(sys.argv[1:])),
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
        },
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    if record["versions"]["backend"] == "tensorflow":
        import tensorflow as tf

        record["versions"]["tensorflow"] = tf.__version__
    weights.with_name("grey_classifier.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def without_data_dir(words):
    """Returns the command line without the folders, which differ between machines."""
    kept, skip = [], False
    for word in words:
        if skip or word in ("--data_dir", "--output_dir"):
            skip = not skip
        elif not word.startswith(("--data_dir=", "--output_dir=")):
            kept.append(word)
    return kept


if __name__ == "__main__":
    main()
