"""The metric: against its definition, against TF-GAN, its ranges and its errors."""

import keras
import numpy as np
import pytest

from keras_sagan.metrics import FrechetInceptionDistance, GreyClassifierFeatures, load_tfgan_eval
from keras_sagan.metrics.frechet_inception_distance import frechet_distance_of_samples


def flat(images):
    """The simplest extractor: the pixels themselves."""
    return np.reshape(images, (len(images), -1))


def pixels(count, seed, low=0, high=256, shape=(4, 4, 1)):
    generator = np.random.default_rng(seed)
    return generator.integers(low, high, (count, *shape)).astype("uint8")


def filled(real, generated, **kwargs):
    fid = FrechetInceptionDistance(flat, **kwargs)
    fid.update_state(real, real=True)
    fid.update_state(generated, real=False)
    return fid


def reference(real, generated):
    """The definition, from samples in [-1, 1]."""
    a, b = (flat(x).astype("float64") / 127.5 - 1.0 for x in (real, generated))
    values = np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T))
    root = np.sqrt(np.clip(values.real, 0, None)).sum()
    gap = np.sum((a.mean(0) - b.mean(0)) ** 2)
    return gap + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * root


def test_equals_the_definition_whatever_the_batches():
    real, generated = pixels(200, 0), pixels(150, 1, 0, 200)
    fid = FrechetInceptionDistance(flat, batch_size=32)
    for start in range(0, 200, 70):
        fid.update_state(real[start : start + 70], real=True)
    fid.update_state(generated, real=False)
    assert isinstance(fid.result(), float)
    assert fid.result() == pytest.approx(reference(real, generated), rel=1e-5)
    assert fid.num_images == {"real": 200, "generated": 150}


@pytest.mark.slow
@pytest.mark.parametrize("count", [300, 12])  # 12 samples of 16 dimensions: singular
def test_equals_tfgan(count):
    tf = pytest.importorskip("tensorflow")
    tfgan_eval = load_tfgan_eval()
    real, generated = pixels(count, 0), pixels(count, 1, 30, 250)
    a, b = (tf.constant(flat(x) / 127.5 - 1.0, "float64") for x in (real, generated))
    expected = float(tfgan_eval.frechet_classifier_distance_from_activations(a, b))
    assert filled(real, generated).result() == pytest.approx(expected, rel=1e-5)


def test_where_tfgan_differs_it_is_by_its_threshold():
    """TF-GAN takes no root of values below 1e-10: singular values below 1e-5 count as squares."""
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    scales = np.logspace(-1, -4, 64)
    first, second = (rng.standard_normal((200, 64)) * scales * factor for factor in (1.0, 1.1))
    sides = [(x - x.mean(0)) / np.sqrt(199) for x in (first, second)]
    values = np.linalg.svd(sides[0] @ sides[1].T, compute_uv=False)
    small = values[values < 1e-5]
    result = frechet_distance_of_samples(first, second)
    distance = load_tfgan_eval().frechet_classifier_distance_from_activations
    expected = float(distance(*(tf.constant(x, "float64") for x in (first, second))))
    assert abs(result / expected - 1.0) > 1e-3
    assert result + 2.0 * np.sum(small - small**2) == pytest.approx(expected, rel=1e-8)


def test_all_ways_to_write_the_same_images_agree():
    real, generated = pixels(50, 0), pixels(50, 1, 0, 200)
    expected = filled(real, generated).result()
    minus_one = [x / np.float32(127.5) - 1 for x in (real, generated)]
    assert filled(*minus_one, value_range=(-1, 1)).result() == pytest.approx(expected, rel=1e-5)
    unit = [x / np.float64(255) for x in (real, generated)]
    assert filled(*unit, value_range=(0, 1)).result() == pytest.approx(expected, rel=1e-5)
    wide = [x.astype("float16") for x in (real, generated)]
    assert filled(*wide, value_range=(0, 255)).result() == pytest.approx(expected, rel=1e-5)
    mixed = filled(real, minus_one[1], value_range=(-1, 1))  # uint8 is [0, 255] all the same
    assert mixed.result() == pytest.approx(expected, rel=1e-5)


def test_the_extractor_gets_float32_in_model_space_and_small_batches():
    seen = []

    def extractor(images):
        seen.append(images)
        return flat(images)

    fid = FrechetInceptionDistance(extractor, batch_size=3)
    fid.update_state(np.array([[0], [255]] * 4, "uint8").reshape(8, 1, 1, 1), real=True)
    assert [len(images) for images in seen] == [3, 3, 2]
    assert all(images.dtype == np.float32 for images in seen)
    assert {float(value) for images in seen for value in images.ravel()} == {-1.0, 1.0}


def test_a_keras_model_is_called_for_inference_and_its_maps_are_flattened():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Dropout(0.9), keras.layers.Conv2D(2, 3)]
    )
    fid = FrechetInceptionDistance(model)
    fid.update_state(pixels(20, 0), real=True)
    fid.update_state(pixels(20, 0), real=False)
    assert fid.result() < 1e-6


def test_tensors_of_the_backend_are_taken_and_an_empty_batch_changes_nothing():
    fid = FrechetInceptionDistance(flat)
    fid.update_state(keras.ops.convert_to_tensor(pixels(5, 0)), real=np.bool_(True))
    fid.update_state(np.zeros((0, 4, 4, 1), "uint8"), real=True)
    assert fid.num_images == {"real": 5, "generated": 0}


