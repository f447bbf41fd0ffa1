"""The metrics over features: one shape for all, and each equal to its function."""

import keras
import numpy as np
import pytest

from keras_sagan import metrics
from keras_sagan.metrics.features import FeatureMetric
from keras_sagan.metrics.frechet_inception_distance import (
    compute_moments,
    covariance,
    frechet_distance_of_samples,
)
from keras_sagan.metrics.frechet_inception_distance_infinity import frechet_distance_infinity
from keras_sagan.metrics.inception_score import inception_score
from keras_sagan.metrics.kernel_inception_distance import kernel_distance
from keras_sagan.metrics.precision_recall import manifold_scores

ALL = [
    metrics.DensityCoverage,
    metrics.FrechetInceptionDistance,
    metrics.FrechetInceptionDistanceInfinity,
    metrics.InceptionScore,
    metrics.IntraClassFrechetInceptionDistance,
    metrics.KernelInceptionDistance,
    metrics.Memorization,
    metrics.MongeInceptionDistance,
    metrics.PrecisionRecall,
]
COUNT = 60
LABELS = np.arange(COUNT) % 3


def flat(images):
    return np.reshape(images, (len(images), -1))


def pixels(seed, low=0, high=256, count=COUNT):
    generator = np.random.default_rng(seed)
    return generator.integers(low, high, (count, 2, 2, 1)).astype("uint8")


REAL, GENERATED = pixels(0), pixels(1, 20, 220)
A, B = (flat(x.astype("float32") / 127.5 - 1.0) for x in (REAL, GENERATED))


def filled(cls, **kwargs):
    metric = cls(flat, **kwargs)
    for start in range(0, COUNT, 25):
        part = slice(start, start + 25)
        metric.update_state(REAL[part], real=True, labels=LABELS[part])
        metric.update_state(GENERATED[part], real=False, labels=LABELS[part])
    return metric


def test_kernel_distance_with_its_interval():
    result = filled(metrics.KernelInceptionDistance, max_block_size=20, shuffle_seed=None).result()
    distance, error = kernel_distance(A, B, 20)
    assert result == pytest.approx(
        {
            "kid": distance,
            "kid_std_error": error,
            "kid_low": distance - 1.96 * error,
            "kid_high": distance + 1.96 * error,
        },
        rel=1e-9,
    )
    single = filled(metrics.KernelInceptionDistance, name="k").result()
    assert np.isnan([single["k_std_error"], single["k_low"], single["k_high"]]).all()
    assert single["k"] == pytest.approx(kernel_distance(A, B)[0], rel=1e-9)


def test_kernel_distance_of_sorted_images_needs_the_shuffle():
    """Real images sorted by brightness against the same ones: only shuffled blocks agree."""
    ramp = np.linspace(0, 255, 400).astype("uint8").reshape(400, 1, 1, 1)
    values = {}
    for seed in (0, None):
        metric = metrics.KernelInceptionDistance(flat, max_block_size=50, shuffle_seed=seed)
        metric.update_state(ramp, real=True)
        metric.update_state(ramp[::-1], real=False)
        values[seed] = abs(metric.result()["kid"])
    assert values[0] < 0.05 * values[None]


def test_inception_score_by_splits_and_in_a_single_pass():
    result = filled(metrics.InceptionScore, num_splits=6, shuffle_seed=None).result()
    scores = inception_score(B, 6)
    assert result == pytest.approx(
        {
            "inception_score": scores.mean(),
            "inception_score_std": scores.std(),
            "inception_score_single": inception_score(B)[0],
        },
        rel=1e-6,
    )
    shuffled = filled(metrics.InceptionScore, num_splits=6).result()
    assert shuffled["inception_score_single"] == pytest.approx(inception_score(B)[0])
    assert shuffled["inception_score"] != result["inception_score"]


def test_inception_score_ignores_real_images():
    metric = metrics.InceptionScore(flat)
    metric.update_state("anything", real=True)
    assert metric.num_images == {"real": 0, "generated": 0}


