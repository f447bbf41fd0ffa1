"""The learning rates of both networks: set together by callbacks, and by schedules."""

import csv
import io
import zipfile

import h5py
import keras
import numpy as np
import pytest
import scalar_gan
import tensorflow as tf
import tiny_networks as tiny
from keras import ops
from keras.optimizers import SGD, Adam, LossScaleOptimizer, schedules
from replicas import two_replicas

from keras_sagan import SAGAN
from keras_sagan.callbacks import StopOnNonFinite, TrainingCheckpoint
from keras_sagan.training.optimizers import GANOptimizer

MODES = {
    "compiled": {},
    "eager": {"run_eagerly": True},
    "XLA": {"jit_compile": True},
    "two steps per execution": {"steps_per_execution": 2},
}


def rates_of(both):
    optimizers = (both.g_optimizer, both.d_optimizer)
    return [float(ops.convert_to_numpy(x.learning_rate)) for x in optimizers]


def float32(*values):
    return [float(np.float32(value)) for value in values]


# Setting both rates


def plain(rate):
    return SGD(rate)


def scaled(rate):
    return LossScaleOptimizer(SGD(rate))


def set_in_graph(optimizer, rate):
    tf.function(lambda x: optimizer.learning_rate.assign(x))(tf.constant(rate))


WAYS = {
    "=": lambda x, rate: setattr(x, "learning_rate", rate),
    "= a NumPy number": lambda x, rate: setattr(x, "learning_rate", np.float32(rate)),
    "= a tensor": lambda x, rate: setattr(x, "learning_rate", ops.convert_to_tensor(rate)),
    "assign": lambda x, rate: x.learning_rate.assign(rate),
    "assign_add": lambda x, rate: x.learning_rate.assign_add(rate - 0.125),
    "assign_sub": lambda x, rate: x.learning_rate.assign_sub(0.125 - rate),
    "*=": lambda x, rate: setattr(x, "learning_rate", x.learning_rate * (rate / 0.125)),
    "assign in a compiled function": set_in_graph,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [plain, scaled])
def test_every_way_to_set_the_rate_keeps_the_ratio(way, make):
    optimizer = GANOptimizer(make(0.125), make(0.3125))
    WAYS[way](optimizer, 0.5)
    assert rates_of(optimizer) == [0.5, 1.25]


def test_the_shared_rate_reads_like_a_variable():
    optimizer = GANOptimizer(SGD(0.125), SGD(0.5))
    rate = optimizer.learning_rate
    assert isinstance(rate, keras.Variable) and rate.shape == () and rate.dtype == "float32"
    assert float(rate) == rate.numpy() == ops.convert_to_numpy(rate) == 0.125
    assert (
        float(rate * 2.0) == float(2.0 * rate) == float(tf.function(lambda: rate + rate)()) == 0.25
    )
    assert float(tf.cast(rate, "float64")) == float(ops.convert_to_tensor(rate)) == 0.125
    optimizer.g_optimizer.learning_rate = 0.25
    assert float(rate) == 0.25 and "0.25" in repr(rate)
    optimizer.g_optimizer.learning_rate = schedules.ExponentialDecay(0.75, 1, 0.5)
    assert float(optimizer.learning_rate) == 0.75


def test_the_ratio_does_not_drift():
    optimizer = GANOptimizer(SGD(1e-4), SGD(2.5e-4))
    for rate in [*np.random.default_rng(0).uniform(1e-9, 1.0, 300), 3e-5]:
        optimizer.learning_rate = float(rate)
        assert rates_of(optimizer) == float32(rate, 2.5 * rate)
    for _ in range(50):
        optimizer.learning_rate = float(optimizer.learning_rate) * 0.7
    rate, d_rate = rates_of(optimizer)
    assert d_rate == float32(2.5 * rate)[0]


@pytest.mark.parametrize("ratio", [4.0, 0.01])
def test_the_ratio_outlasts_rates_of_0(ratio):
    optimizer = GANOptimizer(SGD(1e-3), SGD(ratio * 1e-3))
    for rate in (1e-20, 1e-38, 1e-43, 1e-45, 0.0, 0.0, 1e-45, np.nan, 2e-3):
        optimizer.learning_rate = rate
    assert rates_of(optimizer) == pytest.approx([2e-3, ratio * 2e-3], rel=1e-6)


