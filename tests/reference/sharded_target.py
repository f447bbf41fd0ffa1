"""What the replicas of a strategy get of two pipelines; as a script, those of a worker."""

import json
import sys

import numpy as np

from keras_sagan.data import load_tfds, make_dataset
from keras_sagan.distribution import make_strategy

STEPS, BATCH = 5, 8


def seen_by_replicas(strategy, folder):
    """Returns a dictionary from a pipeline to its steps, each a list of the labels of replicas.

    Args:
        strategy: A `tf.distribute.Strategy`.
        folder: String, where the data set `grey_ramp` of TFDS is, or "".
    """
    images = np.tile(np.arange(40, dtype="uint8")[:, None, None, None], (1, 4, 4, 1))
    datasets = {"arrays": make_dataset(images, np.arange(40), batch_size=BATCH, seed=3)}
    if folder:
        with strategy.scope():  # Inside a scope or not must not matter.
            datasets["tfds"], info = load_tfds(
                "grey_ramp",
                image_size=4,
                batch_size=BATCH,
                seed=3,
                data_dir=folder,
                on_error="skip",
            )
    seen = {}
    for name, dataset in datasets.items():
        batches = iter(strategy.experimental_distribute_dataset(dataset))
        seen[name] = []
        for _ in range(STEPS):
            images, labels = next(batches)
            parts = [x.numpy().tolist() for x in strategy.experimental_local_results(labels)]
            pixels = strategy.experimental_local_results(images)
            values = [x.numpy()[:, 0, 0, 0].tolist() for x in pixels]
            assert values == parts, (values, parts)
            seen[name].append(parts)
    if folder:
        seen["skipped"] = info.skipped.total()
    return seen


if __name__ == "__main__":
    strategy = make_strategy("multi_worker")
    print("SEEN" + json.dumps(seen_by_replicas(strategy, sys.argv[1])), flush=True)
