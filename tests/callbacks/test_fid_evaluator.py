import csv
import json

import keras
import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan import FrechetInceptionDistance
from keras_sagan.callbacks import FIDEvaluator
from keras_sagan.metrics import GreyClassifierFeatures, KernelInceptionDistance


class StubMetric:
    """Counts images; its distances are given beforehand."""

    def __init__(self, distances=(50.0, 40.0, 45.0, 30.0, 20.0, 10.0)):
        self.distances = list(distances)
        self.real, self.fake, self.batches = [], [], []

    def update_state(self, images, real):
        assert images.dtype == np.uint8
        self.batches.append(len(images))
        (self.real if real else self.fake).append(np.asarray(images))

    def reset_state(self, reset_real=True):
        assert reset_real is False
        self.fake = []

    def result(self):
        return np.float32(self.distances.pop(0))


def real_images(count=10):
    return np.arange(count * 64, dtype="uint32").astype("uint8").reshape(count, 8, 8, 1)


def test_real_images_once_and_generated_ones_every_time(stub_gan, run_fit):
    model, metric = stub_gan(num_classes=3), StubMetric()
    evaluator = FIDEvaluator(metric, real_images(10), num_images=7, batch_size=4, seed=9)
    history = run_fit(model, [evaluator]).history
    assert history["fid_7"] == [50.0, 40.0] and type(history["fid_7"][0]) is float
    assert evaluator.history == [(1, 50.0), (2, 40.0)]
    np.testing.assert_array_equal(np.concatenate(metric.real), real_images(10))
    assert sum(len(batch) for batch in metric.fake) == 7 and max(metric.batches) == 4
    latents = np.random.default_rng(9).standard_normal((7, 4), "float32")
    for first, second in zip(model.calls[::2], model.calls[1::2]):
        assert (first["num_images"], second["num_images"], first["batch_size"]) == (4, 3, 4)
        assert [*first["labels"], *second["labels"]] == [0, 1, 2, 0, 1, 2, 0]
        np.testing.assert_array_equal([*first["latents"], *second["latents"]], latents)


def test_at_start_every_epochs_and_the_last(stub_gan, run_fit):
    evaluator = FIDEvaluator(StubMetric(), real_images(), 4, every_epochs=2, at_start=True)
    history = run_fit(stub_gan(), [evaluator], epochs=5).history
    assert evaluator.history == [(0, 50.0), (2, 40.0), (4, 45.0), (5, 30.0)]
    assert history["fid_4"] == [40.0, 45.0, 30.0]


def test_a_resumed_training_replaces_the_value_of_the_same_epoch(stub_gan, run_fit):
    model, metric = stub_gan(), StubMetric()
    evaluator = FIDEvaluator(metric, real_images(), 4, at_start=True)
    run_fit(model, [evaluator], epochs=1)
    run_fit(model, [evaluator], epochs=2, initial_epoch=1)
    assert evaluator.history == [(0, 50.0), (1, 45.0), (2, 30.0)]
    assert sum(len(batch) for batch in metric.real) == 10


def test_the_middle_of_an_epoch_is_not_its_start(stub_gan, run_fit):
    model, evaluator = stub_gan(), FIDEvaluator(StubMetric(), real_images(), 4, at_start=True)
    evaluator.history = [(1, 7.0)]
    model._skipped_steps = 3  # A run that resumes after three steps of the second epoch.
    run_fit(model, [evaluator], epochs=2, initial_epoch=1)
    assert evaluator.history == [(1, 7.0), (2, 50.0)]


def test_later_callbacks_see_the_distance(tmp_path, stub_gan, run_fit):
    callbacks = [
        FIDEvaluator(StubMetric(), real_images(), 4),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best_{epoch}.weights.h5",
            monitor="fid_4",
            mode="min",
            save_best_only=True,
            save_weights_only=True,
        ),
    ]
    run_fit(stub_gan(), callbacks, epochs=3)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [float(row["fid_4"]) for row in rows] == [50.0, 40.0, 45.0]
    saved = sorted(path.name for path in tmp_path.glob("best_*"))
    assert saved == ["best_1.weights.h5", "best_2.weights.h5"]