def test_a_rate_that_is_set_on_its_own_makes_a_new_ratio():
    optimizer = GANOptimizer(SGD(0.125), SGD(0.5))
    optimizer.d_optimizer.learning_rate = 0.25
    optimizer.learning_rate = 0.5
    assert rates_of(optimizer) == [0.5, 1.0]
    optimizer.g_optimizer.learning_rate = 1.0
    optimizer.learning_rate = 2.0
    assert rates_of(optimizer) == [2.0, 2.0]


def test_a_network_that_was_stopped_stays_so():
    optimizer = GANOptimizer(SGD(0.125), SGD(0.5))
    optimizer.d_optimizer.learning_rate = 0.0
    optimizer.learning_rate = 0.25
    assert rates_of(optimizer) == [0.25, 0.0]
    optimizer.d_optimizer.learning_rate = 0.5
    optimizer.g_optimizer.learning_rate = 0.0
    optimizer.learning_rate = float(optimizer.learning_rate) * 0.1
    assert rates_of(optimizer) == [0.0, 0.5]


DECAY = schedules.ExponentialDecay(0.5, 2, 0.5)
REFUSED = {
    "G's schedule": (SGD(DECAY), SGD(0.5), 0.1, TypeError, "of `g_optimizer` is a LearningRateSch"),
    "D's schedule": (SGD(0.5), SGD(DECAY), 0.1, TypeError, "of `d_optimizer` is a LearningRateSch"),
    "its scaled": (scaled(0.5), LossScaleOptimizer(SGD(DECAY)), 0.1, TypeError, "`d_optimizer`"),
    "a function": (SGD(lambda: 0.5), SGD(0.5), 0.1, TypeError, "`g_optimizer` is .* a function"),
    "to a schedule": (SGD(0.5), SGD(0.5), DECAY, TypeError, "`learning_rate` .* be a number.*each"),
    "no ratio": (SGD(0.0), SGD(0.5), 0.1, ValueError, "the generator's is 0.*on their own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rates_that_cannot_be_set_together(name):
    g_optimizer, d_optimizer, rate, error, match = REFUSED[name]
    optimizer = GANOptimizer(g_optimizer, d_optimizer)
    before = rates_of(optimizer)
    with pytest.raises(error, match=f"(?s){match}.*Received: learning_rate="):
        optimizer.learning_rate = rate
    assert rates_of(optimizer) == before


def test_the_optimizer_over_both_is_no_third_one():
    model = scalar_gan.compiled(0.25, 0.5, d_steps=2)
    both = model.optimizer
    assert isinstance(both, keras.optimizers.Optimizer) and not hasattr(both, "optimizers")
    expected = [*model.g_optimizer.variables, *model.d_optimizer.variables]
    assert [id(x) for x in both.variables] == [id(x) for x in expected]
    assert not both.use_ema and both.built
    scalar_gan.fit(model)
    assert int(both.iterations) == int(model.g_optimizer.iterations) == 4
    gradients, variables = [ops.ones((1,))], model.generator.trainable_variables[1:]
    for call in (both.apply, lambda x, y: both.apply_gradients(zip(x, y))):
        with pytest.raises(NotImplementedError, match="`model.g_optimizer` or `model.d_optimizer`"):
            call(gradients, variables)
    with pytest.raises(AttributeError, match="`clipnorm` must be set on one network's.*clipnorm=1"):
        both.clipnorm = 1.0
    again = keras.optimizers.deserialize(keras.optimizers.serialize(both))
    assert type(again) is GANOptimizer and again.get_config() == both.get_config()
    assert rates_of(again) == rates_of(both) == [0.25, 0.5]
    both.set_weights([np.zeros(x.shape) for x in expected])
    assert not any(np.any(x.numpy()) for x in expected)


# Callbacks


@pytest.fixture(scope="module")
def traced():
    """A compiled model for all tests that start it again, with rates of 0.125 and 0.3125."""
    return scalar_gan.compiled(0.125, 0.3125)


@pytest.fixture
def model(traced):
    restart(traced)
    return traced


def restart(model):
    scalar_gan.restart(model)
    model.g_optimizer.learning_rate = 0.125
    model.d_optimizer.learning_rate = 0.3125
    model.optimizer.learning_rate = 0.125  # Which takes the ratio over, as `compile` does.


def assert_trained(model, rates, **kwargs):
    assert scalar_gan.numbers(model) == pytest.approx(scalar_gan.by_hand(rates, **kwargs), abs=5e-7)


SCHEDULERS = {
    "of the epoch": (lambda epoch: 0.25 / 2**epoch, [0.25, 0.125, 0.0625]),
    "of the epoch and the rate": (lambda epoch, rate: rate * 0.5, [0.0625, 0.03125, 0.015625]),
    "to 0 and up again": (lambda epoch: [0.25, 0.0, 0.5][epoch], [0.25, 0.0, 0.5]),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_learning_rate_scheduler(model, name):
    schedule, rates = SCHEDULERS[name]
    callback = keras.callbacks.LearningRateScheduler(schedule)
    history = scalar_gan.fit(model, 3, callbacks=[callback])
    assert history["g_learning_rate"] == history["learning_rate"] == rates
    assert history["d_learning_rate"] == [2.5 * rate for rate in rates]
    assert_trained(model, [(rate, 2.5 * rate) for rate in rates for _ in range(4)])


def test_reduce_lr_on_plateau(model):
    callback = keras.callbacks.ReduceLROnPlateau(
        "d_loss", factor=0.5, patience=1, min_delta=1e9, mode="min"
    )
    history = scalar_gan.fit(model, 3, callbacks=callback)
    assert rates_of(model) == [0.03125, 0.078125]
    # An epoch's rates are those that it was trained with.
    assert history["g_learning_rate"] == [0.125, 0.125, 0.0625]
    assert history["d_learning_rate"] == [0.3125, 0.3125, 0.15625]
    rates = [(0.125, 0.3125)] * 8 + [(0.0625, 0.15625)] * 4
    assert_trained(model, rates)


def test_a_callback_of_the_user_that_sets_the_rate_of_each_step(model):
    def set_rate(batch, logs=None):
        model.optimizer.learning_rate.assign(0.5 / (1 + int(model.steps)))

    callback = keras.callbacks.LambdaCallback(on_train_batch_begin=set_rate)
    scalar_gan.fit(model, 2, callbacks=[callback])
    assert_trained(model, [(0.5 / step, 1.25 / step) for step in range(1, 9)])


@pytest.mark.parametrize("side", ["g", "d"])
def test_callbacks_refuse_to_set_a_schedule(side):
    rates = {"g_rate": 0.1, "d_rate": 0.1, f"{side}_rate": DECAY}
    model = scalar_gan.compiled(**rates, run_eagerly=True)
    for callback in (
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.5),
        keras.callbacks.ReduceLROnPlateau("d_loss", mode="min", min_delta=1e9, patience=1),
    ):
        with pytest.raises(TypeError, match=f"`{side}_optimizer` is a LearningRateSchedule"):
            scalar_gan.fit(model, 2, callbacks=[callback])


def test_swap_ema_weights_says_what_it_needs(model):
    with pytest.raises(ValueError, match="must be used when `use_ema=True`"):
        scalar_gan.fit(model, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])


def test_tensorboard_has_both_rates(model, tmp_path):
    pytest.importorskip("tensorboard")
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    board = keras.callbacks.TensorBoard(tmp_path, write_steps_per_second=True)
    scalar_gan.fit(model, 2, callbacks=[board, halve])
    found = {}
    for path in (tmp_path / "train").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    assert found["epoch_learning_rate"] == found["epoch_g_learning_rate"] == [0.0625, 0.03125]
    assert found["epoch_d_learning_rate"] == [0.15625, 0.078125]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: [x],
        lambda x: ((x,), [keras.callbacks.LambdaCallback()]),
        lambda x: keras.callbacks.CallbackList([x], add_history=True),
    ],
    ids=["one", "list", "nest", "CallbackList"],
)
def test_both_rates_are_in_a_log_from_its_first_epoch(model, wrap, tmp_path):
    callbacks = wrap(keras.callbacks.CSVLogger(tmp_path / "log.csv"))
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.set_model(model)
    scalar_gan.fit(model, 1, callbacks=callbacks)
    scalar_gan.fit(model, 2, callbacks=callbacks)  # The same callbacks again.
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [float(row["g_learning_rate"]) for row in rows] == [0.125] * 2
    assert [float(row["d_learning_rate"]) for row in rows] == [0.3125] * 2


