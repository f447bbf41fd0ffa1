"""Pipelines: order as a function of seed and step, exact resuming, TFDS through its mock."""

import sys

import numpy as np
import pytest

from keras_sagan.data import (
    load_image_folder,
    load_tfds,
    make_dataset,
    pad_to_32,
    spread_indices,
    square_resize,
    steps_per_epoch,
)
from keras_sagan.data.order import is_flipped
from keras_sagan.data.position import at_step, start_step_of

tf = pytest.importorskip("tensorflow")


def arrays(count=23):
    """Images whose every pixel is their index, and their index as label."""
    labels = np.arange(count)
    return np.tile(labels.astype("uint8")[:, None, None, None], (1, 4, 4, 1)), labels


def labels_of(dataset, steps):
    return [batch[1].numpy().tolist() for batch in dataset.take(steps)]


def test_elements_shapes_and_pairs():
    dataset = make_dataset(*arrays(), batch_size=5, seed=3)
    images, labels = dataset.element_spec
    assert images.shape == (5, 4, 4, 1) and images.dtype == tf.uint8
    assert labels.shape == (5,) and labels.dtype == tf.int32
    for images, labels in dataset.take(9):
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


def test_an_epoch_has_no_image_twice_and_epochs_differ():
    batches = labels_of(make_dataset(*arrays(), batch_size=5, seed=3), 12)
    epochs = [sum(batches[start : start + 4], []) for start in (0, 4, 8)]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert epochs[0] != sorted(epochs[0])


def test_every_image_is_seen_in_the_long_run():
    batches = labels_of(make_dataset(*arrays(), batch_size=5), 60)
    assert set(sum(batches, [])) == set(range(23))


def test_the_order_depends_on_seed_and_step_alone():
    whole = labels_of(make_dataset(*arrays(), batch_size=5, seed=3), 12)
    assert whole == labels_of(make_dataset(*arrays(), batch_size=5, seed=3), 12)
    assert whole != labels_of(make_dataset(*arrays(), batch_size=5, seed=4), 12)
    for start_step in (1, 4, 7):
        resumed = make_dataset(*arrays(), batch_size=5, seed=3, start_step=start_step)
        assert labels_of(resumed, 12 - start_step) == whole[start_step:]


def test_the_order_is_a_recorded_one():
    # Fixed so that a resume under another release is known to go on in the same order.
    assert labels_of(make_dataset(*arrays(8), batch_size=4, seed=1), 3) == [
        [1, 6, 0, 2],
        [7, 5, 3, 4],
        [1, 4, 0, 6],
    ]
    # The order of older runs.
    old = make_dataset(*arrays(8), batch_size=4, seed=1, order="index_shuffle")
    assert labels_of(old, 3) == [
        [0, 6, 4, 7],
        [1, 2, 3, 5],
        [6, 5, 2, 4],
    ]


def positions():
    """Methods of `tf.data` that keep the position of a data set, and methods that lose it."""
    return {
        "map": lambda x: x.map(lambda images, labels: (images, labels + 100)),
        "prefetch": lambda x: x.prefetch(2),
        "with_options": lambda x: x.with_options(tf.data.Options()),
        "apply": lambda x: x.apply(lambda y: y.map(lambda *batch: batch).prefetch(1)),
    }, {
        "filter": lambda x: x.filter(lambda images, labels: labels[0] % 2 == 0),
        "batch": lambda x: x.map(lambda *batch: batch).batch(2).prefetch(1),
        "unbatch": lambda x: x.unbatch().batch(3),
        "shuffle": lambda x: x.shuffle(4, seed=1, reshuffle_each_iteration=False),
        "enumerate": lambda x: x.enumerate().map(lambda number, batch: batch),
    }


def test_the_position_survives_what_keeps_it():
    for method in positions()[0].values():
        dataset = method(make_dataset(*arrays(), batch_size=5, seed=3, start_step=2))
        assert start_step_of(dataset) == dataset.start_step == 2
        rest = at_step(dataset, 6)
        assert start_step_of(rest) == 6
        assert labels_of(rest, 5) == labels_of(dataset, 9)[4:]
        assert isinstance(dataset, tf.data.Dataset) and dataset.cardinality() == -1


@pytest.mark.parametrize("name", ["filter", "batch", "unbatch", "shuffle", "enumerate"])
def test_a_lost_position_is_said_and_read_up_to(name):
    """From wherever the data began, reading goes to the step counted from step 0."""
    whole = positions()[1][name](make_dataset(*arrays(), batch_size=5, seed=3))
    moved = positions()[1][name](make_dataset(*arrays(), batch_size=5, seed=3, start_step=2))
    for dataset in (whole, moved):
        with pytest.warns(
            UserWarning, match=rf"`Dataset.{name}` lost the position .*map, prefetch"
        ):
            assert start_step_of(dataset) is None
        assert not hasattr(dataset, "start_step")
        assert labels_of(at_step(dataset, 4), 3) == labels_of(whole, 7)[4:]


