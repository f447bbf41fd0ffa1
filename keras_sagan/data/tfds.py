"""TensorFlow Datasets as endless batches for an image classification set."""

import collections
import difflib
import logging
import os
import re
from typing import NamedTuple

import numpy as np

from keras_sagan.checks import (
    check_boolean,
    check_choice,
    check_integer,
    check_path,
    check_string,
)
from keras_sagan.data.order import permutation_tensor
from keras_sagan.data.pipeline import check_order, check_position, steps_per_epoch
from keras_sagan.data.position import positioned
from keras_sagan.data.tensorflow_pipeline import finish
from keras_sagan.lazy import tf

_PIP_LINE = 'pip install "keras_sagan[data]"'
_FILES_AT_ONCE = 16  # A part of the order: another number is another order.
_BUFFER_BYTES = 8 << 20  # For each open file, as TFDS has it: buckets want large requests.
_DAMAGED = -1  # The label of an image that can't be read.
_log = logging.getLogger("keras_sagan")


class DatasetInfo(NamedTuple):
    """What a model and `fit` must know of a data set.

    Attributes:
        num_images: Integer, images in the split.
        steps_per_epoch: Integer, full batches in the split.
        image_shape: Tuple (height, width, channels).
        num_classes: Integer, or `None` where images have no class label.
        class_names: Tuple of strings, one for each class, or `None`.
        skipped: `collections.Counter` of the damaged records that were passed over so far, by
            file and number; empty with `on_error="raise"`. `None` for other data sets.
    """

    num_images: int
    steps_per_epoch: int
    image_shape: tuple
    num_classes: int | None
    class_names: tuple | None
    skipped: collections.Counter | None = None


