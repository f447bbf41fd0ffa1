"""`evaluate_generator` and `evaluate_images`: one pass, its protocol, baselines, interruptions."""

import itertools
import json
import tracemalloc
import warnings

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from replicas import two_replicas
from tiny_evaluation import ALL, Pixels, TinyGAN, measure, real_images

from keras_sagan import metrics
from keras_sagan.checks import Progress
from keras_sagan.metrics import evaluate_images
from keras_sagan.metrics.images import apportion_labels

PIXELS = Pixels()


def test_every_score_is_that_of_its_metric_alone():
    model = TinyGAN()
    report = measure(model, batch_size=16)
    source = metrics.images.GeneratedImages(TinyGAN(), 50, batch_size=50)
    ((images, labels),) = source.batches()
    real, real_labels = real_images()
    for name, cls in metrics.METRICS.items():
        metric = cls(Pixels())
        metric.update_state(real, real=True, labels=real_labels)
        metric.update_state(images, real=False, labels=labels)
        for key, value in metric.values().items():
            assert report.values[key] == pytest.approx(value, rel=1e-6, nan_ok=True), name
    assert len(model.made()) == 50 and report.protocol["num_generated"] == 50


def test_one_pass_of_features_for_all_metrics():
    extractor = Pixels()
    measure(extractor=extractor)
    assert extractor.images == 120 + 50 + 50  # real, generated, noise


@pytest.mark.parametrize("batch_size", [7, 50, 64])
def test_the_batch_size_does_not_matter(batch_size):
    expected, report = measure(batch_size=16), measure(batch_size=batch_size)
    assert report.values == pytest.approx(expected.values, rel=1e-6, nan_ok=True)
    assert report.baselines["noise"] == pytest.approx(
        expected.baselines["noise"], rel=1e-6, nan_ok=True
    )
    assert {**report.protocol} == {**expected.protocol}


@pytest.mark.slow
@pytest.mark.parametrize("standing_passes", [0, 2])
def test_a_networks_batches_do_not_matter_beyond_one_in_a_million(standing_passes):
    model = tiny.build_sagan_of_pictures()
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 1)).astype("uint8")
    kwargs = {"extractor": metrics.GreyClassifierFeatures(), "num_images": 30, "reference": images}
    kwargs["standing_passes"] = standing_passes
    first, second = (
        measure(model, metrics=("fid", "kid", "inception_score"), batch_size=n, **kwargs)
        for n in (7, 30)
    )
    # The spread of scores near 1 is small against them: there it is their own precision.
    assert second.values == pytest.approx(first.values, rel=1e-6, abs=1e-7, nan_ok=True)
    assert second.protocol == first.protocol


def test_the_image_with_bad_features_is_numbered_over_all_batches():
    class Bad(Pixels):
        def named_outputs(self, images):
            broken = self.images <= self.first < self.images + len(images)
            outputs = super().named_outputs(images)
            return {k: v * (np.nan if broken else 1.0) for k, v in outputs.items()}

    cases = ((37, "reference images.*index 32"), (120 + 21, "generated images.*index 16"))
    for first, message in cases:
        extractor = Bad()
        extractor.first = first  # in a batch that begins at that number
        with pytest.raises(ValueError, match=message):
            measure(extractor=extractor, metrics="fid", batch_size=16)


class Softmax(Pixels):
    """The same extractor with a softmax at its end."""

    def named_outputs(self, images):
        outputs = super().named_outputs(images)
        return {**outputs, "logits": keras.ops.softmax(outputs["logits"])}


@pytest.mark.parametrize("names", [("inception_score",), ("fid", "inception_score")])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_an_extractor_that_ends_in_a_softmax_is_refused_or_declared(names, batch_size):
    settings = {"batch_size": batch_size, "verbose": False}
    with pytest.raises(ValueError, match="`feature_extractor` without a softmax.*probabilities"):
        measure(extractor=Softmax(), metrics=names, **settings)
    images, real = real_images(60, seed=1)[0], real_images()[0]
    with pytest.raises(ValueError, match="`feature_extractor` without a softmax.*probabilities"):
        evaluate_images(images, real, names, Softmax(), **settings)
    extractor = Softmax()
    declared = [metrics.METRICS[name](extractor) for name in names[:-1]]
    declared += [metrics.InceptionScore(extractor, from_logits=False)]
    report = evaluate_images(images, real, declared, **settings)
    expected = evaluate_images(images, real, names, Pixels(), **settings)
    assert report.values == pytest.approx(expected.values, rel=1e-5)
    for name in ("real", "noise"):
        score = expected.baselines[name]["inception_score"]
        assert report.baselines[name]["inception_score"] == pytest.approx(score, rel=1e-5)