class Classifier:
    """Gives its features and the same after a softmax, or without one."""

    version = "classifier"

    def __init__(self, has_softmax=True):
        self.has_softmax = has_softmax

    def __call__(self, images):
        return self.named_outputs(images)["features"]

    def named_outputs(self, images):
        logits = flat(images)
        return {"features": logits, "logits": softmax(logits) if self.has_softmax else logits}


def softmax(logits):
    return np.asarray(keras.ops.softmax(logits))


@pytest.mark.parametrize("batch", [5, COUNT])
@pytest.mark.parametrize("way", ["update_state", "update_features"])
def test_an_extractor_that_ends_in_a_softmax_is_refused_or_declared(way, batch):
    def values(**kwargs):
        metric = metrics.InceptionScore(Classifier(), **kwargs)
        for start in range(0, COUNT, batch):
            part = slice(start, start + batch)
            if way == "update_state":
                metric.update_state(GENERATED[part], real=False)
            else:
                metric.update_features(softmax(B[part]), real=False)
        return metric.values()

    with pytest.raises(ValueError, match="`feature_extractor` without a softmax.*probabilities"):
        values()
    assert values(from_logits=False) == pytest.approx(
        filled(metrics.InceptionScore).values(), rel=1e-5
    )
    metric = metrics.InceptionScore(Classifier(has_softmax=False), from_logits=False)
    metric.update_state(GENERATED, real=False)
    with pytest.raises(ValueError, match="`from_logits=False`.*needs probabilities"):
        metric.result()
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    config = metrics.InceptionScore(model, from_logits=False).get_config()
    assert metrics.InceptionScore.from_config(config).from_logits is False


def test_precision_recall_density_and_coverage():
    scores = manifold_scores(A, B, 4)
    first = filled(metrics.PrecisionRecall, nearest_k=4).result()
    second = filled(metrics.DensityCoverage, nearest_k=4, name="a").result()
    assert first == {"precision": scores.precision, "recall": scores.recall}
    assert second == {"a_density": scores.density, "a_coverage": scores.coverage}


def test_distance_of_infinitely_many():
    moments = compute_moments(A)
    expected = frechet_distance_infinity(moments.mean, covariance(moments), B, 7, 3)[0]
    result = filled(metrics.FrechetInceptionDistanceInfinity, num_points=7, seed=3).result()
    assert result == pytest.approx(expected, rel=1e-9)


def test_distance_within_classes():
    metric = filled(metrics.IntraClassFrechetInceptionDistance)
    per_class = metric.per_class()
    expected = {i: frechet_distance_of_samples(A[LABELS == i], B[LABELS == i]) for i in range(3)}
    assert per_class == pytest.approx(expected, rel=1e-9)
    assert metric.result() == pytest.approx(np.mean(list(expected.values())), rel=1e-9)


@pytest.mark.parametrize("cls", ALL)
def test_values_directions_and_protocol(cls):
    metric = filled(cls)
    values = metric.values()
    assert metric._direction in ("up", "down") and metric.name
    assert values and all(type(value) is float for value in values.values())
    protocol = metric.protocol
    assert (
        protocol["num_generated"] == COUNT
        and protocol["feature_extractor"] == "flat, without a version"
    )
    assert protocol["num_real"] in (COUNT, 0) and protocol["metric"] == metric.definition
    assert protocol["resize"] == "the extractor's own" and "keras" in protocol["versions"]


SLOW = {
    metrics.KernelInceptionDistance: {"max_block_size": 20},
    metrics.PrecisionRecall: {},
    metrics.DensityCoverage: {},
    metrics.FrechetInceptionDistanceInfinity: {},
    metrics.IntraClassFrechetInceptionDistance: {},
}


@pytest.mark.parametrize("cls", SLOW)
def test_a_bar_where_the_score_itself_takes_more_than_ten_seconds(cls, monkeypatch, capsys):
    ticks = iter(range(0, 10**6, 4))
    monkeypatch.setattr("keras_sagan.checks.time.monotonic", lambda: next(ticks))
    monkeypatch.setattr("keras_sagan.metrics.precision_recall.ROWS", 20)
    metric = filled(cls, **SLOW[cls])
    metric.result()
    shown = capsys.readouterr().out
    assert shown.startswith(f"{metric.name}\n") and "/image" in shown
    metric.verbose = False
    metric.result()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("cls", ALL)
