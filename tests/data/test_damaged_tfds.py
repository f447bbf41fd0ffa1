"""Damaged records and images of a stored data set: refused by name, or skipped and counted."""

import logging
import shutil
import struct
from pathlib import Path

import keras
import numpy as np
import pytest
import short_runs

from keras_sagan import options
from keras_sagan.data import load_tfds
from keras_sagan.sources import open_source

tf = pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("importlib_resources")  # TFDS 4.9.10 can't write a set without

COUNT, FILES = 24, 3


def grey(index):
    return np.full((6, 8, 1), 10 * index, "uint8")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """24 JPEG images in 3 files of 8; each one's grey is 10 times its label."""

    class SmallGreyJpegs(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 1), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=COUNT),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(COUNT):
                yield index, {"image": grey(index), "label": index}

    folder = tmp_path_factory.mktemp("tfds")
    config = tfds.download.DownloadConfig(num_shards=FILES)
    SmallGreyJpegs(data_dir=str(folder)).download_and_prepare(download_config=config)
    return folder


@pytest.fixture
def stored(written, tmp_path):
    """A copy to damage: the folder, and its files in order."""
    shutil.copytree(written, tmp_path / "tfds")
    return tmp_path / "tfds", sorted((tmp_path / "tfds").rglob("*.tfrecord*"))


def load(folder, **kwargs):
    kwargs = {"image_size": 4, "batch_size": 6, "seed": 5, "shuffle_buffer": 9, **kwargs}
    return load_tfds("small_grey_jpegs", data_dir=str(folder), **kwargs)


def batches(dataset, steps):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset.take(steps)]


def records(path):
    """`(offset, length)` of the data of each record."""
    data, offset, found = path.read_bytes(), 0, []
    while offset < len(data):
        (length,) = struct.unpack_from("<Q", data, offset)
        found.append((offset + 12, length))
        offset += 12 + length + 4
    return found