def test_labels_by_frequency_or_uniform_or_given():
    for labels, expected in (("uniform", [25, 25]), ("reference", [33, 17]), ([0] * 50, [50])):
        model = TinyGAN()
        report = measure(model, labels=labels, metrics="fid")
        assert np.bincount(model.made()).tolist() == expected
        assert report.protocol["labels"].split(",")[0] in (
            "uniform",
            "the reference's frequencies",
            "given",
        )


@pytest.mark.parametrize("count", [1, 9, 10, 11, 1000])
def test_apportioned_labels_follow_their_weights(count):
    weights = np.array([5, 0, 3, 2])
    labels = apportion_labels(weights, count, np.random.default_rng(0))
    numbers = np.bincount(labels, minlength=4)
    assert labels.dtype == np.int32 and numbers.sum() == count and numbers[1] == 0
    assert np.abs(numbers - weights * count / 10).max() < 1.0


def test_apportioned_labels_are_shuffled_by_the_generator():
    first, second, third = (
        apportion_labels(np.array([1, 1]), 50, np.random.default_rng(seed)).tolist()
        for seed in (0, 0, 1)
    )
    assert first == second != third and sorted(first) == sorted(third)


def test_the_baselines_are_real_images_and_noise():
    report = measure()
    real, noise = report.baselines["real"], report.baselines["noise"]
    assert set(report.values) <= set(real) and set(report.values) <= set(noise)
    assert real["num_images"] == 60 and "half of the reference" in real["note"]
    assert noise["num_images"] == 50
    # Real images are noise here: what is made is far from it.
    assert noise["fid"] < 0.5 * report.values["fid"]
    images, labels = real_images()
    fid = metrics.FrechetInceptionDistance(Pixels())
    fid.update_state(images[::2], real=True)
    fid.update_state(images[1::2], real=False)
    assert real["fid"] == pytest.approx(fid.result(), rel=1e-9)


def test_noise_has_all_classes_where_labels_stand_in_order():
    images, labels = real_images()
    order = np.argsort(labels, kind="stable")
    report = measure(reference=(images[order], labels[order]), metrics="intra_fid")
    assert np.isfinite(report.baselines["noise"]["intra_fid"])


def test_held_out_images_are_the_floor_where_they_are_given():
    report = measure(held_out=real_images(90, seed=5))
    floor = report.baselines["real"]
    assert floor["num_images"] == 90 and "note" not in floor
    fid = metrics.FrechetInceptionDistance(Pixels())
    fid.update_state(real_images()[0], real=True)
    fid.update_state(real_images(90, seed=5)[0], real=False)
    assert floor["fid"] == pytest.approx(fid.result(), rel=1e-9)


def test_a_set_against_itself_is_noted():
    images, labels = real_images(90, seed=5)
    report = metrics.evaluate_images(images, images.copy(), "fid", Pixels(), verbose=False)
    assert "The generated images are the reference images themselves" in report.notes
    report = metrics.evaluate_images(images, images[::-1], "fid", Pixels(), verbose=False)
    assert not any("themselves" in note for note in report.notes)


def test_a_score_that_the_halves_are_too_small_for_is_missing_with_a_note():
    report = measure(reference=real_images(8), metrics=("fid", "density_coverage"))
    assert "fid" in report.baselines["real"] and "density" not in report.baselines["real"]
    assert "no density_coverage: " in report.baselines["real"]["note"]


def test_halves_without_features_have_no_extrapolated_distance():
    real = measure(metrics="fid_infinity").baselines["real"]
    assert "fid_infinity" not in real and "no fid_infinity: `reference` must hold" in real["note"]


def test_the_protocol_says_how_it_was_measured():
    protocol = measure(split="train", seed=3, truncation=0.7).protocol
    expected = {
        "num_generated": 50,
        "reference": "digits",
        "reference_split": "train",
        "num_reference": 120,
        "feature_extractor": "Pixels",
        "resize": "the extractor's own",
        "weights": "raw",
        "batch_statistics": "moving",
        "labels": "uniform, in turn",
        "truncation": 0.7,
        "seed": 3,
    }
    assert {name: protocol[name] for name in expected} == expected
    assert set(protocol["versions"]) >= {"keras", "numpy", "keras_sagan"}
    assert set(protocol["metrics"]) == set(ALL)