def test_the_batches_do_not_matter(cls):
    whole = cls(flat, batch_size=7)
    whole.update_state(REAL, real=True, labels=LABELS)
    whole.update_state(GENERATED, real=False, labels=LABELS)
    assert whole.values() == pytest.approx(filled(cls).values(), rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("cls", ALL)
def test_features_of_ones_own_are_images_of_the_extractor(cls):
    metric = cls(flat)
    for features, real in ((A, True), (B, False)):
        metric.update_features(features, real=real, labels=LABELS)
    assert metric.values() == pytest.approx(filled(cls).values(), rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("cls", ALL)
def test_reset_keeps_the_real_images_unless_told(cls):
    metric = filled(cls)
    expected = metric.values()
    metric.reset_state()
    assert metric.num_images["generated"] == 0
    with pytest.raises(ValueError, match="needs at least"):
        metric.result()
    metric.update_state(GENERATED, real=False, labels=LABELS)
    assert metric.values() == pytest.approx(expected, rel=1e-6, nan_ok=True)
    metric.reset_state(reset_real=True)
    assert metric.num_images == {"real": 0, "generated": 0}
    metric.update_state(pixels(0)[:, :1], real=False, labels=LABELS)  # another width, anew


@pytest.mark.parametrize("cls", ALL)
def test_config_round_trip(cls):
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    metric = cls(model, value_range=(-1, 1), name="own", batch_size=9)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is cls and again.get_config() == metric.get_config()
    again.update_state(REAL, real=True, labels=LABELS)
    again.update_state(GENERATED, real=False, labels=LABELS)
    assert all(name.startswith("own") for name in again.values())


def test_settings_are_in_the_config():
    kid = metrics.KernelInceptionDistance(
        metrics.GreyClassifierFeatures(), max_block_size=9, shuffle_seed=None
    )
    assert metrics.KernelInceptionDistance.from_config(kid.get_config()).max_block_size == 9
    assert kid.get_config()["shuffle_seed"] is None


@pytest.mark.parametrize(
    ("cls", "count", "message"),
    [
        (metrics.PrecisionRecall, 3, "at least 4 real and 4 generated .*Received: 3 real"),
        (metrics.DensityCoverage, 5, "at least 6 real and 6 generated .*Received: 5 real"),
        (metrics.KernelInceptionDistance, 1, "at least 2 real .*Received: 1 real"),
        (metrics.FrechetInceptionDistanceInfinity, 19, "at least 20 real .*Received: 19 real"),
        (metrics.InceptionScore, 9, "at least 10 generated .*Received: 9 generated"),
        (metrics.IntraClassFrechetInceptionDistance, 5, ".* Received: 1 real and 1 .* 2"),
    ],
)
def test_too_few_images_are_refused(cls, count, message):
    metric = cls(flat)
    for real in (True, False):
        metric.update_state(REAL[:count], real=real, labels=LABELS[:count])
    with pytest.raises(ValueError, match=message):
        metric.result()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "be 5 class ids, one for each image. Received: labels=None"),
        (LABELS[:4], "be 5 class ids, one for each image. Received: 4 labels"),
        (np.zeros(5), "be integer class ids.*Received: labels of dtype float"),
        (np.zeros((5, 1), int), r"have shape \(batch,\).*Received: labels of shape \(5, 1\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    metric = metrics.IntraClassFrechetInceptionDistance(flat)
    with pytest.raises(ValueError, match=f"`labels` must {message}"):
        metric.update_state(REAL[:5], real=True, labels=labels)


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (metrics.KernelInceptionDistance, {"max_block_size": 1}),
        (metrics.KernelInceptionDistance, {"shuffle_seed": -1}),
        (metrics.InceptionScore, {"num_splits": 0}),
        (metrics.InceptionScore, {"shuffle_seed": 0.5}),
        (metrics.PrecisionRecall, {"nearest_k": 0}),
        (metrics.DensityCoverage, {"nearest_k": True}),
        (metrics.MongeInceptionDistance, {"num_projections": 0}),
        (metrics.MongeInceptionDistance, {"seed": -1}),
        (metrics.FrechetInceptionDistanceInfinity, {"num_points": 1}),
        (metrics.FrechetInceptionDistanceInfinity, {"seed": None}),
    ],
)
def test_settings_out_of_range_are_refused(cls, kwargs):
    ((name, value),) = kwargs.items()
    with pytest.raises(ValueError, match=f"`{name}` must be an integer .*Received: {name}={value}"):
        cls(flat, **kwargs)


