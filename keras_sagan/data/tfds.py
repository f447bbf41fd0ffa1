"""Loads TensorFlow Datasets as endless batches of images."""

import collections
import difflib
import functools
import logging
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_sagan.checks import (
    check_boolean,
    check_choice,
    check_integer,
    check_path,
    check_string,
)
from keras_sagan.data.order import ORDERS, is_flipped_tensor, permutation_tensor
from keras_sagan.data.pipeline import rows_of_process, steps_per_epoch
from keras_sagan.data.position import check_step, positioned
from keras_sagan.data.tensorflow_pipeline import finish
from keras_sagan.lazy import tf

_FILES_AT_ONCE = 16  # The number of files to interleave, which determines the order of the images.

_BUFFER_BYTES = 8 << 20  # TFDS's buffer size; smaller requests to cloud storage would be slow.

_DAMAGED = -1  # The label of an image that can't be read.
_log = logging.getLogger("keras_sagan")


class DatasetInfo(NamedTuple):
    """Contains the properties of a dataset that you need to build a model and call `fit`.

    Attributes:
        num_images: The number of images in the split.
        steps_per_epoch: The number of full batches in the split.
        image_shape: Tuple `(height, width, channels)`.
        num_classes, class_names: The number and the names of the classes, or `None` without labels.
        skipped: Counter of the damaged records that have been skipped so far, which is empty with
            `on_error="raise"`. Each key names a file and an index. `skipped` is `None` if damaged
            records aren't counted.
    """

    num_images: int
    steps_per_epoch: int
    image_shape: tuple
    num_classes: int | None
    class_names: tuple | None
    skipped: collections.Counter | None = None


