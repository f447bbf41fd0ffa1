"""Batches by step on any backend; `integration/test_backends.py` runs this on JAX and PyTorch."""

import itertools
import types

import keras
import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan.data import load_image_folder, make_dataset
from keras_sagan.data.order import is_flipped, permutation
from keras_sagan.data.position import at_step, start_step_of

BACKEND = keras.backend.backend()
IMAGES = np.random.default_rng(0).integers(0, 256, (23, *tiny.SHAPE)).astype("uint8")
LABELS = tiny.labels(23)
NUMBERS = np.arange(23)
STEPS = 4  # of 5 images each in an epoch


def numbered(**kwargs):
    """Batches whose labels are the numbers of the images."""
    return make_dataset(IMAGES, NUMBERS, **{"batch_size": 5, "seed": 3, **kwargs})


def labels_of(dataset, steps=None):
    return [np.asarray(labels).tolist() for _, labels in itertools.islice(dataset, steps)]


def expected(steps, start=0):
    """The numbers of images by step, from the order alone."""
    return [
        permutation(3, step // STEPS, 23)[step % STEPS * 5 :][:5].tolist()
        for step in range(start, start + steps)
    ]


def test_the_batches_are_the_same_on_every_backend():
    dataset = numbered()
    assert isinstance(dataset, keras.utils.PyDataset) == (BACKEND != "tensorflow")
    assert labels_of(dataset, 12) == expected(12)
    for images, labels in itertools.islice(dataset, 6):
        assert np.asarray(images).dtype == np.uint8 and np.asarray(labels).dtype == np.int32
        np.testing.assert_array_equal(images, IMAGES[np.asarray(labels)])


def test_images_alone():
    (batch,) = itertools.islice(make_dataset(IMAGES, batch_size=5, shuffle=False), 1)
    np.testing.assert_array_equal(batch, IMAGES[:5])


@pytest.mark.parametrize("shuffle", [True, False])
def test_flips_depend_on_the_seed_the_epoch_and_the_image(shuffle):
    dataset = numbered(flip=True, shuffle=shuffle)
    for step, (images, numbers) in enumerate(itertools.islice(dataset, 3 * STEPS)):
        numbers = np.asarray(numbers)
        mirrored = is_flipped(3, step // STEPS, numbers)
        expected = [IMAGES[n][:, ::-1] if m else IMAGES[n] for n, m in zip(numbers, mirrored)]
        np.testing.assert_array_equal(images, expected)
        if step in (3, 6):
            (again,) = itertools.islice(dataset.at_step(step), 1)
            np.testing.assert_array_equal(again[0], images)


def test_flips_are_even_and_differ():
    """Each of 100 epochs, and each of 1,000 images, has about as many of either kind."""
    found = np.stack([is_flipped(5, epoch, np.arange(1000)) for epoch in range(100)])
    assert np.abs(found.mean(axis=1) - 0.5).max() < 5 * 0.5 / np.sqrt(1000)
    assert np.abs(found.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(100)
    assert abs(np.mean(found == is_flipped(6, 0, np.arange(1000))) - 0.5) < 0.02


def test_a_data_set_from_another_step():
    for start in (1, 4, 7, 400):
        assert labels_of(numbered(start_step=start), 6) == expected(6, start)
        assert labels_of(numbered(start_step=2).at_step(start), 6) == expected(6, start)
        assert labels_of(at_step(numbered(), start), 6) == expected(6, start)
    assert start_step_of(numbered()) == 0
    assert start_step_of(numbered(start_step=9)) == numbered().at_step(9).start_step == 9
    with pytest.raises(ValueError, match=r"`step` must be an integer in \[0, 2.*step=-1"):
        numbered().at_step(-1)


def test_data_that_end():
    dataset = numbered(repeat=False)
    assert labels_of(dataset) == labels_of(dataset) == expected(4)
    assert labels_of(dataset.at_step(6)) == expected(2, 6)
    assert start_step_of(dataset) is None


def test_data_without_a_position():
    assert start_step_of(IMAGES) is None
    assert start_step_of(types.SimpleNamespace(start_step=3)) is None  # An attribute of a user's.


def fitted(data, **kwargs):
    keras.utils.set_random_seed(1)
    model = tiny.build_small_sagan()
    model.compile(**tiny.sgd())
    history = model.fit(data, verbose=0, **kwargs)
    return model, history.history


def test_fit_sees_each_batch_once_and_in_order():
    def batches():
        for numbers in expected(6, start=3):
            yield IMAGES[numbers], LABELS[numbers]

    dataset = make_dataset(IMAGES, LABELS, batch_size=5, seed=3, start_step=3)
    model, _ = fitted(dataset, epochs=3, steps_per_epoch=2)
    other, _ = fitted(batches(), epochs=3, steps_per_epoch=2)
    assert int(keras.ops.convert_to_numpy(model.steps)) == 6
    for value, same in zip(tiny.weights(model), tiny.weights(other)):
        np.testing.assert_array_equal(value, same)


def test_data_that_end_in_fit_and_evaluate():
    dataset = make_dataset(IMAGES, LABELS, batch_size=5, shuffle=False, repeat=False)
    model, history = fitted(dataset, epochs=2, validation_data=dataset)
    assert int(keras.ops.convert_to_numpy(model.steps)) == 2 * STEPS
    results = model.evaluate(dataset, verbose=0, return_dict=True)
    arrays = model.evaluate(IMAGES[:20], LABELS[:20], 5, verbose=0, return_dict=True)
    for name, value in results.items():
        assert value == pytest.approx(arrays[name], abs=1e-6)
        assert value == pytest.approx(history[f"val_{name}"][-1], abs=1e-6)


def test_a_streamed_folder_gives_the_same_batches(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for index in range(9):
        pixels = rng.integers(0, 256, (30 + index, 40, 3)).astype("uint8")
        image_module.fromarray(pixels).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    found, streamed = (load_image_folder(tmp_path, 8, stream=x) for x in (False, True))
    assert streamed.images.shape == found.images.shape == (9, 8, 8, 3)
    assert len(streamed.images) == 9 and streamed.images.dtype == np.uint8
    assert streamed.broken == found.broken and len(found.broken) == 1
    for index in (0, -1, slice(2, 5), np.array([3, 1]), slice(0, 0)):
        np.testing.assert_array_equal(streamed.images[index], found.images[index])
    for kwargs in ({}, {"repeat": False}, {"labels": NUMBERS[:9], "start_step": 5}):
        both = (make_dataset(x.images, batch_size=2, **kwargs) for x in (found, streamed))
        for batch, same in zip(*(itertools.islice(x, 9) for x in both)):
            for value, other in zip(keras.tree.flatten(batch), keras.tree.flatten(same)):
                np.testing.assert_array_equal(value, other)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(Exception, match="png can no longer be read"):
        list(itertools.islice(make_dataset(streamed.images, batch_size=2), 9))


@pytest.mark.skipif(BACKEND == "tensorflow", reason="has the old order")
def test_the_old_order_needs_tensorflow():
    with pytest.raises(ValueError, match='`order` must be "splitmix64" on .*index_shuffle'):
        numbered(order="index_shuffle")


@pytest.mark.skipif(BACKEND != "jax", reason="JAX only")
def test_under_a_distribution_of_one_process_batches_are_whole():
    with keras.distribution.DataParallel().scope():
        assert labels_of(numbered(), 3) == expected(3)