def test_a_value_for_epochs_without_an_evaluation_gives_csv_a_column(tmp_path, stub_gan, run_fit):
    evaluator = FIDEvaluator(StubMetric(), real_images(), 4, every_epochs=2, missing=float("inf"))
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best_{epoch}.weights.h5",
        monitor="fid_4",
        mode="min",
        save_best_only=True,
        save_weights_only=True,
    )
    callbacks = [evaluator, keras.callbacks.CSVLogger(tmp_path / "log.csv"), best]
    run_fit(stub_gan(), callbacks, epochs=4)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["fid_4"] for row in rows] == ["inf", "50.0", "inf", "40.0"]
    saved = sorted(path.name for path in tmp_path.glob("best_*"))
    assert saved == [f"best_{epoch}.weights.h5" for epoch in (1, 2, 4)]


def test_tensorboard_sees_the_distance(tmp_path, stub_gan, run_fit):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("tensorboard")
    evaluator = FIDEvaluator(StubMetric(), real_images(), 4)
    run_fit(stub_gan(), [evaluator, keras.callbacks.TensorBoard(tmp_path)], epochs=2)
    found = []
    for path in tmp_path.rglob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found += [value.tag for value in event.summary.value]
    assert any("fid_4" in tag for tag in found)


@pytest.mark.parametrize(
    "num_images, name",
    [(2, "fid_2"), (500, "fid_500"), (1000, "fid_1k"), (1500, "fid_1500"), (10_000, "fid_10k")],
)
def test_the_key_carries_the_number_of_images(num_images, name):
    assert FIDEvaluator(StubMetric(), None, num_images=num_images).name == name


def test_the_key_may_be_named(stub_gan, run_fit):
    evaluator = FIDEvaluator(StubMetric(), real_images(), 4, name="fid_test")
    assert "fid_test" in run_fit(stub_gan(), [evaluator], epochs=1).history


@pytest.mark.parametrize("with_labels", [False, True])
def test_real_images_in_batches(stub_gan, run_fit, with_labels):
    batches = [real_images(4), real_images(3)]
    if with_labels:
        batches = [(images, np.zeros(len(images))) for images in batches]
    metric = StubMetric()
    run_fit(stub_gan(), [FIDEvaluator(metric, iter(batches), 4)], epochs=2)
    assert [len(batch) for batch in metric.real] == [4, 3]


def test_a_metric_that_has_seen_its_real_images(stub_gan, run_fit):
    metric = StubMetric()
    run_fit(stub_gan(), [FIDEvaluator(metric, None, 4)], epochs=1)
    assert metric.real == []


def test_labels_of_ones_own_and_an_unconditional_model(stub_gan, run_fit):
    model = stub_gan(num_classes=3)
    run_fit(model, [FIDEvaluator(StubMetric(), None, 2, labels=[2, 2])], epochs=1)
    assert [*model.calls[0]["labels"]] == [2, 2]
    model = stub_gan(num_classes=None)
    run_fit(model, [FIDEvaluator(StubMetric(), None, 2)], epochs=1)
    assert model.calls[0]["labels"] is None