@pytest.mark.parametrize("cls", ALL)
def test_the_image_with_bad_features_is_named(cls):
    """By its number in the whole pass, whatever the calls and the extractor's batches."""

    def bad(images):
        features = flat(images).astype("float32")
        features[features[:, 0] > 0.999] = np.nan
        return features

    images, labels = pixels(0, 0, 200, 200), np.zeros(200, int)
    images[137, 0, 0, 0] = 255
    message = "for 1 of {} images, the first one at index 137 of all images"
    metric = cls(bad, batch_size=30)
    metric.update_state(images[:100], real=False, labels=labels[:100])
    with pytest.raises(ValueError, match=message.format(30)):
        metric.update_state(images[100:], real=False, labels=labels[100:])
    features = flat(images / 255.0)
    features[137] = np.inf
    with pytest.raises(ValueError, match=message.format(100)):
        metric.update_features(features[100:], real=False, labels=labels[100:])
    assert metric.num_images["generated"] == 100


@pytest.mark.parametrize("dtype", ["float64", "uint8"])
@pytest.mark.parametrize("declared", [(-1, 1), (0, 255)])
def test_images_that_fill_half_of_the_range_are_pointed_out(declared, dtype):
    # The range of uint8 images is always [0, 255].
    images = np.random.default_rng(0).uniform(0, 1, (20, 2, 2, 1)).round().astype(dtype)
    metric = metrics.FrechetInceptionDistance(flat, value_range=declared)
    with pytest.warns(UserWarning, match="`images` fill no more than half of the range"):
        for start in range(0, 20, 5):  # also where no batch has many
            metric.update_state(images[start : start + 5], real=True)


def test_the_narrow_images_of_an_untrained_generator_are_not(recwarn):
    images = np.random.default_rng(0).integers(114, 142, (20, 2, 2, 1), dtype="uint8")
    metrics.FrechetInceptionDistance(flat).update_state(images, real=False)
    assert not list(recwarn)


def test_an_extractor_of_one_output_serves_no_two():
    from keras_sagan.metrics.extraction import FeatureExtraction

    with pytest.raises(
        ValueError, match="`feature_extractor` must return a dictionary, or have a method"
    ):
        FeatureExtraction(flat)(REAL, ("features", "logits"))


def test_widths_that_change_between_batches_are_refused():
    from keras_sagan.metrics.extraction import FeatureExtraction

    def narrower_at_the_end(images):
        return flat(images)[:, : len(images)]

    with pytest.raises(ValueError, match="the same width for all.*width 4. .*width 3"):
        FeatureExtraction(narrower_at_the_end, batch_size=4)(REAL[:7])


def test_a_subclass_must_compare_two_sets():
    class Nothing(FeatureMetric):
        needs = {"real": (), "generated": ()}

    with pytest.raises(NotImplementedError, match="Nothing must implement compare"):
        Nothing(flat, name="nothing").result()


# Properties of every distance and score, over one set of features.

RNG = np.random.default_rng(5)
CLOUD, OTHER = RNG.normal(size=(2, 240, 6))
CLASSES = np.arange(240) % 3
DISTANCES = {
    metrics.FrechetInceptionDistance: "fid",
    metrics.FrechetInceptionDistanceInfinity: "fid_infinity",
    metrics.IntraClassFrechetInceptionDistance: "intra_fid",
    metrics.KernelInceptionDistance: "kid",
    metrics.MongeInceptionDistance: "mind",
}
SYMMETRIC = [cls for cls in DISTANCES if cls is not metrics.FrechetInceptionDistanceInfinity]