def test_the_progress_bar_shows_the_rates_at_the_end_of_an_epoch(model, capsys):
    history = scalar_gan.fit(model, verbose=2)
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.count("g_learning_rate: 0.1250") == line.count("d_learning_rate: 0.3125") == 1
    assert line.count(" - ") == len(history) + 2  # The steps and two times come first.


def test_an_optimizer_of_several_rates_has_none_to_log():
    several = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(SGD(0.125)))
    model = scalar_gan.build()
    model.compile(several, SGD(0.3125), loss="wasserstein", run_eagerly=True)
    history = scalar_gan.fit(model)
    assert history["d_learning_rate"] == [0.3125] and "g_learning_rate" not in history
    assert_trained(model, [(0.125, 0.3125)] * 4)


def test_a_callback_under_mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    model = scalar_gan.compiled(0.125, 0.3125, run_eagerly=True)
    assert isinstance(model.d_optimizer, LossScaleOptimizer)
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = scalar_gan.fit(model, 2, callbacks=[halve])
    assert history["g_learning_rate"] == history["learning_rate"] == [0.0625, 0.03125]
    assert history["d_learning_rate"] == [0.15625, 0.078125]
    rates = [(0.0625, 0.15625)] * 4 + [(0.03125, 0.078125)] * 4
    assert scalar_gan.numbers(model) == pytest.approx(scalar_gan.by_hand(rates), abs=2e-3)