def test_statistics_from_a_file_and_its_missing_images(tmp_path):
    images, _ = real_images()
    features = images.reshape(120, 16) / 127.5 - 1.0
    path = tmp_path / "other.npz"
    np.savez(path, mu=features.mean(0), sigma=np.cov(features.T))
    report = measure(reference=path, metrics=("fid", "inception_score"))
    expected = measure(metrics=("fid", "inception_score"))
    assert report.values["fid"] == pytest.approx(expected.values["fid"], rel=1e-5)
    assert "held_out" in report.baselines["real"]["note"]
    assert report.protocol["num_reference"] is None
    assert report.protocol["reference"].startswith("other.npz")
    with pytest.raises(ValueError, match="`reference` must hold the features .*moments only"):
        measure(reference=path, metrics="kid")


def generator_network(with_labels):
    latents = keras.Input((3,))
    x = keras.layers.Dense(16)(latents)
    x = keras.layers.BatchNormalization()(x)
    inputs = latents
    if with_labels:
        labels = keras.Input((), dtype="int32")
        x = x + keras.layers.Embedding(2, 16)(labels)
        inputs = [latents, labels]
    images = keras.layers.Reshape((4, 4, 1))(keras.ops.tanh(x))
    return keras.Model(inputs, images)


@pytest.mark.parametrize("with_labels", [False, True])
def test_a_plain_keras_model_is_a_generator_too(with_labels):
    network = generator_network(with_labels)
    report = measure(network, metrics="fid")
    assert report.values["fid"] > 0 and network.name in report.model
    assert report.protocol["labels"] == ("uniform, in turn" if with_labels else "none")


def test_the_name_of_a_model_has_the_digest_of_its_weights():
    network, source = generator_network(False), metrics.images.GeneratedImages
    name = source(network, 2, seed=0).name
    assert name.startswith(f"{network.name} sha256:") and name == source(network, 2, seed=1).name
    network.set_weights([x + 1.0 for x in network.get_weights()])
    assert name != source(network, 2).name
    assert source(TinyGAN(), 2).name == "tiny"


def test_standing_statistics_change_the_images_and_are_said_in_the_protocol():
    network = generator_network(False)
    moving, standing = (measure(network, metrics="fid", standing_passes=n) for n in (0, 4))
    assert standing.protocol["batch_statistics"] == "standing, 4 passes of 64"
    assert standing.values["fid"] != pytest.approx(moving.values["fid"], rel=1e-3)
    assert measure(network, metrics="fid").values == moving.values
    with pytest.raises(ValueError, match="protocols are equal.*batch_statistics"):
        moving.compare(standing)


def test_images_that_exist_already():
    images, labels = real_images(50, seed=1)
    kwargs = {"feature_extractor": Pixels(), "dataset": "digits", "verbose": False}
    whole = evaluate_images((images, labels), real_images(), ALL, **kwargs)
    assert whole.protocol["num_generated"] == 50 and whole.protocol["labels"] == "as given"
    batches = ((images[i : i + 9], labels[i : i + 9]) for i in range(0, 50, 9))
    again = evaluate_images(batches, real_images(), ALL, num_images=50, **kwargs)
    assert again.values == pytest.approx(whole.values, rel=1e-6, nan_ok=True)
    first = evaluate_images(images, real_images(), "fid", num_images=20, **kwargs)
    expected = evaluate_images(images[:20], real_images(), "fid", **kwargs)
    assert first.values == pytest.approx(expected.values, rel=1e-6)


def test_real_images_in_batches_and_floats_in_their_range():
    images, labels = real_images()
    batches = [(images[i : i + 50] / 255.0, labels[i : i + 50]) for i in range(0, 120, 50)]
    report = measure(reference=iter(batches), value_range=(0, 1))
    assert report.values == pytest.approx(measure().values, rel=1e-5, nan_ok=True)