def scores(cls, real, generated, classes=CLASSES, pieces=1, **kwargs):
    metric = cls(flat, **kwargs)
    for part in np.array_split(np.arange(len(real)), pieces):
        metric.update_features(real[part], real=True, labels=CLASSES[part])
        metric.update_features(generated[part], real=False, labels=classes[part])
    return metric.values()


@pytest.mark.parametrize("cls", DISTANCES)
def test_equal_sets_are_at_no_distance(cls):
    value = scores(cls, CLOUD, CLOUD)[DISTANCES[cls]]
    if cls in (metrics.KernelInceptionDistance, metrics.FrechetInceptionDistanceInfinity):
        # Without bias they are about zero on average, and below it for equal sets.
        assert value < 0 and abs(value) < 0.2 * scores(cls, CLOUD, CLOUD + 1)[DISTANCES[cls]]
    else:
        assert value == pytest.approx(0.0, abs=1e-9)


def test_equal_sets_have_all_precision_recall_and_coverage():
    assert scores(metrics.PrecisionRecall, CLOUD, CLOUD) == {"precision": 1.0, "recall": 1.0}
    assert scores(metrics.DensityCoverage, CLOUD, CLOUD)["coverage"] == 1.0


@pytest.mark.parametrize("cls", SYMMETRIC)
def test_distances_are_symmetric(cls):
    first = scores(cls, CLOUD, OTHER + 0.3)[DISTANCES[cls]]
    assert scores(cls, OTHER + 0.3, CLOUD)[DISTANCES[cls]] == pytest.approx(first, rel=1e-9)


def test_precision_and_recall_change_places_with_the_sets():
    there = scores(metrics.PrecisionRecall, CLOUD, 0.6 * OTHER)
    back = scores(metrics.PrecisionRecall, 0.6 * OTHER, CLOUD)
    assert there["precision"] != there["recall"]
    assert there == {"precision": back["recall"], "recall": back["precision"]}


@pytest.mark.parametrize("cls", [*DISTANCES, metrics.PrecisionRecall, metrics.DensityCoverage])
def test_every_score_gets_worse_with_a_growing_shift(cls):
    found = [scores(cls, CLOUD, OTHER + shift) for shift in (0.0, 0.5, 1.0, 2.0, 4.0)]
    names = [DISTANCES[cls]] if cls in DISTANCES else list(found[0])
    for name in names:
        values = [x[name] for x in found]
        ordered = sorted(values, reverse=cls._direction == "up")
        assert values == ordered and values[0] != values[-1], (name, values)


@pytest.mark.parametrize("cls", ALL)
def test_the_order_of_the_images_does_not_matter(cls):
    order = np.random.default_rng(0).permutation(240)
    first = scores(cls, CLOUD, OTHER)
    again = scores(cls, CLOUD, OTHER[order], CLASSES[order])
    if cls is metrics.InceptionScore:  # The splits are others; the single pass isn't.
        first, again = ({"x": x["inception_score_single"]} for x in (first, again))
    if cls is not metrics.FrechetInceptionDistanceInfinity:  # Its subsets are others.
        assert again == pytest.approx(first, rel=1e-9, nan_ok=True)


def test_sorted_images_are_extrapolated_like_others():
    """A single value depends on the subsets that were drawn, their mean over many seeds doesn't."""

    def values(generated):
        metric = metrics.FrechetInceptionDistanceInfinity
        found = [scores(metric, CLOUD, generated, seed=seed) for seed in range(24)]
        return np.array([x["fid_infinity"] for x in found])

    first, again = values(OTHER), values(OTHER[np.argsort(OTHER[:, 0])])
    error = np.sqrt((first.var() + again.var()) / len(first))
    assert abs(first.mean() - again.mean()) < 3 * error < first.mean() / 2


@pytest.mark.parametrize("cls", ALL)
def test_pieces_over_badly_scaled_features_equal_one_pass(cls):
    scales = 10.0 ** np.linspace(-4, 4, 6)
    real, generated = (CLOUD + 100.0) * scales, (OTHER + 100.5) * scales
    if cls is metrics.InceptionScore:
        generated = OTHER
    whole = scores(cls, real, generated)
    assert scores(cls, real, generated, pieces=17) == pytest.approx(whole, rel=1e-7, nan_ok=True)