def load_tfds(
    name: str,
    split: str = "train",
    image_size: int = 32,
    batch_size: int = 64,
    seed: int = 0,
    shuffle: bool = True,
    start_step: int = 0,
    data_dir: str | Path | None = None,
    shuffle_buffer: int = 4096,
    on_error: str = "raise",
    use_labels: bool = True,
    order: str = "splitmix64",
    flip: bool = False,
) -> tuple[Any, "DatasetInfo"]:
    """Streams an image classification dataset of TensorFlow Datasets in batches.

    Images are cropped to their central square and resized bilinearly with anti-aliasing; gray
    images stay gray, and RGB images stay RGB. As with `make_dataset`, the dataset is endless, and
    its batches depend only on the seed and the step. TFDS shuffles the images once, when it stores
    them. They are read in a fixed order from 16 files at a time, and each block of `shuffle_buffer`
    images is shuffled in every epoch. Images before `start_step` are skipped without being decoded,
    and most of their files aren't opened.

    A record is damaged if TensorFlow can't read or decode it, or if its label isn't one of the
    dataset's classes. By default, a damaged record raises an error that names its file and index.
    With `on_error="skip"`, a good image from the same batch replaces the damaged one, so that all
    other images keep their positions; with several JAX processes, it is from the same process's
    share of the batch. TensorFlow can't read a file beyond a damaged record, so the
    rest of that file counts as damaged. Records that are missing at the end of a file also count as
    damaged. JPEG data that were damaged before they were stored may decode without an error.

    Args:
        name: The name in TFDS, such as `"cifar10"`, optionally with a config and a version.
        split: A TFDS split or slice.
        image_size: The height and width of the result in pixels.
        batch_size, seed, shuffle, start_step, order: As in `make_dataset`.
        data_dir: The TFDS data folder. Defaults to `~/tensorflow_datasets`.
        shuffle_buffer: The number of images in each block that is shuffled. Two blocks of encoded
            images are kept in memory.
        on_error: `"raise"`, or `"skip"` to replace damaged images. Each damaged record is logged
            once, and counted in `info.skipped` whenever it is replaced; `info.skipped.total()` is
            the number of replaced images. The count may be a few batches ahead of training.
        use_labels: Whether batches contain labels. If `False`, splits without labels can be read,
            such as `unlabelled` in stl10.
        flip: Whether to mirror approximately half of the images horizontally. The choice depends on
            the seed, the epoch and the image's position in the epoch. The copy that replaces a
            damaged image isn't mirrored again.

    Returns:
        `(dataset, info)`: an endless `tf.data.Dataset` and a `DatasetInfo`. Batches are uint8
        images in [0, 255] of shape `(batch_size, image_size, image_size, channels)`, or pairs of
        such images and int32 labels of shape `(batch_size,)`. With several JAX processes, each one
        gets and decodes only its share of each batch.

    Raises:
        ImportError: If `tensorflow_datasets`, or a package it needs, is missing.
        ValueError: If the dataset doesn't consist of 8-bit gray or RGB images, its images don't
            fill a batch, or an argument is out of range.
        tf.errors.InvalidArgumentError: While iterating, if a record is damaged; with
            `on_error="skip"`, only if every record in a batch, or in a process's share, is damaged.
        tf.errors.OpError: While iterating, if a file can't be opened.

    Example:
    ```python
    dataset, info = load_tfds("cifar10", "train", image_size=32, batch_size=64)
    model.fit(dataset, epochs=10, steps_per_epoch=info.steps_per_epoch)
    ```
    """
    name = check_string("name", name)
    image_size = check_integer("image_size", image_size)
    batch_size = check_integer("batch_size", batch_size)
    start_step = check_step(start_step, "start_step")
    seed = check_integer("seed", seed, 0, 2**31 - 1)
    shuffle = check_boolean("shuffle", shuffle)
    data_dir = check_path("data_dir", data_dir, optional=True, allow_url=True)
    shuffle_buffer = check_integer("shuffle_buffer", shuffle_buffer)
    use_labels = check_boolean("use_labels", use_labels)
    order, flip = check_choice("order", order, ORDERS), check_boolean("flip", flip)
    on_error = check_choice("on_error", on_error, ("raise", "skip"))
    try:
        import tensorflow_datasets as tfds

        builder = _builder(tfds, name, data_dir)
        image_key, label_key = _classification_keys(tfds, builder.info, name)
        # Download only from the original source, and verify the checksums that TFDS knows.
        config = tfds.download.DownloadConfig(
            try_download_gcs=False, force_checksums_validation=True
        )
        builder.download_and_prepare(download_config=config)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`load_tfds` needs the package `{error.name}` for name={name!r}. In a clone of "
            'keras_sagan, run: pip install ".[data]" (some datasets need one more package)',
            name=error.name,
        ) from error
    features = builder.info.features
    label_key = label_key if use_labels else None
    num_images, stored_from, read_example = _reader(tfds, builder, split, image_key, label_key)
    steps = steps_per_epoch(num_images, batch_size)
    shape = (image_size, image_size, features[image_key].shape[-1])
    num_classes = features[label_key].num_classes if label_key else None
    block_size = shuffle_buffer if shuffle else 1
    skipped = collections.Counter()

    def epoch_of(epoch, start_step):
        first = tf.where(epoch == start_step // steps, start_step % steps, 0) * batch_size
        first = tf.cast(first, tf.int64)
        block = first // block_size
        dataset = stored_from(block * block_size)
        if shuffle:
            blocks = dataset.batch(block_size).prefetch(1).enumerate(block)
            dataset = blocks.flat_map(lambda block, records: shuffled(epoch, block, records))
        return dataset.skip(first - block * block_size).take(steps * batch_size - first)

    def shuffled(epoch, block, records):
        # Don't use `Dataset.shuffle`: its order also depends on TensorFlow's global seed.
        count = tf.shape(records[0], tf.int64)[0]
        number = epoch * -(-num_images // block_size) + block
        indices = permutation_tensor(seed, number, count, order)
        records = tf.nest.map_structure(lambda values: tf.gather(values, indices), records)
        return tf.data.Dataset.from_tensor_slices(records)

    def image_of(epoch, number, record):
        example = read_example(record)
        image = features[image_key].decode_example(example[image_key])
        label = example[label_key] if label_key else 0
        image = tf.ensure_shape(square_resize(image, image_size), shape)
        if flip:
            epoch += number // (steps * batch_size)
            is_flipped = is_flipped_tensor(seed, epoch, number % (steps * batch_size))
            image = tf.where(is_flipped, tf.reverse(image, [1]), image)
        return image, tf.cast(label, tf.int32)

    def image_or_blank(epoch, number, pair):
        place, record = pair
        # Use a dataset of one image, because only datasets have `ignore_errors`.
        image = tf.data.Dataset.from_tensors((epoch, number, record)).map(image_of)
        image = image.ignore_errors(log_warning=True)
        blank = (tf.zeros(shape, tf.uint8), tf.constant(_DAMAGED, tf.int32))
        image = image.concatenate(tf.data.Dataset.from_tensors(blank)).take(1)
        return *image.get_single_element(), place

    def repaired(images, labels, places):
        is_good = (labels >= 0) & (labels < (num_classes or 1))

        def repair():
            return tf.numpy_function(
                functools.partial(_repair, on_error, num_classes or 1, skipped),
                [images, labels, places, is_good],
                [tf.uint8, tf.int32],
            )

        found = tf.cond(tf.reduce_all(is_good), lambda: [images, labels], repair)
        found = [tf.ensure_shape(x, y.shape) for x, y in zip(found, (images, labels))]
        return tuple(found) if label_key else found[0]

    def make(start_step):
        start = tf.constant(start_step // steps, tf.int64)
        dataset = tf.data.Dataset.counter(start=start, dtype=tf.int64)
        dataset = dataset.flat_map(lambda epoch: epoch_of(epoch, start_step))
        # Count images from the first epoch, because `start_step` may be large.
        dataset = dataset.enumerate(start_step % steps * batch_size)
        rows, calls = rows_of_process(batch_size), tf.data.AUTOTUNE
        if len(rows) < batch_size:  # Don't decode the images of other processes.
            is_own = np.isin(np.arange(batch_size), rows)
            dataset = dataset.filter(lambda number, _: tf.gather(is_own, number % batch_size))
        dataset = dataset.map(
            functools.partial(image_or_blank, start), num_parallel_calls=calls, deterministic=True
        )
        return finish(dataset.batch(len(rows), drop_remainder=True).map(repaired))

    names = tuple(features[label_key].names) if label_key else None
    info = DatasetInfo(num_images, steps, shape, num_classes, names, skipped)
    return positioned(make, start_step), info


def _builder(tfds, name, data_dir):
    """Returns the builder of a dataset, or raises an error that lists similar names."""
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (AssertionError, ValueError) as error:  # `DatasetNotFoundError` is a `ValueError`.
        known = tfds.list_builders(with_community_datasets=False)
        word = re.split("[/:]", name)[0].lower()
        nearest = ", ".join(difflib.get_close_matches(word, known, n=3, cutoff=0.0))
        reason = str(error).strip().split("\n")[0].rstrip(".:")
        raise ValueError(
            "`name` must be a dataset of TensorFlow Datasets, with one of its configs and "
            f"versions. Received: name={name!r} ({reason}). The nearest names are {nearest}"
        ) from error


def _reader(tfds, builder, split, image_key, label_key):
    """Returns a split's size and two functions: `(num_images, stored_from, read_example)`.

    `stored_from(position)` returns a dataset of pairs `(place, record)` that starts at a position;
    the split has `num_images` pairs. The string `place` identifies a record. `read_example(record)`
    returns the features of a record.
    """
    decoders = {image_key: tfds.decode.SkipDecoding()}
    keys = {key: True for key in (image_key, label_key) if key}
    wanted = tfds.decode.PartialDecoding(keys, decoders=decoders)
    is_prepared = bool(builder.info.splits)
    if not is_prepared or builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        # Without TFRecord files, as in `mock_data`, let TFDS read the records.
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        stored = builder.as_dataset(split=split, decoders=wanted, read_config=config)

        def stored_from(position):
            dataset = stored.enumerate().skip(position)
            return dataset.map(lambda i, x: (_place(f"{builder.info.name} {split}", i), x))

        return int(stored.cardinality()), stored_from, lambda example: example

    files = builder.info.splits[split].file_instructions
    paths = [os.fspath(file.filename) for file in files]
    skips = np.array([file.skip for file in files], np.int64)
    takes = np.array([file.take for file in files], np.int64)
    ends = np.cumsum(np.add.reduceat(takes, np.arange(0, len(takes), _FILES_AT_ONCE)))
    starts = np.concatenate([[0], ends])
    features = wanted.extract_features(builder.info.features)

    def stored_from(position):
        # Skip groups of files before the position without opening them.
        group = tf.searchsorted(ends, [position], side="right")[0]
        dataset = tf.data.Dataset.from_tensor_slices((paths, skips, takes)).batch(_FILES_AT_ONCE)
        dataset = dataset.skip(tf.cast(group, tf.int64)).flat_map(interleaved)
        return dataset.skip(position - tf.gather(starts, group))

    def interleaved(*files):
        return tf.data.Dataset.from_tensor_slices(files).interleave(
            records_of,
            cycle_length=_FILES_AT_ONCE,
            block_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def records_of(path, skip, take):
        # Read one byte first, because `ignore_errors` would try forever to open a missing file.
        can_open = tf.data.FixedLengthRecordDataset(path, 1).take(1)
        stored = tf.data.TFRecordDataset(path, buffer_size=_BUFFER_BYTES)
        records = can_open.flat_map(lambda _: stored.ignore_errors(log_warning=True))
        lost = tf.data.Dataset.from_tensors("").repeat()  # `read_example` rejects empty records.
        records = records.concatenate(lost).skip(skip).take(take)
        places = tf.data.Dataset.range(skip, skip + take).map(lambda i: _place(path, i))
        return tf.data.Dataset.zip(places, records)

    def read_example(record):
        return features.deserialize_example(record, decoders=decoders)

    return int(takes.sum()), stored_from, read_example


def _place(file, index):
    return file + " record " + tf.strings.as_string(index)


def _repair(on_error, num_classes, skipped, images, labels, places, is_good):
    """Returns a batch in which good images replace damaged ones, or raises an error."""
    bad = [place.decode("utf-8", "replace") for place in places[~is_good]]
    if on_error == "raise" or not is_good.any():
        end = " and a batch without a good image" if on_error == "skip" else ""
        raise ValueError(
            f"`load_tfds` read no image with a label in [0, {num_classes}) from these records: "
            f"{', '.join(bad[:8])}. With on_error=skip, other images of the batch replace them; "
            f"with use_labels=False, images need no labels. Received: on_error={on_error}{end}"
        )
    for place in bad:
        if place not in skipped:
            _log.warning("`load_tfds` skips a damaged image: %s", place)
        skipped[place] += 1
    index, good = np.arange(len(labels)), np.flatnonzero(is_good)
    index[~is_good] = good[index[~is_good] % len(good)]
    return images[index], labels[index]


def square_resize(image: Any, image_size: int) -> Any:
    """Uses TensorFlow to crop an image to its central square and resize it with anti-aliasing.

    Args:
        image: uint8 tensor in [0, 255] of shape `(height, width, channels)`.
        image_size: The height and width of the result in pixels.

    Returns:
        uint8 tensor of shape `(image_size, image_size, channels)`. An image that already has this
        shape isn't changed.
    """
    image_size = check_integer("image_size", image_size)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = image[top : top + side, left : left + side]
    image = tf.image.resize(image, (image_size, image_size), "bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def _classification_keys(tfds, info, name):
    """Returns the keys of the image and of the class label (`None` if there are no labels)."""
    features = info.features

    def is_a(kind, key):
        return isinstance(key, str) and key in features and isinstance(features[key], kind)

    image_key, label_key = (*(info.supervised_keys or ("image", "label")), None)[:2]
    if not is_a(tfds.features.Image, image_key):
        image_key, label_key = "image", "label"
    if not is_a(tfds.features.Image, image_key):
        raise ValueError(
            "`name` must be a TFDS dataset of images. "
            f"Received: name={name!r} with features {sorted(features)}"
        )
    image = features[image_key]
    if image.shape[-1] not in (1, 3) or np.dtype(image.np_dtype) != np.uint8:
        raise ValueError(
            "`name` must be a TFDS dataset of 8-bit images with 1 or 3 channels. "
            f"Received: name={name!r} with images {image.shape} of {np.dtype(image.np_dtype)}"
        )
    return image_key, label_key if is_a(tfds.features.ClassLabel, label_key) else None