def test_an_endless_set_of_others_is_read_up_to_the_step():
    dataset = tf.data.Dataset.range(5).repeat()
    assert start_step_of(dataset) is None
    assert list(at_step(dataset, 7).take(3).as_numpy_iterator()) == [2, 3, 4]


def test_without_shuffle_and_without_repeat():
    dataset = make_dataset(*arrays(), batch_size=5, shuffle=False, repeat=False)
    assert labels_of(dataset, 99) == np.arange(20).reshape(4, 5).tolist()
    assert dataset.cardinality() == 4
    rest = make_dataset(*arrays(), batch_size=5, shuffle=False, repeat=False, start_step=6)
    assert labels_of(rest, 99) == [[10, 11, 12, 13, 14], [15, 16, 17, 18, 19]]


@pytest.mark.parametrize("start", [0, 1, 16, 63])
@pytest.mark.parametrize("shape", [(4, 4, 1), (8, 8, 1), (5, 7, 3)])
def test_an_array_may_begin_at_any_byte(start, shape):
    values = np.random.default_rng(0).integers(0, 256, (9, *shape), "uint8")
    memory = np.zeros(values.size + 128, "uint8")
    start += -memory.ctypes.data % 64
    images = memory[start : start + values.size].reshape(values.shape)
    images[:] = values
    images.flags.writeable = False
    dataset = make_dataset(images, np.arange(9), batch_size=3, seed=2)
    del images, memory  # The data set keeps what it needs.
    seen = set()
    for batch, labels in dataset.take(12):
        np.testing.assert_array_equal(batch, values[labels.numpy()])
        seen |= set(labels.numpy().tolist())
    assert seen == set(range(9))


def test_arrays_that_lie_in_a_file_or_in_pieces(tmp_path):
    images, labels = arrays()
    expected = [batch[0].numpy() for batch in make_dataset(images, labels, 5, seed=3).take(4)]
    np.save(tmp_path / "images.npy", images)
    for other in (np.load(tmp_path / "images.npy", "r"), images.repeat(2, axis=0)[::2]):
        for one, batch in zip(expected, make_dataset(other, labels, 5, seed=3).take(4)):
            np.testing.assert_array_equal(batch[0], one)


def test_images_alone():
    dataset = make_dataset(arrays()[0], batch_size=5)
    assert dataset.element_spec.shape == (5, 4, 4, 1)


def test_pad_to_32():
    padded = pad_to_32(np.full((2, 28, 28, 3), 7, "uint8"))
    assert padded.shape == (2, 32, 32, 3) and padded.dtype == np.uint8
    assert padded[:, 2:30, 2:30].min() == 7 and padded.sum() == 2 * 28 * 28 * 3 * 7
    assert pad_to_32(np.zeros((1, 28, 28, 1), "float32"))[0, 0, 0, 0] == -1.0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((28, 28, 1), "uint8"), r"`images` must have shape .*images.shape=\(28, 28, 1\)"),
        (np.zeros((1, 32, 32, 1), "uint8"), "`images` must have shape"),
        (np.zeros((1, 28, 28, 1), "int64"), "`images` must have .*uint8 .*Received: .*int64"),
    ],
)
def test_pad_to_32_refuses_other_images(images, message):
    with pytest.raises(ValueError, match=message):
        pad_to_32(images)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"images": np.zeros((9, 4, 4), "uint8")}, r"`images` must be uint8 .*shape=\(9, 4, 4\)"),
        ({"images": np.zeros((9, 4, 4, 1), "float32")}, "`images` must be uint8 .*float32"),
        ({"labels": np.arange(8)}, r"`labels` must be integers .*labels.shape=\(8,\)"),
        ({"labels": np.eye(9, dtype="int32")}, "`labels` must be integers"),
        ({"labels": np.zeros(9)}, "`labels` must be integers .*float64"),
        ({"batch_size": 10}, "`batch_size` must be at most .*batch_size=10 for 9 images"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer.*batch_size=0"),
        ({"batch_size": 2.0}, "`batch_size` must be a positive integer"),
        ({"seed": -1}, r"`seed` must be an integer in \[0, .*Received: seed=-1"),
        ({"seed": None}, "`seed` must be an integer"),
        ({"start_step": -1}, "`start_step` must be an integer.*start_step=-1"),
        ({"order": "random"}, "`order` must be .*splitmix64.*order='random'"),
    ],
)
def test_make_dataset_refuses(kwargs, message):
    images, labels = arrays(9)
    with pytest.raises(ValueError, match=message):
        make_dataset(**{"images": images, "labels": labels, "batch_size": 3, **kwargs})


