"""What the replicas of a strategy get: the batch that one device would get, split."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sharded_target
import tensorflow as tf
from replicas import two_replicas
from sharded_target import BATCH, STEPS

ROOT = Path(__file__).parents[2]


def start(folder, tf_config):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environment["TF_CONFIG"] = json.dumps(tf_config)
    return subprocess.Popen(
        [sys.executable, sharded_target.__file__, folder],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def seen_by(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.split("SEEN")[1])


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


@pytest.fixture(scope="module")
def alone(folder):
    return sharded_target.seen_by_replicas(tf.distribute.get_strategy(), folder)


def joined(parts):
    return [sum(step, []) for step in parts]


def check(alone, replicas):
    """`replicas[name][step]` lists the parts of two replicas, in their order."""
    for name, steps in replicas.items():
        assert [[len(part) for part in step] for step in steps] == STEPS * [[BATCH // 2] * 2]
        assert joined(steps) == joined(alone[name])


@pytest.mark.slow
def test_mirrored_replicas_split_the_batch_of_one_device(folder, alone):
    seen = sharded_target.seen_by_replicas(two_replicas(), folder)
    if folder:
        assert seen.pop("skipped") > 0 and alone["skipped"] > 0
    check(alone, seen)


@pytest.mark.slow
def test_workers_split_the_batch_of_one_device(folder, alone):
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    workers = [f"127.0.0.1:{port}" for port in ports]
    both = [
        start(
            folder,
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}},
        )
        for index in range(2)
    ]
    first, second = map(seen_by, both)
    if folder:  # Each worker reads all images and counts what it skipped.
        assert first.pop("skipped") > 0 and second.pop("skipped") > 0
    replicas = {
        name: [one + other for one, other in zip(first[name], second[name])] for name in first
    }
    check(alone, replicas)