def test_the_declared_range_of_metric_objects_is_theirs():
    images, labels = real_images()
    fid = metrics.FrechetInceptionDistance(Pixels(), value_range=(0, 1))
    report = evaluate_images(images[:50] / 255.0, (images / 255.0, labels), fid, verbose=False)
    expected = evaluate_images(images[:50], images, "fid", Pixels(), verbose=False)
    assert report.values == pytest.approx(expected.values, rel=1e-5)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images():
    def peak(count):
        def batches():
            for seed in range(count // 500):
                yield np.random.default_rng(seed).integers(0, 256, (500, 4, 4, 1), "uint8")

        tracemalloc.start()
        kwargs = {"num_reference": count, "num_images": count, "verbose": False}
        evaluate_images(batches(), batches(), "fid", Pixels(), **kwargs)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1000)  # What is imported and allocated once.
    small, large = peak(1000), peak(8000)  # Features of 7,000 more images are 0.45 MB.
    assert large < small + 50_000


@pytest.mark.slow
def test_a_model_of_two_replicas_has_the_scores_of_one():
    kwargs = {"metrics": "fid", "num_images": 20, "batch_size": 8}
    kwargs["reference"] = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 1), "uint8")
    kwargs["extractor"] = metrics.GreyClassifierFeatures()
    with two_replicas().scope():
        shared = tiny.build_sagan_of_pictures()
    model = tiny.build_sagan_of_pictures()
    model.set_weights(shared.get_weights())
    report = measure(shared, **kwargs)
    assert report.values == pytest.approx(measure(model, **kwargs).values, rel=1e-5)


def test_images_of_a_network_that_fill_half_of_the_range_are_pointed_out():
    latents = keras.Input((3,))
    images = keras.layers.Dense(16, activation="sigmoid")(latents)
    model = keras.Model(latents, keras.layers.Reshape((4, 4, 1))(images))
    with pytest.warns(UserWarning, match="the images of `model` fill no more than half"):
        measure(model, reference=real_images(24), metrics="fid", num_images=20, batch_size=5)


def test_a_keras_model_with_two_outputs_serves_metrics_of_both():
    images = keras.Input((4, 4, 1))
    features = keras.layers.Flatten()(images)
    network = keras.Model(images, {"features": features, "logits": 3.0 * features[:, :4]})
    names = ("fid", "inception_score")
    report = measure(extractor=network, metrics=names)
    assert report.values == pytest.approx(measure(metrics=names).values, rel=1e-5)


@pytest.mark.parametrize("seconds, is_shown", [(0.05, False), (1.0, True)])
def test_a_bar_for_what_takes_longer_than_ten_seconds(monkeypatch, capsys, seconds, is_shown):
    clock = [0.0]
    monkeypatch.setattr("keras_sagan.checks.time.monotonic", lambda: clock[0])
    progress = Progress("Generated images", 20)
    for done in range(1, 21):
        clock[0] += seconds
        progress(done)
    assert ("Generated images" in capsys.readouterr().out) is is_shown
    silent = Progress("Generated images", 20, verbose=False)
    clock[0] += 100
    silent(20)
    assert capsys.readouterr().out == ""


def test_a_bar_where_the_number_is_not_known(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr("keras_sagan.checks.time.monotonic", lambda: clock[0])
    progress = Progress("Reference images")
    progress(5)
    assert capsys.readouterr().out == ""
    clock[0] = 11.0
    progress(10)
    assert "Reference images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_images": 1}, "`num_images` must be an integer of at least 2"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"seed": -1}, "`seed` must be an integer"),
        ({"standing_passes": -1}, "`standing_passes` must be an integer"),
        ({"metrics": "lpips"}, "`metrics` must be names among .*Received: 'lpips'"),
        ({"metrics": ()}, "`metrics` must share one extractor, and not be empty"),
        ({"labels": "random"}, '`labels` must be "uniform".*Received: random'),
        ({"labels": [0, 1]}, r"`labels` must be .*Received: labels of shape \(2,\)"),
        ({"labels": [2] * 50}, r"`labels` must lie in \[0, 2\)"),
        (
            {"labels": "reference", "reference": real_images()[0], "metrics": "fid"},
            "the reference must come with labels.*a reference with no labels",
        ),
        ({"model": object()}, r"`model` must have generate\(\) and latent_dim"),
        ({"reference": np.zeros((1, 4, 4, 1), "uint8")}, "`reference` must hold at least 2"),
        ({"num_reference": 1}, "`num_reference` must be an integer of at least 2"),
        ({"cache_dir": "x", "dataset": None}, "`cache_dir` needs the `dataset`'s name"),
        ({"held_out": itertools.cycle([real_images()[0]])}, "`held_out` must not be endless"),
        (
            {"metrics": [metrics.PrecisionRecall(PIXELS) for _ in "ab"], "extractor": PIXELS},
            "`metrics` must have different names",
        ),
        (
            {"reference": (real_images()[0], [-1] * 120)},
            r"`labels` must lie in \[0, 1000000\).*with -1",
        ),
        (
            {"reference": (real_images()[0], np.zeros((120, 1), int))},
            r"`labels` must have shape \(batch,\).*Received: labels of shape \(64, 1\)",
        ),
        (
            {"reference": real_images()[0], "metrics": "intra_fid"},
            "`reference` must hold the labels",
        ),
        (
            {"model": generator_network(True), "reference": real_images()[0], "metrics": "fid"},
            "`reference` must come with labels for a Keras model on",
        ),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        measure(**kwargs)


