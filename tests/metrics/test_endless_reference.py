"""Real images without end are refused at once, and counted where `num_reference` is given."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sagan.callbacks import FIDEvaluator
from keras_sagan.data import make_dataset
from keras_sagan.metrics import (
    FeatureExtraction,
    FrechetInceptionDistance,
    ReferenceStatistics,
    evaluate_generator,
    evaluate_images,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1)).astype("uint8")
BATCHES = IMAGES.reshape(3, 4, 4, 4, 1)


def features(images):
    return images[:, ::2, 0, 0]


class Batches(keras.utils.PyDataset):
    """Batches of 4, without end where `num_batches` is `None`."""

    def __init__(self, num_batches):
        super().__init__()
        self._num_batches = num_batches

    @property
    def num_batches(self):
        return self._num_batches

    def __getitem__(self, index):
        return BATCHES[index % 3]


class WithoutLength(keras.utils.PyDataset):
    def __getitem__(self, index):
        return BATCHES[index % 3]


class OldIterator(Batches):
    """As Keras's image generators of old: it knows its length, and never ends."""

    def __iter__(self):
        return itertools.cycle(BATCHES)


def finite():
    return tf.data.Dataset.from_tensor_slices(IMAGES).batch(4)


def pipeline():
    return make_dataset(IMAGES, batch_size=4, shuffle=False)


def streamed():
    """Endless in a way of which `cardinality()` knows nothing, as `load_tfds` is."""
    return tf.data.Dataset.counter().flat_map(lambda epoch: finite())


ENDLESS = {
    "make_dataset": pipeline,
    "make_dataset, mapped": lambda: pipeline().map(lambda x: 255 - x),
    "make_dataset, filtered": lambda: pipeline().filter(lambda x: True).prefetch(1),
    "repeat": lambda: finite().repeat(),
    "zip": lambda: tf.data.Dataset.zip(streamed(), pipeline()).map(lambda x, y: x),
    "flat_map": streamed,
    "filter": lambda: finite().repeat().filter(lambda x: True),
    "concatenate": lambda: finite().filter(lambda x: True).concatenate(streamed()),
    "iterator": lambda: iter(finite().repeat()),
    "numpy iterator": lambda: finite().repeat().as_numpy_iterator(),
    "cycle": lambda: itertools.cycle(BATCHES),
    "PyDataset": lambda: Batches(None),
    "PyDataset without a length": WithoutLength,
}
FINITE = {
    "arrays": lambda: IMAGES,
    "list": lambda: list(BATCHES),
    "generator": lambda: (x for x in BATCHES),
    "dataset": finite,
    "one epoch": lambda: make_dataset(IMAGES, batch_size=4, shuffle=False, repeat=False),
    "take": lambda: streamed().take(3),
    "take_while": lambda: finite().repeat().enumerate().take_while(lambda i, x: i < 3).map(second),
    "zip": lambda: tf.data.Dataset.zip(streamed(), finite()).map(lambda x, y: x),
    "itertools.repeat": lambda: itertools.repeat(BATCHES[0], 3),
    "PyDataset": lambda: Batches(3),
    "old iterator": lambda: OldIterator(3),
}
REFUSED = r"`num_reference` must be given for endless images.*Received: num_reference=None"


def second(index, images):
    return images


def compute(images, **kwargs):
    return ReferenceStatistics.compute(images, FeatureExtraction(features), "numbers", **kwargs)


def evaluator(images, **kwargs):
    return FIDEvaluator(FrechetInceptionDistance(features), images, num_images=4, **kwargs)


def score(reference, **kwargs):
    return evaluate_images(
        IMAGES, reference, "fid", feature_extractor=features, verbose=False, **kwargs
    )


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_images_are_refused(name):
    for use in (compute, evaluator, score):
        with pytest.raises(ValueError, match=REFUSED):
            use(ENDLESS[name]())


def test_a_generator_is_not_made_for_an_endless_reference():
    with pytest.raises(ValueError, match=REFUSED):
        evaluate_generator(
            keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]),
            streamed(),
            "fid",
            features,
            num_images=4,
        )


@pytest.mark.parametrize("name", ENDLESS)
def test_so_many_of_endless_images_are_taken(name):
    batches = [np.asarray(x) for x in itertools.islice(ENDLESS[name](), 3)]
    expected = compute(np.concatenate(batches)[:10])
    found = compute(ENDLESS[name](), num_reference=10)
    assert (found.num_images, found.info["sha256"]) == (10, expected.info["sha256"])


@pytest.mark.parametrize("name", FINITE)
def test_finite_images_are_read_to_their_end(name):
    assert compute(FINITE[name]()).num_images == 12
    metric = FrechetInceptionDistance(features)
    FIDEvaluator(metric, FINITE[name](), num_images=4).add_real_images()
    assert metric.num_images["real"] == 12


def test_evaluator_takes_the_first_images():
    expected = FrechetInceptionDistance(features)
    expected.update_state(IMAGES[:6], real=True)
    expected.update_state(IMAGES[6:], real=False)
    labeled = tf.data.Dataset.zip(finite(), tf.data.Dataset.range(12).batch(4)).repeat()
    for images in (pipeline(), labeled, IMAGES, (x for x in BATCHES)):
        metric = FrechetInceptionDistance(features)
        FIDEvaluator(metric, images, num_images=4, num_reference=6).add_real_images()
        metric.update_state(IMAGES[6:], real=False)
        assert metric.num_images["real"] == 6
        assert metric.result() == pytest.approx(expected.result(), abs=1e-9)


def test_cached_statistics_of_endless_images(tmp_path):
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    make = FeatureExtraction(network), "numbers", None, 12, tmp_path
    found = ReferenceStatistics.cached(streamed(), *make)
    assert found.num_images == 12
    assert found.info["sha256"] == compute(IMAGES).info["sha256"]
    assert ReferenceStatistics.cached(streamed(), *make).info == found.info


def test_too_few_images():
    match = "`num_reference` must be at most the number of images. Received: num_reference=13, 12"
    for images in (IMAGES, finite()):
        with pytest.raises(ValueError, match=match) as error:
            compute(images, num_reference=13)
        assert "generator" not in str(error.value)
    with pytest.raises(ValueError, match=match):
        evaluator(IMAGES, num_reference=13)
    with pytest.raises(ValueError, match="`num_reference` must be"):
        evaluator(IMAGES, num_reference=0)
    with pytest.raises(ValueError, match="`num_reference` must be"):
        compute(IMAGES, num_reference=1)


def test_a_generator_that_was_read_before_is_named():
    images = (x for x in BATCHES)
    assert compute(images).num_images == 12
    note = "A Python generator yields its images only once: pass an array"
    with pytest.raises(ValueError, match=note):
        compute(images)
    with pytest.raises(ValueError, match=note):
        compute(images, num_reference=4)
    with pytest.raises(ValueError, match=note):
        score(images)
    with pytest.raises(ValueError, match=note):
        evaluator(images).add_real_images()