def test_steps_per_epoch():
    assert steps_per_epoch(23, 5) == 4 and steps_per_epoch(5, 5) == 1


def test_spread_indices_has_all_classes_of_a_set_that_stands_class_by_class():
    labels = np.repeat(np.arange(5), 20)
    assert np.bincount(labels[spread_indices(10, 100)]).tolist() == [2] * 5
    assert spread_indices(500, 4).tolist() == [0, 1, 2, 3] and spread_indices(1, 9).tolist() == [0]
    with pytest.raises(ValueError, match="`count` must be a positive integer. Received: count=0"):
        spread_indices(0, 4)
    with pytest.raises(ValueError, match="`num_images` must be a positive integer.*num_images=-1"):
        spread_indices(1, -1)


def test_square_resize():
    image = np.zeros((8, 16, 3), "uint8")
    image[:, 4:12] = 200  # the central square
    assert square_resize(image, 8).numpy().min() == 200
    assert square_resize(image.transpose(1, 0, 2), 8).numpy().min() == 200
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype("uint8")
    np.testing.assert_array_equal(square_resize(noise, 8), noise)
    stripes = np.zeros((32, 32, 1), "uint8")
    stripes[:, ::2] = 255  # without anti-aliasing 8 columns of these come out black or white
    middle = square_resize(stripes, 8).numpy()[:, 2:-2]
    assert middle.dtype == np.uint8 and 110 < middle.min() and middle.max() < 146


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_is_resized_in_the_same_way(tmp_path, channels):
    image_module = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, channels)).astype("uint8")
    picture = image_module.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    picture.save(tmp_path / "a.png")
    for size in (16, 60, 128):
        found = load_image_folder(tmp_path, size, channels).images[0].astype(int)
        assert np.abs(found - square_resize(pixels, size).numpy()).max() <= (size != 60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels", "classes"),
    [("cifar10", 3, 10), ("fashion_mnist", 1, 10), ("imagenet2012", 3, 1000)],
)
def test_load_tfds(name, channels, classes, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=11):
        dataset, info = load_tfds(name, "train", 16, batch_size=4, data_dir=str(tmp_path))
        assert info.image_shape == (16, 16, channels) and info.num_classes == classes
        assert len(info.class_names) == classes and info.steps_per_epoch == info.num_images // 4
        images, labels = next(iter(dataset))
    assert images.shape == (4, 16, 16, channels) and images.dtype == tf.uint8
    assert labels.shape == (4,) and labels.dtype == tf.int32