def test_metrics_by_name_need_an_extractor_and_all_share_it():
    with pytest.raises(ValueError, match="`feature_extractor` must be given for metrics by name"):
        evaluate_images(real_images()[0], real_images(), "fid")
    pair = [metrics.FrechetInceptionDistance(Pixels()) for _ in range(2)]
    with pytest.raises(ValueError, match="must share one extractor.*2 metrics with 2 extractors"):
        evaluate_images(real_images()[0], real_images(), pair)


def test_fewer_images_than_said_are_refused():
    images = real_images(50)[0]
    for given in (images, iter([images[:40], images[40:]])):
        with pytest.raises(ValueError, match="`num_images` must be .*num_images=60, 50 images"):
            evaluate_images(given, real_images(), "fid", Pixels(), num_images=60, verbose=False)
    with pytest.raises(ValueError, match="`num_images` must be given for an iterable"):
        evaluate_images(iter([]), real_images(), "fid", Pixels())


def test_a_plain_generator_must_keep_to_its_range():
    latents = keras.Input((3,))
    network = keras.Model(latents, keras.layers.Reshape((1, 1, 3))(latents))
    with pytest.raises(ValueError, match=r"`model` must generate finite images in \[-1, 1\]"):
        measure(network, metrics="fid", extractor=lambda x: x[:, 0, 0])


def test_weights_with_nan_have_no_score():
    model = tiny.build_sagan_of_pictures()
    images = np.zeros((4, *model.image_shape), "uint8")
    weight = model.generator.trainable_variables[0]
    weight.assign(np.full(weight.shape, np.nan))
    with pytest.raises(ValueError, match="`model` must have finite weights. .* NaN or infinite"):
        measure(model, images, lambda x: x[:, 0, :3, 0], metrics="fid", num_images=4)


def test_a_cached_reference_depends_on_labels_in_a_list(tmp_path):
    images, labels = real_images()

    def score(given, **kwargs):
        pairs = (images[:60], labels[:60]), (images[60:], given)
        return evaluate_images(*pairs, "intra_fid", Pixels(), verbose=False, **kwargs).values

    for given in (labels[60:].tolist(), (1 - labels[60:]).tolist()):
        found = score(given, cache_dir=tmp_path, dataset="digits")
        assert found == score(given)


def test_the_inception_score_needs_nothing_of_a_file(tmp_path):
    np.savez(tmp_path / "fid.npz", mu=np.zeros(16), sigma=np.eye(16))
    found = measure(reference=tmp_path / "fid.npz", metrics="inception_score")
    assert found.values["inception_score"] == measure().values["inception_score"]


def test_bfloat16_images():
    images = keras.ops.cast(real_images()[0] / 127.5 - 1.0, "bfloat16")
    kwargs = {"metrics": "fid", "feature_extractor": Pixels(), "value_range": (-1, 1)}
    report = evaluate_images(images, real_images(), verbose=False, **kwargs)
    assert report.values["fid"] < 1e-3


def test_the_report_is_ready_for_json():
    content = json.loads(measure().to_json())
    assert content["values"]["kid_std_error"] is None  # one block


def test_uniform_labels_of_classes_that_the_reference_lacks():
    source = metrics.images.GeneratedImages
    with pytest.warns(UserWarning, match='labels="uniform".*2 classes.*of 1 of them.*"reference"'):
        source(TinyGAN(), 10, class_counts=np.array([10, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source(TinyGAN(), 10, class_counts=np.array([10, 1]))
        source(TinyGAN(), 10, labels="reference", class_counts=np.array([10, 0]))
