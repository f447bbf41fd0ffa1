"""What the replicas of a strategy get: the batch that one device would get, split."""

import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas

from keras_sagan.data import load_tfds, make_dataset

STEPS, BATCH = 5, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 images in 2 files, the label of each its grey; one isn't an image. "" without TFDS."""
    tfds = pytest.importorskip("tensorflow_datasets")
    try:
        import importlib_resources  # noqa: F401  TFDS 4.9.10 can't write a set without
    except ImportError:
        return ""

    import io

    class GreyRamp(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 1)),
                "label": tfds.features.ClassLabel(num_classes=40),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(40):
                image = np.full((4, 4, 1), index, "uint8") if index != 7 else io.BytesIO(b"none")
                yield index, {"image": image, "label": index}

    folder = str(tmp_path_factory.mktemp("tfds"))
    config = tfds.download.DownloadConfig(num_shards=2)
    GreyRamp(data_dir=folder).download_and_prepare(download_config=config)
    return folder


def pipelines(strategy, folder):
    images = np.tile(np.arange(40, dtype="uint8")[:, None, None, None], (1, 4, 4, 1))
    found = {"arrays": make_dataset(images, np.arange(40), batch_size=BATCH, seed=3)}
    if folder:
        arguments = {"image_size": 4, "batch_size": BATCH, "seed": 3, "on_error": "skip"}
        with strategy.scope():  # Inside a scope or not must not matter.
            found["tfds"], info = load_tfds("grey_ramp", data_dir=folder, **arguments)
    return found, info if folder else None


def seen_by_replicas(strategy, folder):
    """Returns a dictionary from a pipeline to its steps, each a list of the labels of replicas."""
    datasets, info = pipelines(strategy, folder)
    seen = {}
    for name, dataset in datasets.items():
        batches = iter(strategy.experimental_distribute_dataset(dataset))
        seen[name] = []
        for _ in range(STEPS):
            images, labels = map(strategy.experimental_local_results, next(batches))
            parts = [x.numpy().tolist() for x in labels]
            assert [x.numpy()[:, 0, 0, 0].tolist() for x in images] == parts
            seen[name].append(parts)
    assert info is None or info.skipped.total() > 0
    return seen


@pytest.mark.slow
def test_mirrored_replicas_split_the_batch_of_one_device(folder):
    alone, both = (
        seen_by_replicas(x, folder) for x in (tf.distribute.get_strategy(), two_replicas())
    )
    for name, steps in both.items():
        assert [[len(part) for part in step] for step in steps] == STEPS * [[BATCH // 2] * 2]
        assert [[sum(step, [])] for step in steps] == alone[name]


def test_workers_read_all_images_and_split_the_batches(folder):
    """`test_multi_worker.py` trains so; by default TensorFlow would split the files."""
    for dataset in pipelines(tf.distribute.get_strategy(), folder)[0].values():
        policy = dataset.options().experimental_distribute.auto_shard_policy
        assert policy == tf.data.experimental.AutoShardPolicy.DATA