def rewrite(path, change):
    """Writes a file anew, with right checksums, as `change` makes of its list of examples."""
    examples = [tf.train.Example.FromString(x.numpy()) for x in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in change(examples):
            writer.write(example.SerializeToString())


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    offset, length = records(path)[5]
    data[offset + length // 2] ^= 1
    path.write_bytes(data)


def cut(path, into_record):
    """Ends the file so many bytes behind the beginning of record 5."""
    path.write_bytes(path.read_bytes()[: records(path)[5][0] - 12 + into_record])


def change_image(path, change):
    def change_one(examples):
        image = examples[2].features.feature["image"].bytes_list
        image.value[0] = change(image.value[0])
        return examples

    rewrite(path, change_one)


def change_label(path):
    def change_one(examples):
        examples[2].features.feature["label"].int64_list.value[0] = COUNT
        return examples

    rewrite(path, change_one)


def gif(_):
    from PIL import Image

    frames = [Image.new("L", (8, 6), color) for color in (0, 255)]
    import io

    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


# What is done to the second file, and the records of it that are lost.
REST, ONE = (5, 6, 7), (2,)
DAMAGE = {
    "a flipped bit": (flip_a_bit, REST),
    "cut within a record": (lambda path: cut(path, 40), REST),
    "cut within a header": (lambda path: cut(path, 6), REST),
    "cut between records": (lambda path: cut(path, 0), REST),
    "an empty file": (lambda path: path.write_bytes(b""), range(8)),
    "not a TFRecord": (lambda path: path.write_bytes(b"<html>404</html>" * 99), range(8)),
    "a JPEG cut short": (lambda path: change_image(path, lambda jpeg: jpeg[:-40]), ONE),
    "no image": (lambda path: change_image(path, lambda jpeg: b"hello"), ONE),
    "an animation": (lambda path: change_image(path, gif), ONE),
    "a label out of range": (change_label, ONE),
}


@pytest.fixture(params=DAMAGE)
def damaged(request, stored):
    """The folder of a set with damage, and the names of the lost records."""
    folder, files = stored
    damage, lost = DAMAGE[request.param]
    damage(files[1])
    return folder, [f"{files[1]} record {index}" for index in lost]


@pytest.fixture(scope="module")
def whole(written):
    """The batches of an epoch without damage."""
    return batches(load(written)[0], 4)


SOME = ["a flipped bit", "cut between records", "not a TFRecord", "no image"]


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [*SOME, "a label out of range"], indirect=True)
def test_damage_is_refused_by_name(damaged):
    folder, lost = damaged
    dataset, info = load(folder)
    with pytest.raises(tf.errors.InvalidArgumentError, match="load_tfds") as caught:
        batches(dataset, 4)
    assert lost[0].split(" record ")[0] in str(caught.value)
    assert any(name in str(caught.value) for name in lost)
    assert "Received: on_error=raise" in str(caught.value)
    assert info.skipped.total() == 0


@pytest.mark.slow
def test_damage_is_skipped_and_counted(damaged, whole, caplog):
    folder, lost = damaged
    with caplog.at_level(logging.WARNING, "keras_sagan"):
        dataset, info = load(folder, on_error="skip")
        assert info.num_images == COUNT
        found = batches(dataset, 4)
    assert set(info.skipped) == set(lost)
    assert all(f"skips a damaged image: {name}" in caplog.text for name in lost)
    changed = 0
    for (images, labels), (_, original) in zip(found, whole):
        # All others keep their places, and good images of the batch stand in for the damaged.
        np.testing.assert_allclose(images[:, 0, 0, 0], 10 * labels, atol=1)
        assert set(labels) <= set(original)
        changed += np.sum(labels != original)
    assert changed == len(lost)


@pytest.mark.slow
def test_skipping_resumes_exactly(stored):
    folder, files = stored
    flip_a_bit(files[0])
    change_label(files[2])
    dataset, info = load(folder, on_error="skip")
    whole = [labels.tolist() for _, labels in batches(dataset, 9)]
    assert info.skipped.total() >= 2 * 4  # Over two epochs.
    for start_step in (1, 5):
        dataset, _ = load(folder, on_error="skip", start_step=start_step)
        rest = [labels.tolist() for _, labels in batches(dataset, 9 - start_step)]
        assert rest == whole[start_step:]


@pytest.mark.slow
@pytest.mark.parametrize("start_step", [0, 1])
def test_each_jax_process_gets_its_share(written, whole, start_step, monkeypatch):
    """Two processes that take turns: their rows are those of the batches of one process."""
    for first in (0, 3):
        rows = np.arange(first, first + 3)
        monkeypatch.setattr("keras_sagan.data.tfds.rows_of_process", lambda _, rows=rows: rows)
        dataset, info = load(written, start_step=start_step)
        assert info.steps_per_epoch == 4
        found = batches(dataset, 4 - start_step)
        for batch, expected in zip(found, whole[start_step:], strict=True):
            for part, all_rows in zip(batch, expected, strict=True):
                np.testing.assert_array_equal(part, all_rows[rows])


def test_each_jax_process_gets_all_images_for_scores(written, monkeypatch, request):
    def rows_of_process(batch_size):
        count = 1 if keras.distribution.distribution() is None else 2
        return np.arange(batch_size // count)

    monkeypatch.setattr("keras_sagan.data.tfds.rows_of_process", rows_of_process)
    request.addfinalizer(lambda: keras.distribution.set_distribution(None))
    keras.distribution.set_distribution("two processes")
    settings = {name: option.default for name, option in options.TRAIN.items()}
    settings |= {"dataset": "small_grey_jpegs", "data_dir": str(written)}
    source = open_source(settings, 4, 6)
    images, labels = next(iter(source.batches()))
    assert len(images) == len(labels) == 3
    images, labels = source.head(6)
    assert len(images) == len(labels) == 6
    assert keras.distribution.distribution() == "two processes"


def test_a_batch_without_a_good_image_is_refused(stored):
    folder, files = stored
    for path in files:
        path.write_bytes(b"")
    with pytest.raises(tf.errors.InvalidArgumentError, match="a batch without a good image"):
        batches(load(folder, on_error="skip")[0], 1)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_missing_file_is_named(stored, on_error):
    folder, files = stored
    files[1].unlink()
    with pytest.raises(tf.errors.NotFoundError, match=Path(files[1]).name):
        batches(load(folder, on_error=on_error)[0], 4)


def test_on_error_is_checked():
    with pytest.raises(ValueError, match="`on_error` must be .*Received: on_error='ignore'"):
        load_tfds("cifar10", on_error="ignore")


@pytest.mark.slow
def test_images_alone(stored, whole):
    folder, _ = stored
    dataset, info = load(folder, use_labels=False)
    assert (info.num_classes, info.class_names) == (None, None)
    for images, (expected, _) in zip(dataset.take(2), whole):
        np.testing.assert_array_equal(images, expected)
    with pytest.raises(ValueError, match="`use_labels` must be True or False"):
        load(folder, use_labels=None)


def test_images_whose_labels_are_withheld(stored):
    """As in the `test` of imagenet2012 and the `unlabelled` of stl10, where each label is -1."""

    def withhold(examples):
        for example in examples:
            example.features.feature["label"].int64_list.value[0] = -1
        return examples

    folder, files = stored
    for path in files:
        rewrite(path, withhold)
    dataset, info = load(folder, use_labels=False)
    assert info.num_images == COUNT and info.num_classes is None
    seen = np.concatenate([images.numpy() for images in dataset.take(4)])
    np.testing.assert_allclose(sorted(seen[:, 0, 0, 0]), 10 * np.arange(COUNT), atol=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="use_labels=False"):
        batches(load(folder)[0], 1)


@pytest.mark.slow
def test_the_command_line_names_a_damaged_record(stored, tmp_path, capsys, monkeypatch):
    """Damage that turns up in the middle of training."""
    from keras_sagan.cli import main

    short_runs.train_briefly(monkeypatch)
    short_runs.draw_nothing(monkeypatch)
    folder, files = stored
    flip_a_bit(files[1])
    options = ["--dataset", "small_grey_jpegs", "--data-dir", str(folder), "--epochs", "2"]
    options += ["--image-size", "8", "--batch-size", "6", "--fid-images", "0"]
    options += ["--base-filters", "4"]
    assert main(["train", *options, "--output", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("keras-sagan: InvalidArgumentError: ") and len(error) < 1000
    assert "`load_tfds` read no image" in error and f"records: {files[1]} record " in error
    (log,) = (tmp_path / "run").glob("*.log")
    assert str(log) in error and "Traceback" in log.read_text()