def test_a_rate_of_nan_is_found_and_named(model):
    class Poison(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 1:
                self.model.optimizer.learning_rate.assign(np.nan)

    with pytest.warns(RuntimeWarning, match="step 2 of epoch 1"):
        scalar_gan.fit(model, 2, callbacks=[Poison(), StopOnNonFinite()])
    assert np.isnan(rates_of(model)).all()


@pytest.mark.slow
def test_two_replicas_follow_a_callback():
    with two_replicas().scope():
        model = scalar_gan.compiled(0.125, 0.3125)
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = scalar_gan.fit(model, 2, callbacks=[halve])
    assert history["d_learning_rate"] == [0.15625, 0.078125]
    assert_trained(model, [(0.0625, 0.15625)] * 4 + [(0.03125, 0.078125)] * 4)


# Files and checkpoints


def state(model):
    return [x.numpy() for x in (*model.weights, *model.optimizer.variables)]


def assert_same(received, expected):
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_array_equal(one, other)


class Kill(Exception):
    pass


class KillAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.steps) == self.step:
            raise Kill


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, schedule",
    [
        ("TrainingCheckpoint", lambda epoch, rate: rate * 0.7),
        ("TrainingCheckpoint", lambda epoch: [0.3, 0.0, 0.1][epoch]),
        ("BackupAndRestore", lambda epoch, rate: rate * 0.7),
    ],
)
def test_a_resumed_run_has_the_same_rates_to_the_bit(kind, schedule, tmp_path):
    def train(kill_at=None):
        model = scalar_gan.compiled(0.1, 0.037, run_eagerly=True)
        callbacks = [keras.callbacks.LearningRateScheduler(schedule)]
        if kill_at is not None:
            callbacks.append(KillAt(kill_at))
        if kind == "TrainingCheckpoint":
            callbacks.append(TrainingCheckpoint(tmp_path, every_steps=1))
        else:
            callbacks.append(keras.callbacks.BackupAndRestore(tmp_path))
        try:
            scalar_gan.fit(model, 3, callbacks=callbacks)
        except Kill:
            assert kill_at == int(model.steps)
        return model

    train(kill_at=9)
    resumed = train()
    folder = tmp_path
    tmp_path = folder / "another"
    assert_same(state(resumed), state(train()))


@pytest.mark.slow
def test_files_hold_the_two_optimizers_and_what_they_were_given(tmp_path):
    path = tmp_path / "model.keras"
    decay = schedules.CosineDecay(0.5, 8)
    model = scalar_gan.build(d_steps=2)
    model.compile(Adam(decay), LossScaleOptimizer(Adam(0.25)), loss="wasserstein", run_eagerly=True)
    scalar_gan.fit(model)
    model.save(path)
    names = []
    with zipfile.ZipFile(path) as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visit(names.append)
    groups = {name for name in names if "optimizer" in name and not name[-1].isdigit()}
    d_groups = ("d_optimizer", "d_optimizer/inner_optimizer")
    expected = ["g_optimizer", *d_groups]
    assert groups == {f"{name}{end}" for name in expected for end in ("", "/vars")}
    config = model.get_compile_config()
    assert config["g_optimizer"] == keras.optimizers.serialize(model.g_optimizer)
    assert config["g_optimizer"]["config"]["learning_rate"] == schedules.serialize(decay)
    assert "optimizer" not in config
    again = keras.saving.load_model(path)
    assert_same(state(again), state(model))
    for one in (model, again):
        scalar_gan.fit(one)
    assert_same(state(again), state(model))
    other = scalar_gan.build(d_steps=2)
    other.compile(Adam(decay), LossScaleOptimizer(Adam(0.25)))
    other.load_weights(path)
    assert rates_of(other) == pytest.approx([0.25, 0.25])