def load_tfds(
    name,
    split="train",
    image_size=32,
    batch_size=64,
    seed=0,
    shuffle=True,
    start_step=0,
    data_dir=None,
    shuffle_buffer=4096,
    on_error="raise",
    use_labels=True,
    order="splitmix64",
):
    """Streams any image classification set of TensorFlow Datasets, in batches.

    Images are cropped to their central square, resized bilinearly with anti-aliasing, and stay
    grey or RGB, as in the set. As with `make_dataset` the batches are endless and depend on the
    seed and the step alone; but a streamed set is read in a fixed order, 16 of its files at a
    time, which TFDS has mixed once, and shuffled anew in every epoch within blocks of
    `shuffle_buffer` images. `start_step` doesn't open the files before its own, and passes over
    images without decoding them.

    A damaged record or image is refused with an error that names its file and number, or skipped:
    then another image of the same batch stands in for it, so that all others keep their places.
    Damaged is what TensorFlow can't read or decode, or has no label of the set. TensorFlow can't
    read a file beyond a damaged record, so the rest of that file counts as damaged too, and so do
    records that are missing from its end. JPEG data that were altered before they were stored
    decode without an error.

    Args:
        name: String, the name in TFDS such as `"cifar10"`, optionally with config and version.
        split: String, a split or slice of TFDS. Defaults to `"train"`.
        image_size: Integer, height and width of the result in pixels. Defaults to `32`.
        batch_size: Integer, images in every batch. Defaults to `64`.
        seed: Integer in [0, 2**31), names the order. Defaults to `0`.
        shuffle: Boolean. Defaults to `True`.
        start_step: Integer, global number of the first batch. Defaults to `0`.
        data_dir: Optional string, the folder of TFDS. Defaults to `None`: `~/tensorflow_datasets`.
        shuffle_buffer: Integer, images in a block. Two blocks are held in memory, as encoded as
            they are stored. Defaults to `4096`.
        on_error: `"raise"`, or `"skip"` to go on without damaged images: each one is logged once,
            and counted in the `skipped` of the `DatasetInfo`, whose `total()` is their number.
            The pipeline runs a few batches ahead of what is trained on. Defaults to `"raise"`.
        use_labels: Boolean. `False` reads images alone, also those of splits whose labels are
            withheld, such as `unlabelled` of stl10. Defaults to `True`.
        order: `"splitmix64"`, or `"index_shuffle"` for runs that began before there was a choice.
            Defaults to `"splitmix64"`.

    Returns:
        `(dataset, info)`: an endless `tf.data.Dataset` of pairs of uint8 [0, 255]
        (batch_size, image_size, image_size, channels) and int32 (batch_size,), or of images
        alone without class labels, and a `DatasetInfo`.

    Raises:
        ImportError: If `tensorflow_datasets`, or a package it needs, is missing.
        ValueError: If the set has no images, they aren't 8-bit grey or RGB, they don't fill a
            batch, or an argument is out of range.
        tf.errors.InvalidArgumentError: While iterating, for a damaged record or image, or with
            `on_error="skip"` for a batch without a good one.
        tf.errors.OpError: While iterating, for a file that can't be opened.

    Example:

    ```python
    dataset, info = load_tfds("cifar10", "train", image_size=32, batch_size=64)
    model.fit(dataset, epochs=10, steps_per_epoch=info.steps_per_epoch)
    ```
    """
    name = check_string("name", name)
    image_size = check_integer("image_size", image_size)
    batch_size = check_integer("batch_size", batch_size)
    seed, start_step = check_position(seed, start_step)
    shuffle = check_boolean("shuffle", shuffle)
    data_dir = check_path("data_dir", data_dir, optional=True)
    shuffle_buffer = check_integer("shuffle_buffer", shuffle_buffer)
    use_labels = check_boolean("use_labels", use_labels)
    order = check_order(order)
    on_error = check_choice("on_error", on_error, ("raise", "skip"))
    try:
        import tensorflow_datasets as tfds

        builder = _builder(tfds, name, data_dir)
        image_key, label_key = _classification_keys(tfds, builder.info, name)
        label_key = label_key if use_labels else None
        # From where its makers have it, by the digests that TFDS knows, or not at all.
        pinned = tfds.download.DownloadConfig(
            try_download_gcs=False, force_checksums_validation=True
        )
        builder.download_and_prepare(download_config=pinned)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`load_tfds` needs the package `{error.name}` for name={name!r}. Run: {_PIP_LINE} "
            "(a few data sets need a package of their own besides)",
            name=error.name,
        ) from error
    image_feature = builder.info.features[image_key]
    label_feature = builder.info.features[label_key] if label_key else None
    num_images, stored_from, read_example = _reader(tfds, builder, split, image_key, label_key)
    steps = steps_per_epoch(num_images, batch_size)
    channels = image_feature.shape[-1]

    def epoch_of(epoch, start_step):
        first = tf.where(epoch == start_step // steps, start_step % steps, 0) * batch_size
        first = tf.cast(first, tf.int64)
        if shuffle:
            block = first // shuffle_buffer
            position = block * shuffle_buffer
            blocks = stored_from(position).batch(shuffle_buffer).prefetch(1).enumerate(block)
            dataset = blocks.flat_map(lambda block, records: shuffled(epoch, block, records))
        else:
            position = first
            dataset = stored_from(position)
        return dataset.skip(first - position).take(steps * batch_size - first)

    def shuffled(epoch, block, records):
        # `Dataset.shuffle` would mix TensorFlow's global seed into the order.
        count = tf.shape(records[0], tf.int64)[0]
        number = epoch * -(-num_images // shuffle_buffer) + block
        indices = permutation_tensor(seed, number, count, order)
        records = tf.nest.map_structure(lambda values: tf.gather(values, indices), records)
        return tf.data.Dataset.from_tensor_slices(records)

    def image_of(record):
        example = read_example(record)
        image = square_resize(image_feature.decode_example(example[image_key]), image_size)
        label = example[label_key] if label_key else 0
        return tf.ensure_shape(image, shape), tf.cast(label, tf.int32)

    def image_or_blank(place, record):
        # One image at a time, so that an error in reading it ends up here.
        image = tf.data.Dataset.from_tensors(record).map(image_of).ignore_errors(log_warning=True)
        blank = (tf.zeros(shape, tf.uint8), tf.constant(_DAMAGED, tf.int32))
        image = image.concatenate(tf.data.Dataset.from_tensors(blank)).take(1)
        return *image.get_single_element(), place

    shape = (image_size, image_size, channels)
    classes = label_feature.num_classes if label_key else 1
    skipped = collections.Counter()

    def make(start_step):
        dataset = tf.data.Dataset.counter(start=start_step // steps, dtype=tf.int64)
        dataset = dataset.flat_map(lambda epoch: epoch_of(epoch, start_step))
        calls = tf.data.AUTOTUNE
        dataset = dataset.map(image_or_blank, num_parallel_calls=calls, deterministic=True)
        dataset = dataset.batch(batch_size, drop_remainder=True)
        dataset = dataset.map(lambda *batch: _without_damage(*batch, classes, on_error, skipped))
        if not label_key:
            dataset = dataset.map(lambda images, labels: images)
        return finish(dataset)

    names = tuple(label_feature.names) if label_key else None
    num_classes = classes if label_key else None
    info = DatasetInfo(num_images, steps, shape, num_classes, names, skipped)
    return positioned(make, start_step), info


def _builder(tfds, name, data_dir):
    """Returns the builder of a data set, or says in one line which names there are."""
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        word = re.split("[/:]", name)[0].lower()
        nearest = ", ".join(difflib.get_close_matches(word, known, n=3, cutoff=0.0))
        raise ValueError(
            "`name` must be a data set of TensorFlow Datasets. "
            f"Received: name={name!r}. The nearest names are {nearest}"
        ) from error
    except (AssertionError, ValueError) as error:  # An unknown config or version.
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            "`name` must be a data set of TensorFlow Datasets, with one of its configs and "
            f"versions. Received: name={name!r} ({reason})"
        ) from error


def _reader(tfds, builder, split, image_key, label_key):
    """How a split is read.

    Args:
        tfds: The module.
        builder: The `tfds.core.DatasetBuilder`.
        split: String.
        image_key, label_key: Strings, the features to read; the latter may be `None`.

    Returns:
        `(num_images, stored_from, read_example)`: a function from a position to the data set of
        `(place, record)` from there on, always `num_images` long in all, where `place` is a
        string to find the record by; and a function from a record to its features.
    """
    decoders = {image_key: tfds.decode.SkipDecoding()}
    keys = {key: True for key in (image_key, label_key) if key}
    wanted = tfds.decode.PartialDecoding(keys, decoders=decoders)
    is_prepared = bool(builder.info.splits)
    if not is_prepared or builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        # No files to read, as with `tfds.testing.mock_data`, or files of another kind.
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        stored = builder.as_dataset(split=split, decoders=wanted, read_config=config)

        def stored_from(position):
            dataset = stored.enumerate().skip(position)
            return dataset.map(lambda i, x: (f"{builder.info.name} {split} " + _text(i), x))

        return int(stored.cardinality()), stored_from, lambda example: example

    files = builder.info.splits[split].file_instructions
    paths = [os.fspath(file.filename) for file in files]
    skips, takes = (
        np.array([getattr(file, name) for file in files], np.int64) for name in ("skip", "take")
    )
    ends = np.cumsum(np.add.reduceat(takes, np.arange(0, len(takes), _FILES_AT_ONCE)))
    starts = np.concatenate([[0], ends])
    features = wanted.extract_features(builder.info.features)

    def stored_from(position):
        # Files that end before the position aren't opened.
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
            deterministic=True,  # The order of the stored images must not depend on threads.
        )

    def records_of(path, skip, take):
        # One byte first: `ignore_errors` would try for ever to open what can't be opened.
        can_open = tf.data.FixedLengthRecordDataset(path, 1).take(1)
        stored = tf.data.TFRecordDataset(path, buffer_size=_BUFFER_BYTES)
        records = can_open.flat_map(lambda _: stored.ignore_errors(log_warning=True))
        lost = tf.data.Dataset.from_tensors("").repeat()  # No example: its reading fails.
        records = records.concatenate(lost).skip(skip).take(take)
        places = tf.data.Dataset.range(skip, skip + take).map(lambda i: path + " " + _text(i))
        return tf.data.Dataset.zip(places, records)

    def read_example(record):
        return features.deserialize_example(record, decoders=decoders)

    return int(takes.sum()), stored_from, read_example


def _text(index):
    return "record " + tf.strings.as_string(index)


def _without_damage(images, labels, places, num_classes, on_error, skipped):
    """A batch in which good images stand in for damaged ones, or an error that names these."""
    is_good = (labels >= 0) & (labels < num_classes)
    bad = tf.boolean_mask(places, ~is_good)

    def count(bad):
        for place in bad:
            place = place.decode("utf-8", "replace")
            if place not in skipped:
                _log.warning("`load_tfds` skips a damaged image: %s", place)
            skipped[place] += 1
        return np.int64(len(bad))

    def repaired():
        is_hopeless = tf.equal(tf.size(bad), tf.size(labels)) | (on_error == "raise")
        message = [  # Without quotation marks, before which Assert puts backslashes.
            f"`load_tfds` read no image with a label in [0, {num_classes}) from these records: ",
            bad,
            ". With on_error=skip others of the batch stand in for them; use_labels=False reads "
            "images whose labels are withheld. "
            f"Received: on_error={on_error}"
            + (" and a batch without a good image" if on_error == "skip" else ""),
        ]
        check = tf.debugging.Assert(~is_hopeless, message, summarize=8)
        with tf.control_dependencies([check]):
            good = tf.where(is_good)[:, 0]
        index = tf.range(tf.size(labels, tf.int64))
        index = tf.where(is_good, index, tf.gather(good, index % tf.size(good, tf.int64)))
        with tf.control_dependencies([tf.numpy_function(count, [bad], tf.int64)]):
            return tf.gather(images, index), tf.gather(labels, index)

    return tf.cond(tf.reduce_all(is_good), lambda: (images, labels), repaired)


def square_resize(image, image_size):
    """Crops one image to its central square and resizes it, with anti-aliasing, in TensorFlow.

    Args:
        image: uint8 tensor in [0, 255] of shape (height, width, channels).
        image_size: Integer, height and width of the result in pixels.

    Returns:
        uint8 tensor of shape (image_size, image_size, channels). An image that has this size
        already comes back unchanged.
    """
    image_size = check_integer("image_size", image_size)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = image[top : top + side, left : left + side]
    image = tf.image.resize(image, (image_size, image_size), "bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def _classification_keys(tfds, info, name):
    """The keys of the image and of its class label, or `None` where it has none."""

    def is_a(kind, key):
        return isinstance(key, str) and key in features and isinstance(features[key], kind)

    features, keys = info.features, (*(info.supervised_keys or ("image", "label")), None)[:2]
    if not is_a(tfds.features.Image, keys[0]):
        keys = "image", "label"
    if not is_a(tfds.features.Image, keys[0]):
        raise ValueError(
            "`name` must be a TFDS data set of images. "
            f"Received: name={name!r} with features {sorted(features)}"
        )
    if not is_a(tfds.features.ClassLabel, keys[1]):
        keys = keys[0], None
    image = features[keys[0]]
    if image.shape[-1] not in (1, 3) or np.dtype(image.np_dtype) != np.uint8:
        raise ValueError(
            "`name` must be a TFDS data set of 8-bit images with 1 or 3 channels. "
            f"Received: name={name!r} with images {image.shape} of {np.dtype(image.np_dtype)}"
        )
    return keys