@pytest.mark.slow
def test_load_tfds_mirrors_half_of_the_images_also_after_resuming(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    def load(**kwargs):
        with tfds.testing.mock_data(num_examples=50):
            dataset, _ = load_tfds("cifar10", data_dir=str(tmp_path), batch_size=7, **kwargs)
            return np.stack([images for images, _ in dataset.take(9)])

    plain, flipped = load(), load(flip=True)
    mirrored = (flipped == plain[:, :, :, ::-1]).all(axis=(2, 3, 4))
    places = np.arange(9 * 7)  # an epoch has 7 batches of 7 images
    want = [is_flipped(0, epoch, places[:49])[: 63 - 49 * epoch] for epoch in (0, 1)]
    np.testing.assert_array_equal(mirrored.ravel(), np.concatenate(want)[:63])
    np.testing.assert_array_equal(flipped[~mirrored], plain[~mirrored])
    np.testing.assert_array_equal(load(flip=True, start_step=6)[:3], flipped[6:])


@pytest.fixture(scope="module")
def stored_set(tmp_path_factory):
    """A data set of 13 PNG images, stored by TFDS itself in 3 files, in the folder returned."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("importlib_resources")  # TFDS 4.9.10 can't write a set without

    class TinyKerasSagan(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 1)),
                "label": tfds.features.ClassLabel(num_classes=13),
                "file_name": tfds.features.Text(),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(13):
                image = np.full((6 + index, 8, 1), 10 * index, "uint8")
                yield index, {"image": image, "label": index, "file_name": f"{index}.png"}

    folder = str(tmp_path_factory.mktemp("tfds"))
    builder = TinyKerasSagan(data_dir=folder)
    config = tfds.download.DownloadConfig(num_shards=3)
    builder.download_and_prepare(download_config=config)
    return folder


def load_stored(folder, **kwargs):
    kwargs = {"image_size": 4, "batch_size": 3, "seed": 5, "shuffle_buffer": 5, **kwargs}
    return load_tfds("tiny_keras_sagan", data_dir=folder, **kwargs)


@pytest.mark.slow
def test_load_tfds_gives_the_stored_images_of_a_slice(stored_set):
    dataset, info = load_stored(stored_set, split="train[:7]")
    assert info.num_images == 7 and info.steps_per_epoch == 2
    for images, labels in dataset.take(2):
        np.testing.assert_array_equal(images[:, 0, 0, 0], 10 * labels)


@pytest.mark.slow
def test_load_tfds_resumes_exactly_whatever_the_global_seed(stored_set):
    tf.random.set_seed(1)
    whole = labels_of(load_stored(stored_set)[0], 10)
    epochs = [sum(whole[:4], []), sum(whole[4:8], [])]
    assert all(len(set(epoch)) == 12 for epoch in epochs) and epochs[0] != epochs[1]
    assert labels_of(load_stored(stored_set, seed=6)[0], 10) != whole
    for start_step in (4, 6):
        tf.random.set_seed(start_step)
        rest, _ = load_stored(stored_set, start_step=start_step)
        assert labels_of(rest, 10 - start_step) == whole[start_step:]
    moved = load_stored(stored_set)[0].map(lambda *batch: batch).at_step(6)
    assert start_step_of(moved) == 6
    assert labels_of(moved, 4) == whole[6:]
    assert labels_of(load_stored(stored_set, order="index_shuffle")[0], 10) != whole
    stored = labels_of(load_stored(stored_set, shuffle=False)[0], 8)
    assert stored[:4] == stored[4:] != whole[:4]


@pytest.mark.slow
def test_load_tfds_opens_files_by_groups(stored_set, monkeypatch, tmp_path):
    import shutil

    monkeypatch.setattr("keras_sagan.data.tfds._FILES_AT_ONCE", 1)
    for shuffle in (True, False):
        whole = labels_of(load_stored(stored_set, shuffle=shuffle)[0], 8)
        assert len(set(sum(whole[:4], []))) == 12
        for start_step in (2, 7) if shuffle else (1, 5):
            rest, _ = load_stored(stored_set, shuffle=shuffle, start_step=start_step)
            assert labels_of(rest, 8 - start_step) == whole[start_step:]
    # The file before the position isn't read, nor is it opened.
    shutil.copytree(stored_set, tmp_path / "tfds")
    sorted((tmp_path / "tfds").rglob("*.tfrecord*"))[0].unlink()
    rest, _ = load_stored(str(tmp_path / "tfds"), shuffle=False, start_step=2)
    assert labels_of(rest, 2) == whole[2:4]


def test_load_tfds_names_an_unknown_split(stored_set):
    with pytest.raises(ValueError, match="Unknown split 'nowhere'.*'train'"):
        load_stored(stored_set, split="nowhere")


def test_load_tfds_gives_images_alone_where_they_have_no_class():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=8):
        dataset, info = load_tfds("celeb_a", batch_size=4)
        assert next(iter(dataset)).shape == (4, 32, 32, 3)
    assert (info.num_classes, info.class_names, info.steps_per_epoch) == (None, None, 2)


def test_load_tfds_refuses_sets_without_images():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=4):
        with pytest.raises(ValueError, match="`name` must be a TFDS .*name='titanic' with feat"):
            load_tfds("titanic")


def test_load_tfds_downloads_by_known_digests_alone(monkeypatch, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    taken = []

    class Refused(Exception):
        pass

    def download_and_prepare(self, download_config=None, **kwargs):
        taken.append(download_config)
        raise Refused

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    with pytest.raises(Refused):
        load_tfds("cifar10", data_dir=str(tmp_path))
    assert taken[0].force_checksums_validation and not taken[0].try_download_gcs


@pytest.mark.parametrize("argument", ["image_size", "shuffle_buffer"])
def test_load_tfds_refuses_sizes_below_one(argument):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match=f"`{argument}` must be a positive .*{argument}=0"):
        load_tfds("cifar10", **{argument: 0})


@pytest.mark.parametrize("package", ["tensorflow_datasets", "importlib_resources"])
def test_load_tfds_without_its_packages_gives_the_pip_line(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    if package != "tensorflow_datasets":  # which TFDS needs in places that depend on its release
        tfds = pytest.importorskip("tensorflow_datasets")

        def builder(*args, **kwargs):
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)

        monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(ImportError, match=rf'`{package}` .*pip install "\.\[data\]"'):
        load_tfds("cifar10", data_dir=str(tmp_path))