@pytest.mark.parametrize("name, value", [("num_images", 1), ("every_epochs", 0), ("batch_size", 0)])
def test_numbers_are_checked(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer.*Received: {name}={value}"):
        FIDEvaluator(StubMetric(), None, **{name: value})


def test_a_metric_without_its_methods_is_refused():
    with pytest.raises(ValueError, match=r"`metric` must have a method update_state\(\)"):
        FIDEvaluator("fid", None)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`labels` must have shape \(4,\).*shape=\(3,\)"):
        FIDEvaluator(StubMetric(), None, num_images=4, labels=[0, 1, 2])


@pytest.mark.parametrize("images", [real_images(0), []])
def test_no_real_image_is_refused(stub_gan, run_fit, images):
    with pytest.raises(ValueError, match="`real_images` must hold at least one image"):
        run_fit(stub_gan(), [FIDEvaluator(StubMetric(), images, 4)])


@pytest.mark.parametrize("is_generator", [False, True])
def test_an_interrupted_reading_of_real_images_starts_again(stub_gan, is_generator):
    calls = iter(range(100))

    def features(images):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return np.reshape(images, (len(images), -1))[:, :3]

    images, metric = real_images(10), FrechetInceptionDistance(features)
    given = (images[i : i + 2] for i in range(0, 10, 2)) if is_generator else images
    evaluator = FIDEvaluator(metric, given, 4, batch_size=2)
    evaluator.set_model(stub_gan())
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate()
    if is_generator:
        with pytest.raises(ValueError, match="A Python generator yields its images only once"):
            evaluator.evaluate()
    else:
        evaluator.evaluate()
        assert metric.num_images == {"real": 10, "generated": 4}


def test_gray_and_color_images_are_refused(stub_gan, run_fit):
    metric, color = FrechetInceptionDistance(flat), np.zeros((4, 8, 8, 3), "uint8")
    with pytest.raises(ValueError, match="`model` and `real_images` must both be gray or both"):
        run_fit(stub_gan(), [FIDEvaluator(metric, color, 4)])


def test_the_first_of_several_values_is_used(stub_gan):
    evaluator = FIDEvaluator(KernelInceptionDistance(flat), real_images(10), 4)
    evaluator.set_model(stub_gan())
    assert evaluator.name == "kid_4" and evaluator.evaluate() == evaluator.metric.values()["kid"]


def test_a_second_training_replaces_the_history_of_the_first(stub_gan, run_fit):
    model, evaluator = stub_gan(), FIDEvaluator(StubMetric(), real_images(), 4)
    run_fit(model, [evaluator], epochs=3)
    run_fit(model, [evaluator], epochs=2)
    assert evaluator.history == [(1, 30.0), (2, 20.0)]


@pytest.fixture(scope="module")
def sagan():
    model = tiny.build_sagan_of_pictures()
    # As after training: the averages are others than the weights.
    rng = np.random.default_rng(0)
    for variable in model.ema_generator.variables:
        if variable.name == "kernel":
            variable.assign_add(rng.normal(0, 0.2, variable.shape).astype("float32"))
    return model


def flat(images):
    return np.reshape(images, (len(images), -1))[:, ::64]


def distance(generated, real):
    metric = FrechetInceptionDistance(flat)
    metric.update_state(real, real=True)
    metric.update_state(generated, real=False)
    return metric.result()


@pytest.mark.slow
def test_the_averaged_weights_are_measured_and_the_protocol_says_so(sagan):
    real = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 1)).astype("uint8")
    evaluator = FIDEvaluator(
        FrechetInceptionDistance(flat), real, 20, batch_size=8, seed=3, dataset="d", split="s"
    )
    evaluator.set_model(sagan)
    value = evaluator.evaluate()
    labels = np.arange(20) % 10
    made = {x: sagan.generate(20, labels, seed=3, batch_size=8, use_ema=x) for x in (True, False)}
    assert value == pytest.approx(distance(made[True], real), rel=1e-6)
    assert value != pytest.approx(distance(made[False], real), rel=1e-3)
    protocol = json.loads(json.dumps(evaluator.protocol))
    expected = {
        "num_generated": 20,
        "reference": "d",
        "reference_split": "s",
        "num_reference": 30,
        "feature_extractor": "flat, without a version",
        "weights": "averaged (EMA)",
        "labels": "uniform, in turn",
        "batch_statistics": "moving",
        "seed": 3,
    }
    assert {name: protocol[name] for name in expected} == expected
    assert len(protocol["reference_sha256"]) == 64 and "keras" in protocol["versions"]


def test_without_averages_the_protocol_says_raw(stub_gan, run_fit):
    model = stub_gan()
    evaluator = FIDEvaluator(StubMetric(), real_images(), 2, labels=[1, 2])
    run_fit(model, [evaluator], epochs=1)
    assert evaluator.protocol["weights"] == "raw"
    assert evaluator.protocol["labels"].startswith("given, sha256:")
    evaluator = FIDEvaluator(FrechetInceptionDistance(GreyClassifierFeatures()), None)
    evaluator.set_model(stub_gan(num_classes=None))
    assert evaluator.protocol["labels"] == "none"
    assert evaluator.protocol["feature_extractor"].startswith("keras_sagan grey_cl")


@pytest.mark.parametrize("verbose", [True, False])
def test_a_bar_where_an_evaluation_takes_more_than_ten_seconds(
    stub_gan, monkeypatch, capsys, verbose
):
    clock = [0.0]
    monkeypatch.setattr("keras_sagan.checks.time.monotonic", lambda: clock[0])

    class Slow(StubMetric):
        def update_state(self, images, real):
            clock[0] += 6.0

    evaluator = FIDEvaluator(Slow(), real_images(12), 8, batch_size=4, verbose=verbose)
    evaluator.set_model(stub_gan())
    evaluator.evaluate()
    shown = capsys.readouterr().out
    assert ("Real images" in shown and "Images for fid_8" in shown) is verbose