PARTS = {"generator", "discriminator", "model", "metrics", "optimizer", "d_optimizer"}


def test_a_checkpoint_keeps_the_names_of_its_parts(tmp_path):
    """Those that checkpoints have had since there are any."""
    model = tiny.build_small_sagan()
    model.compile(Adam(0.25), SGD(0.5), run_eagerly=True)
    images, labels = tiny.images(4), tiny.labels(4)
    model.fit(images, labels, verbose=0, callbacks=[TrainingCheckpoint(tmp_path)])
    with np.load(tmp_path / "step-1" / "state.npz") as state:
        keys = [key.split(":") for key in state]
    assert {key[0] for key in keys} == PARTS
    names = {part: {key[2] for key in keys if key[0] == part} for part in PARTS}
    assert names["optimizer"] == {model.g_optimizer.name}
    assert names["d_optimizer"] == {model.d_optimizer.name}


# Schedules


def cosine(step, rate, steps):
    return rate * 0.5 * (1.0 + np.cos(np.pi * min(step, steps) / steps))


def assert_follows(model, d_steps=2):
    history = scalar_gan.fit(model, 2)
    rates = [(cosine(step, 0.25, 10), cosine(step, 0.5, 8)) for step in range(9)]
    assert_trained(model, rates[:8], d_steps=d_steps)
    assert rates_of(model) == pytest.approx(rates[8], abs=1e-7)
    for index, name in enumerate(("g_learning_rate", "d_learning_rate")):
        assert history[name] == pytest.approx([rates[4][index], rates[8][index]], abs=1e-7)


def cosines():
    return schedules.CosineDecay(0.25, 10), schedules.CosineDecay(0.5, 8)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_schedules_follow_the_steps_of_the_model(mode):
    model = scalar_gan.compiled(*cosines(), d_steps=2, **MODES[mode])
    assert_follows(model)
    # Each optimizer counts its own updates.
    assert int(model.g_optimizer.iterations) == 8 and int(model.d_optimizer.iterations) == 16


@pytest.mark.slow
def test_schedules_on_two_replicas():
    with two_replicas().scope():
        model = scalar_gan.compiled(*cosines(), d_steps=2)
    assert_follows(model)


def test_schedules_inside_a_loss_scale():
    model = scalar_gan.build(d_steps=2)
    wrapped = [LossScaleOptimizer(SGD(x), 8.0) for x in cosines()]
    model.compile(*wrapped, loss="wasserstein", run_eagerly=True)
    assert_follows(model)


@pytest.mark.slow
def test_a_schedule_inside_an_optimizer_of_several():
    model = scalar_gan.build(d_steps=2)
    several = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(SGD(cosines()[1])))
    model.compile(SGD(cosines()[0]), several, loss="wasserstein", run_eagerly=True)
    scalar_gan.fit(model, 2)
    rates = [(cosine(step, 0.25, 10), cosine(step, 0.5, 8)) for step in range(8)]
    assert_trained(model, rates, d_steps=2)


@pytest.mark.slow
def test_a_schedule_that_is_set_after_compile():
    model = scalar_gan.compiled(0.1, 0.1, d_steps=2, run_eagerly=True)
    model.g_optimizer.learning_rate, model.d_optimizer.learning_rate = cosines()
    assert_follows(model)


@pytest.mark.slow
def test_compiling_again_with_the_same_optimizers():
    model = scalar_gan.compiled(*cosines(), d_steps=2, run_eagerly=True)
    optimizers = model.g_optimizer, model.d_optimizer
    for _ in range(2):
        model.compile(*optimizers, loss="wasserstein", run_eagerly=True)
    assert model.g_optimizer is optimizers[0]
    assert_follows(model)


@pytest.mark.slow
def test_a_schedule_beside_a_number_and_a_function():
    function = scalar_gan.compiled(lambda: 0.25, cosines()[1], d_steps=2, run_eagerly=True)
    number = scalar_gan.compiled(0.25, cosines()[1], d_steps=2, run_eagerly=True)
    for model in (function, number):
        scalar_gan.fit(model, 2)
        assert_trained(model, [(0.25, cosine(step, 0.5, 8)) for step in range(8)], d_steps=2)