def test_identical_sets_give_zero_and_single_colours_no_nan():
    images = pixels(10, 0)
    assert 0.0 <= filled(images, images).result() < 1e-9
    black, white = np.zeros((3, 4, 4, 1), "uint8"), np.full((3, 4, 4, 1), 255, "uint8")
    assert filled(black, white).result() == pytest.approx(16 * 4.0)


def test_reset_keeps_the_real_images_unless_told():
    fid = filled(pixels(10, 0), pixels(10, 1))
    fid.reset_state()
    assert fid.num_images == {"real": 10, "generated": 0}
    fid.reset_state(reset_real=True)
    assert fid.num_images == {"real": 0, "generated": 0}


def test_direction_name_and_protocol():
    fid = filled(pixels(10, 0), pixels(11, 1))
    assert fid._direction == "down" and fid.name == "fid"
    assert fid.protocol["num_real"] == 10 and fid.protocol["num_generated"] == 11
    grey = FrechetInceptionDistance(GreyClassifierFeatures(), name="grey_fid")
    assert "sha256:" in grey.protocol["feature_extractor"] and grey.name == "grey_fid"


def test_config_round_trip():
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    for extractor in (model, GreyClassifierFeatures()):
        fid = FrechetInceptionDistance(extractor, value_range=(-1, 1), name="f", batch_size=7)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(fid))
        assert isinstance(again, FrechetInceptionDistance)
        assert type(again.feature_extractor) is type(extractor)
        assert (again.value_range, again.name, again.batch_size) == ((-1.0, 1.0), "f", 7)


def test_an_extractor_without_a_config_cannot_be_saved():
    with pytest.raises(
        ValueError, match="`feature_extractor` must be .*for the metric to be saved"
    ):
        FrechetInceptionDistance(flat).get_config()


def test_an_error_leaves_the_statistics_as_they_were():
    calls = []

    def breaks_on_the_second_call(images):
        calls.append(1)
        return flat(images) * (np.nan if len(calls) == 2 else 1.0)

    fid = FrechetInceptionDistance(breaks_on_the_second_call, batch_size=4)
    with pytest.raises(ValueError, match="`feature_extractor` must return finite.*4 of 4 images"):
        fid.update_state(pixels(8, 0), real=True)
    assert fid.num_images["real"] == 0


@pytest.mark.parametrize("counts", [(1, 5), (5, 1), (0, 0)])
def test_too_few_images_are_refused(counts):
    fid = filled(pixels(counts[0], 0), pixels(counts[1], 1))
    with pytest.raises(
        ValueError, match=rf"needs at least 2 real and 2.*Received: {counts[0]} real"
    ):
        fid.result()


@pytest.mark.parametrize("sides", [(True, True), (True, False)])
def test_features_of_another_width_are_refused(sides):
    fid = FrechetInceptionDistance(flat)
    fid.update_state(pixels(3, 0), real=sides[0])
    with pytest.raises(ValueError, match="`feature_extractor` .*same width.*width 16.*width 25"):
        fid.update_state(pixels(3, 0, shape=(5, 5, 1)), real=sides[1])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 4, 1), "uint8"), r"`images` must have shape .*Received: images.shape=\(4"),
        (np.zeros((2, 4, 4, 1), "int32"), "`images` must be uint8 .*Received: .*int32"),
        (
            np.zeros((2, 4, 4, 1), "float32"),
            "`value_range` is given.*float32 images and value_range=None",
        ),
        ([1, 2], "`images` must be .*one concrete array or tensor.*Received: list"),
        ("x.png", "`images` must have shape"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        FrechetInceptionDistance(flat).update_state(images, real=True)


@pytest.mark.parametrize("value", [-1.5, 1.001, 200.0, np.nan, np.inf])
def test_float_images_outside_their_range_are_refused(value):
    images = np.zeros((2, 4, 4, 1), "float32")
    images[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"`images` must be finite and within value_range=\(-1, 1"):
        FrechetInceptionDistance(flat, value_range=(-1, 1)).update_state(images, real=False)


def test_symbolic_images_are_refused():
    with pytest.raises(ValueError, match="`images` must be .*concrete"):
        FrechetInceptionDistance(flat).update_state(keras.Input((4, 4, 1)), real=True)


@pytest.mark.parametrize("real", ["yes", 1, None])
def test_real_must_be_a_boolean(real):
    with pytest.raises(ValueError, match="`real` must be True or False. Received: real="):
        FrechetInceptionDistance(flat).update_state(pixels(2, 0), real=real)


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        (lambda images: {"pool_3": images}, "`feature_extractor` must return.*'pool_3'"),
        (lambda images: np.zeros((1, 3)), r"`feature_extractor` must return features of shape \(2"),
        (lambda images: np.zeros((2, 0)), "`feature_extractor` must return features"),
        (lambda images: np.full((2, 3), np.inf), "`feature_extractor` must return finite"),
    ],
)
def test_extractors_that_return_nonsense_are_named(extractor, message):
    with pytest.raises(ValueError, match=message):
        FrechetInceptionDistance(extractor).update_state(pixels(2, 0), real=True)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"feature_extractor": "inception"}, "`feature_extractor` must be a function"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer. Received: batch_size=0"),
        ({"batch_size": True}, "`batch_size` must be a positive integer"),
        ({"value_range": (1, -1)}, "`value_range` must be None or a pair"),
        ({"value_range": 255}, "`value_range` must be None or a pair.*value_range=255"),
        ({"value_range": (0, np.inf)}, "`value_range` must be None or a pair"),
    ],
)
def test_arguments_out_of_range_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FrechetInceptionDistance(**{"feature_extractor": flat, **kwargs})