def test_accumulated_gradients_are_applied_at_the_rate_of_their_step():
    model = scalar_gan.build(d_steps=2)
    g_optimizer, d_optimizer = (SGD(x, gradient_accumulation_steps=2) for x in cosines())
    model.compile(g_optimizer, d_optimizer, loss="wasserstein", run_eagerly=True)
    scalar_gan.fit(model)
    bias, slope = scalar_gan.BIAS, scalar_gan.SLOPE
    gradients = []
    for step in range(4):
        # D's two updates of a step are one of their mean; the same, as G doesn't move between.
        slope -= cosine(step, 0.5, 8) * (np.tanh(bias) - scalar_gan.MEAN)
        gradients.append(slope * (1.0 - np.tanh(bias) ** 2))
        if step % 2:
            bias += cosine(step, 0.25, 10) * np.mean(gradients)
            gradients = []
    assert scalar_gan.numbers(model) == pytest.approx([bias, slope], abs=5e-7)


def test_weight_decay_has_the_rate_of_the_step():
    model = scalar_gan.build(d_steps=2)
    optimizer = SGD(cosines()[1], weight_decay=0.5)
    model.compile(SGD(0.0), optimizer, loss="wasserstein", run_eagerly=True)
    scalar_gan.fit(model)
    slope, gradient = scalar_gan.SLOPE, np.tanh(scalar_gan.BIAS) - scalar_gan.MEAN
    for rate in [cosine(step, 0.5, 8) for step in range(4) for _ in range(2)]:
        slope -= rate * 0.5 * slope
        slope -= rate * gradient
    assert scalar_gan.numbers(model)[1] == pytest.approx(slope, abs=5e-7)


def test_the_bias_correction_of_adam_counts_the_updates_of_the_network():
    """With a constant gradient, its corrected moments make every update as large as the rate."""
    model = scalar_gan.build(d_steps=3)
    optimizer = Adam(cosines()[1], beta_1=0.9, beta_2=0.99, epsilon=1e-12)
    model.compile(SGD(0.0), optimizer, loss="wasserstein", run_eagerly=True)
    scalar_gan.fit(model)
    moved = sum(3 * cosine(step, 0.5, 8) for step in range(4))
    assert scalar_gan.numbers(model)[1] == pytest.approx(scalar_gan.SLOPE - moved, rel=1e-4)


def test_a_new_schedule_of_a_trained_model_is_pointed_out(recwarn):
    model = scalar_gan.compiled(*cosines(), run_eagerly=True)
    optimizers = model.g_optimizer, model.d_optimizer
    scalar_gan.fit(model)
    model.compile(*optimizers)  # Which goes on.
    model.compile(SGD(0.1), SGD(0.1))
    assert not [x for x in recwarn if "LearningRateSchedule" in str(x.message)]
    recwarn.clear()
    model.compile(SGD(0.1), LossScaleOptimizer(SGD(cosines()[1])))
    (found,) = (x for x in recwarn if "LearningRateSchedule" in str(x.message))
    assert "`d_optimizer` is new" in str(found.message) and "at step 4" in str(found.message)
    assert found.filename == __file__
    assert rates_of(model)[1] == pytest.approx(cosine(4, 0.5, 8))
    model.steps.assign(0)
    assert rates_of(model)[1] == pytest.approx(0.5)


def test_a_schedule_where_nobody_counts_steps():
    """A `train_step` of the user's own, as in the guides of Keras."""

    class Own(SAGAN):
        def train_step(self, data):
            variables = self.generator.trainable_variables
            self.g_optimizer.apply([tf.zeros(x.shape) for x in variables], variables)
            return {"loss": 0.0}

    latents, images = keras.Input((1,)), keras.Input((1, 1, 1))
    generator = keras.Model(
        latents, keras.layers.Reshape((1, 1, 1))(keras.layers.Dense(1)(latents))
    )
    discriminator = keras.Model(images, keras.layers.Dense(1)(keras.layers.Flatten()(images)))
    model = Own(generator, discriminator, latent_dim=1)
    linear = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    model.compile(SGD(linear), SGD(0.1), run_eagerly=True)
    model.fit(np.zeros((2, 1, 1, 1), "float32"), batch_size=1, verbose=0)
    assert float(model.g_optimizer.learning_rate) == pytest.approx(0.5)
