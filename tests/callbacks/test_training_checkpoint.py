"""Checkpoints: all state comes back, damage is seen, and what can't be done is said."""

import contextlib
import errno
import json
import os
import re
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_networks as tiny
from keras import layers
from pipelines import untuned

from keras_sagan import SAGAN
from keras_sagan.callbacks import TrainingCheckpoint, checkpoint_files
from keras_sagan.callbacks.model_state import (
    architecture_of,
    assign_state,
    check_architecture,
    keyed,
    state_of,
)
from keras_sagan.data import make_dataset
from keras_sagan.models import FusedAdam

IMAGES = ((tiny.images(28) + 1.0) * 127.0).astype("uint8")
LABELS = tiny.labels(28)
STEPS = 7  # An epoch's.


def build(seed=7, **kwargs):
    model = tiny.build_small_sagan(ema_momentum=0.9, seed=seed, **kwargs)
    model.compile()
    return model


def snapshot(model):
    return {key: variable.numpy() for key, variable in keyed(state_of(model)).items()}


def assert_same(received, expected):
    assert list(received) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(received[key], value, err_msg=key)


@pytest.fixture(scope="module")
def traced():
    """One model for all tests that train, so that it is traced once, and how it starts."""
    model = build()
    return model, snapshot(model)


@pytest.fixture
def model(traced):
    """As a process that starts has it."""
    assign_state(traced[0], 7, traced[1])
    return traced[0]


def dataset(start_step=0):
    return make_dataset(IMAGES, LABELS, batch_size=4, seed=3, start_step=start_step)


def finite_dataset():
    return untuned(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4))


class Kill(Exception):
    pass


class KillAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.steps) == self.step:
            raise Kill


def fit(model, data, callbacks=(), epochs=3, steps_per_epoch=STEPS, kill_at=None, **kwargs):
    """Returns the figures of the epochs; a kill at a step ends it in silence."""
    callbacks = [*callbacks, *([] if kill_at is None else [KillAt(kill_at)])]
    kwargs = {"epochs": epochs, "steps_per_epoch": steps_per_epoch, "verbose": 0, **kwargs}
    with contextlib.nullcontext() if kill_at is None else pytest.raises(Kill):
        return model.fit(data, callbacks=callbacks, **kwargs).history


def restart(traced, seed=7):
    assign_state(traced[0], seed, traced[1])
    return traced[0]


@pytest.fixture(scope="module")
def undisturbed(traced):
    """The state and the figures after 3 epochs, by the kind of data."""
    results = {}
    for kind, data in (("step", dataset()), ("finite", finite_dataset())):
        model = restart(traced)
        figures = fit(model, data, steps_per_epoch=STEPS if kind == "step" else None)
        results[kind] = snapshot(model), figures
    return results


def assert_figures(received, expected):
    """Those of the epochs that the second process ended."""
    for name, values in received.items():
        assert values == expected[name][-len(values) :], name


# What comes back


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [7, 11])
def test_resumed_equals_undisturbed(model, traced, undisturbed, tmp_path, kill_at):
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1)
    fit(model, dataset(checkpoint.restore_latest(model)), [checkpoint], kill_at=kill_at)
    model = restart(traced, seed=7 if kill_at == 7 else 8)
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1)
    step = checkpoint.restore_latest(model)
    assert step == kill_at and model.seed == 7
    figures = fit(model, dataset(step), [checkpoint])
    assert_same(snapshot(model), undisturbed["step"][0])
    assert_figures(figures, undisturbed["step"][1])


@pytest.mark.slow
def test_resumed_equals_undisturbed_with_several_steps_per_execution(tmp_path):
    """Two at a time in epochs of six, compiled by XLA; killed within the second epoch."""
    model = tiny.build_small_sagan(ema_momentum=0.9, seed=7)
    model.compile(steps_per_execution=2, jit_compile=True)
    start, kwargs = snapshot(model), {"steps_per_epoch": 6, "epochs": 2}
    expected_figures = fit(model, dataset(), **kwargs)
    expected = snapshot(model)
    assign_state(model, 7, start)
    fit(model, dataset(), [TrainingCheckpoint(tmp_path, every_steps=1)], kill_at=10, **kwargs)
    assign_state(model, 7, start)
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1)
    assert checkpoint.restore_latest(model) == 10
    figures = fit(model, dataset(10), [checkpoint], **kwargs)
    assert_same(snapshot(model), expected)
    assert_figures(figures, expected_figures)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["step", "finite", "arrays"])
def test_the_same_line_again_equals_undisturbed(model, traced, undisturbed, tmp_path, kind):
    arguments = {"steps_per_epoch": STEPS if kind == "step" else None}
    labels = {}
    if kind == "arrays":
        labels = {"y": LABELS, "shuffle": False, "batch_size": 4}
    for kill_at in (10, None):
        data = {"step": dataset, "finite": finite_dataset, "arrays": lambda: IMAGES}[kind]()
        checkpoint = TrainingCheckpoint(tmp_path, every_steps=2)
        figures = fit(model, data, [checkpoint], kill_at=kill_at, **arguments, **labels)
        assert int(model.steps) == (kill_at or 21)
        if kill_at:
            restart(traced)
    expected = undisturbed["step" if kind == "step" else "finite"]
    assert_same(snapshot(model), expected[0])
    assert_figures(figures, expected[1])


def test_fit_positions_the_data_by_itself(model, traced, undisturbed, tmp_path):
    for kill_at in (10, None):
        fit(model, dataset(), [TrainingCheckpoint(tmp_path, every_steps=2)], kill_at=kill_at)
        if kill_at:
            restart(traced)
    assert_same(snapshot(model), undisturbed["step"][0])


@pytest.mark.slow
def test_a_rate_that_an_epochs_end_sets_comes_back(model, traced, tmp_path):
    class Halve(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            for optimizer in (self.model.g_optimizer, self.model.d_optimizer):
                optimizer.learning_rate = float(optimizer.learning_rate) / 2

    def callbacks():
        return [Halve(), TrainingCheckpoint(tmp_path, every_steps=7)]

    rates = [float(x.learning_rate) for x in (model.g_optimizer, model.d_optimizer)]
    fit(model, dataset(), callbacks(), kill_at=9)
    restart(traced)
    assert TrainingCheckpoint(tmp_path).restore_latest(model) == 7
    received = [float(x.learning_rate) for x in (model.g_optimizer, model.d_optimizer)]
    assert received == [rate / 2 for rate in rates]
    fit(model, dataset(), callbacks())
    resumed = snapshot(model)
    restart(traced)
    fit(model, dataset(), [Halve()])
    assert_same(resumed, snapshot(model))


@pytest.mark.slow
def test_an_end_before_the_first_epoch_begins_leaves_the_position(model, traced, tmp_path):
    """As Ctrl-C there, after which scripts save."""
    fit(model, dataset(), [TrainingCheckpoint(tmp_path, every_steps=1)], kill_at=16)
    before = (tmp_path / "step-16/manifest.json").read_text()
    restart(traced)
    checkpoint = TrainingCheckpoint(tmp_path)
    stop = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: raise_kill())
    for callbacks in ([stop, checkpoint], [checkpoint, stop]):
        with pytest.raises(Kill):
            fit(model, dataset(), callbacks)
        checkpoint.save()
        assert (tmp_path / "step-16/manifest.json").read_text() == before


def raise_kill():
    raise Kill


def test_an_epochs_end_that_was_killed_comes_again(model, traced, tmp_path):
    class KillAtEnd(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise Kill

    # Step 7 is saved by `every_steps`, and the epoch's end is never reached.
    with pytest.raises(Kill):
        fit(model, dataset(), [KillAtEnd(), TrainingCheckpoint(tmp_path, every_steps=1)])
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1)
    restart(traced)
    data = dataset(checkpoint.restore_latest(model))
    epochs = []
    seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    fit(model, data, [seen, checkpoint], epochs=2)
    assert epochs == [0, 1] and int(model.steps) == 14


def test_a_finished_run_is_left_as_it_is(model, traced, tmp_path):
    fit(model, dataset(), [TrainingCheckpoint(tmp_path)])
    end = snapshot(model)
    restart(traced)
    assert fit(model, dataset(), [TrainingCheckpoint(tmp_path)]) == {}
    assert_same(snapshot(model), end)
    assert names(tmp_path) == [7, 14, 21]


@pytest.mark.parametrize("stops", [True, False])
def test_the_last_epoch_is_kept_if_the_best_weights_are_restored(model, traced, tmp_path, stops):
    checkpoint = TrainingCheckpoint(tmp_path, every_epochs=10)
    stop = {"monitor": "fid_1k", "mode": "min", "patience": 1 if stops else 9}
    early = keras.callbacks.EarlyStopping(**stop, restore_best_weights=True)
    epochs = 9 if stops else 2
    fit(model, dataset(), [Figure([1.0, 2.0]), early, checkpoint], epochs=epochs)
    assert int(model.steps) == 7 and names(tmp_path) == [14]
    with pytest.warns(UserWarning, match="set back from step 14 to 7"):
        assert checkpoint.save() is None
    fit(restart(traced), dataset(), [TrainingCheckpoint(tmp_path)], epochs=3)
    assert int(model.steps) == 21


def test_a_second_fit_in_a_process_is_a_new_one(model, tmp_path):
    checkpoint = TrainingCheckpoint(tmp_path)
    fit(model, dataset(), [checkpoint], epochs=1)
    fit(model, dataset(7), [checkpoint], epochs=2)
    assert int(model.steps) == 21 and names(tmp_path) == [7, 14, 21]


def randomize(model):
    rng = np.random.default_rng(0)
    for variable in [v for variables in state_of(model).values() for v in variables]:
        variable.assign(rng.integers(1, 100, variable.shape))


def with_dropout():
    inputs = keras.Input((tiny.LATENT_DIM,))
    x = layers.Dense(64)(layers.Dropout(0.5)(inputs))
    generator = keras.Model(inputs, layers.Reshape((8, 8, 1))(x))
    inputs = keras.Input((8, 8, 1))
    x = layers.Flatten()(layers.Dropout(0.5)(layers.BatchNormalization()(inputs)))
    model = SAGAN(generator, keras.Model(inputs, layers.Dense(1)(x)), tiny.LATENT_DIM)
    model.compile(keras.optimizers.Adam(amsgrad=True), keras.optimizers.SGD(momentum=0.5))
    return model


@pytest.mark.parametrize(
    "policy, make",
    [("float32", build), ("mixed_float16", with_dropout), ("mixed_bfloat16", with_dropout)],
)
def test_every_variable_comes_back(policy, make, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = make()
    randomize(model)
    begin(model, TrainingCheckpoint(tmp_path)).save()
    other = make()  # Keras numbers its layers on; that doesn't matter.
    assert TrainingCheckpoint(tmp_path).restore_latest(other) == int(model.steps)
    received, expected = (list(snapshot(x).values()) for x in (other, model))
    for one, two in zip(received, expected):
        np.testing.assert_array_equal(one, two)
    assert other.seed == model.seed
    keys = " ".join(snapshot(model))
    expected = {"float32": [], "mixed_float16": ["dynamic_scale"], "mixed_bfloat16": []}[policy]
    expected += ["vector_u"] if make is build else ["seed_generator_state", "velocity_hat"]
    assert all(word in keys for word in [*expected, "iteration", "learning_rate", "moving_mean"])


def begin(model, checkpoint):
    checkpoint.set_model(model)
    checkpoint.set_params({"steps": STEPS, "epochs": 1})
    checkpoint.on_train_begin()
    checkpoint.on_epoch_begin(int(model.steps) // STEPS)
    return checkpoint


# What is kept


def names(directory):
    return sorted({int(re.match(r"step-(\d+)", x.name)[1]) for x in directory.glob("step-*")})


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({}, [7, 14, 21]),
        ({"keep": 1}, [21]),
        ({"every_steps": 5, "every_epochs": None, "keep": 9}, [5, 10, 15, 20, 21]),
        ({"every_epochs": 2}, [14, 21]),
        ({"every_steps": 7, "keep": 2}, [14, 21]),
    ],
)
def test_when_it_saves_and_how_many_it_keeps(model, tmp_path, arguments, expected):
    fit(model, dataset(), [TrainingCheckpoint(tmp_path, **arguments)])
    assert names(tmp_path) == expected
    for step in expected:
        assert sorted(os.listdir(tmp_path / f"step-{step}")) == ["manifest.json", "state.npz"]


class Figure(keras.callbacks.Callback):
    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not None:
            logs["fid_1k"] = self.values[epoch]


def test_the_best_is_kept_apart_and_survives_a_restart(model, traced, tmp_path):
    figure = Figure([9.0, 3.0, float("nan"), 5.0, None, 3.0])
    for epochs in (4, 6):
        checkpoint = TrainingCheckpoint(tmp_path, keep=1, monitor="fid_1k")
        data = dataset(checkpoint.restore_latest(restart(traced)))
        fit(model, data, [figure, checkpoint], epochs=epochs)
        assert names(tmp_path) == [7 * epochs] and names(tmp_path / "best") == [14]
    assert checkpoint.restore_best(model) == 14 and int(model.steps) == 14
    fresh = tiny.build_small_sagan(ema_momentum=0.9)  # For use alone, without optimisers.
    assert TrainingCheckpoint(tmp_path).restore_best(fresh) == 14
    for one, two in zip(fresh.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(one, two)
    assert TrainingCheckpoint(tmp_path / "none").restore_best(fresh) == 0


def test_the_best_of_a_killed_run_makes_way_for_a_better_one_of_an_earlier_step(
    model, traced, tmp_path
):
    for values in ([5.0, 4.0], [3.0, 6.0]):  # The best is of step 14, then of step 7.
        checkpoint = TrainingCheckpoint(tmp_path, every_epochs=9, monitor="fid_1k")
        fit(restart(traced), dataset(), [Figure(values), checkpoint], kill_at=15)
    assert names(tmp_path / "best") == [7] and checkpoint.restore_best(model) == 7


def test_a_rising_figure(model, tmp_path):
    checkpoint = TrainingCheckpoint(tmp_path, monitor="fid_1k", mode="max")
    fit(model, dataset(), [Figure([1.0, 3.0, 2.0]), checkpoint])
    assert names(tmp_path / "best") == [14]


def test_a_first_figure_that_is_not_finite_is_not_the_best(model, tmp_path):
    checkpoint = TrainingCheckpoint(tmp_path, monitor="fid_1k")
    fit(model, dataset(), [Figure([float("nan"), 3.0, 5.0]), checkpoint])
    assert names(tmp_path / "best") == [14]


def test_a_figure_that_never_comes_is_named(model, tmp_path):
    with pytest.warns(UserWarning, match="monitor='fid_1k', and logs of .*g_loss"):
        fit(model, dataset(), [TrainingCheckpoint(tmp_path, monitor="fid_1k")], epochs=1)


# What is said


def test_data_that_do_not_say_their_step_are_taken_to_be_at_the_models(
    model, tmp_path, two, capsys
):
    checkpoint = TrainingCheckpoint(tmp_path)
    step = checkpoint.restore_latest(model)
    fit(model, finite_dataset(), [checkpoint], initial_epoch=2)
    assert step == 14
    assert "the dataset has no known step; it is taken to be 14." in capsys.readouterr().out


def test_it_says_in_a_line_what_it_did(model, traced, tmp_path, capsys):
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1)
    checkpoint.restore_latest(model)
    fit(model, dataset(), [checkpoint], kill_at=9)
    assert "training starts at step 0" in capsys.readouterr().out
    restart(traced)
    TrainingCheckpoint(tmp_path).restore_latest(model)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and "Restored step 9 (2 steps into epoch 2)" in lines[0]


@pytest.mark.parametrize(
    "make, promise",
    [
        (dataset, "the data continue from there"),
        (lambda: dataset().take(99).repeat(), "the same batches in the same order"),
        (finite_dataset, "and in each epoch"),
        (lambda: finite_dataset().shuffle(9).take(3), "this kind of dataset can't be positioned"),
        (lambda: IMAGES, "only with shuffle=False"),
        (lambda: iter(finite_dataset()), "this kind of dataset can't be positioned"),
    ],
)
def test_it_says_what_it_can_promise(model, tmp_path, capsys, make, promise):
    data = make()
    steps = None if isinstance(data, np.ndarray) else STEPS
    TrainingCheckpoint(tmp_path).start(model, data, steps)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and promise in lines[0]


def test_data_that_know_their_step(model, tmp_path):
    begin(model, TrainingCheckpoint(tmp_path)).save()
    model.steps.assign(5)
    begin(model, TrainingCheckpoint(tmp_path, restore=False)).save()
    for start in (0, 3, 5):
        data = dataset(start)
        received = TrainingCheckpoint(tmp_path).start(model, data, STEPS)[0]
        model.steps.assign(0)
        batch, expected = (next(iter(x))[0].numpy() for x in (received, dataset(5)))
        np.testing.assert_array_equal(batch, expected)
    with pytest.raises(ValueError, match="start_step=6 at step 5"):
        TrainingCheckpoint(tmp_path).start(model, dataset(6), STEPS)


# Damage


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path, part=0.5):
    content = bytearray(path.read_bytes())
    content[int(part * len(content))] ^= 16
    path.write_bytes(bytes(content))


def extend(path):
    path.write_bytes(path.read_bytes() + b"0")


def flip_early(path):
    flip(path, 0.02)


def flip_late(path):
    flip(path, 0.97)


@pytest.fixture
def two(model, tmp_path):
    """A folder with the checkpoints of steps 7 and 14, whose states it returns."""
    states = {}
    for step in (7, 14):
        randomize(model)
        model.steps.assign(step)
        states[step] = snapshot(model)
        begin(model, TrainingCheckpoint(tmp_path, restore=False)).save()
    model.steps.assign(0)
    return states


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, extend, flip, flip_early, flip_late, os.remove])
@pytest.mark.parametrize("name", ["state.npz", "manifest.json"])
def test_a_damaged_file_is_named_and_the_one_before_used(model, tmp_path, two, name, damage):
    damage(tmp_path / "step-14" / name)
    checkpoint = TrainingCheckpoint(tmp_path)
    if (name, damage) == ("manifest.json", os.remove):  # As if writing had never ended.
        assert checkpoint.restore_latest(model) == 7
    else:
        with pytest.warns(UserWarning, match=f"step 14 is damaged.*step-14/{name}: "):
            assert checkpoint.restore_latest(model) == 7
    assert_same(snapshot(model), two[7])
    if damage is truncate:  # Training resumes, over the damaged one too.
        fit(model, dataset(7), [checkpoint], epochs=2, steps_per_epoch=STEPS, initial_epoch=1)
        assert names(tmp_path) == [7, 14]
        assert TrainingCheckpoint(tmp_path).restore_latest(model) == 14


@pytest.mark.parametrize(
    "error, said",
    [(ConnectionError("503"), "503"), (MemoryError(), "MemoryError")],
)
@pytest.mark.parametrize("part", ["manifest.json", "state.npz"])
def test_what_cannot_be_read_at_the_moment_is_not_damaged(
    model, tmp_path, two, monkeypatch, part, error, said
):
    def fail(path, *args):
        if str(path).endswith(part):
            raise error
        return open(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files.LocalFiles, "open", staticmethod(fail))
        with pytest.raises(OSError, match=f"step-14 can't be read at the moment.*: {said}. Try"):
            TrainingCheckpoint(tmp_path).restore_latest(model)
    assert TrainingCheckpoint(tmp_path).restore_latest(model) == 14


def test_damage_is_no_reason_to_remove_the_good(model, tmp_path, two):
    flip(tmp_path / "step-14/state.npz")
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1, keep=1)
    with pytest.warns(UserWarning, match="step 14 is damaged"):
        data = dataset(checkpoint.restore_latest(model))
    fit(model, data, [checkpoint], kill_at=9, initial_epoch=1)
    assert names(tmp_path) == [9]


def test_a_damaged_file_of_a_folder_without_its_root_is_named(model, tmp_path, two, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    flip(tmp_path / "step-14/state.npz")
    with pytest.warns(UserWarning, match=f" {tmp_path}/step-14/state.npz: "):
        assert TrainingCheckpoint(tmp_path.name).restore_latest(model) == 7


def test_nothing_but_damage(model, tmp_path, two):
    before = snapshot(model)
    for step in (7, 14):
        truncate(tmp_path / f"step-{step}/state.npz")
    with pytest.raises(OSError, match="Every checkpoint in .* is damaged"), pytest.warns():
        TrainingCheckpoint(tmp_path).restore_latest(model)
    assert_same(snapshot(model), before)


def test_what_was_being_written_is_removed(model, tmp_path, two):
    for name in ("step-3.new", "step-21.new", "step-21"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.npz").write_bytes(b"half")
        (tmp_path / name / "manifest.json.new").write_text("{")
    checkpoint = TrainingCheckpoint(tmp_path)
    assert checkpoint.restore_latest(model) == 14
    begin(model, checkpoint)
    assert names(tmp_path) == [7, 14]


# A full disk


@pytest.fixture
def full_disk(monkeypatch):
    """Call it, and the disk is full from the n-th writing of a file of some name on."""

    def fill(name, times=0, error=None):
        opened = []

        def open_file(path, mode):
            if mode == "wb" and str(path).endswith(name):
                opened.append(path)
                if len(opened) > times:
                    open(path, mode).close()
                    raise error or OSError(errno.ENOSPC, "No space left on device")
            return open(path, mode)

        monkeypatch.setattr(checkpoint_files.LocalFiles, "open", staticmethod(open_file))

    return fill


@pytest.mark.parametrize("name", ["state.npz", "manifest.json"])
def test_a_full_disk(model, tmp_path, two, full_disk, name):
    model.steps.assign(7)
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1)
    data = dataset(checkpoint.restore_latest(model))
    full_disk(name)
    with pytest.raises(OSError, match="No space left .*step 14 is complete; run the") as raised:
        fit(model, data, [checkpoint])
    assert raised.value.errno == errno.ENOSPC
    assert names(tmp_path) == [7, 14]
    assert TrainingCheckpoint(tmp_path).restore_latest(rewound(model)) == 14


def rewound(model):
    model.steps.assign(0)
    return model


def test_a_full_disk_for_the_position_alone(model, tmp_path, full_disk):
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=STEPS)  # At the end of an epoch.
    data = dataset(checkpoint.restore_latest(model))
    full_disk("manifest.json.new")
    with pytest.raises(OSError, match=f"No space left .*step {STEPS} is complete; run the same"):
        fit(model, data, [checkpoint])
    assert TrainingCheckpoint(tmp_path).restore_latest(rewound(model)) == STEPS


def test_a_disk_that_is_really_full(model, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes rights that this process hasn't got")
    try:
        checkpoint = TrainingCheckpoint(tmp_path, every_steps=1, keep=100)
        with pytest.raises(OSError, match="No space left .* is complete") as raised:
            fit(model, dataset(), [checkpoint])
        assert raised.value.errno == errno.ENOSPC
        steps = names(tmp_path)
        assert steps == list(range(1, 1 + len(steps))) and 0 < len(steps) < 21
        assert TrainingCheckpoint(tmp_path).restore_latest(rewound(model)) == steps[-1]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_another_error_in_writing(model, tmp_path, two, full_disk):
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1)
    data = dataset(checkpoint.restore_latest(model))
    full_disk("state.npz", error=PermissionError("not yours"))
    with pytest.raises(OSError, match="can't be written: not yours.*step 14 is complete"):
        fit(model, data, [checkpoint])


# Refusals


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"num_classes": 4},
            r"in `generator`, the checkpoint has `.*` of shape \(5, 2\) and dtype float32 where "
            r"the model has `.*` of shape \(4, 2\)",
        ),
        ({"ema_momentum": None}, "in `ema_generator`, only the checkpoint has `.*` of shape"),
        ({"num_classes": None}, "in `generator`, "),
    ],
)
def test_another_architecture(model, tmp_path, two, change, message):
    num_classes = change.pop("num_classes", tiny.CLASSES)
    other = tiny.build_small_sagan(num_classes, **{"ema_momentum": 0.9, **change})
    other.compile()
    before = snapshot(other)
    with pytest.raises(ValueError, match=message + "(.|\n)*step-14"):
        TrainingCheckpoint(tmp_path).restore_latest(other)
    assert_same(snapshot(other), before)


def test_another_optimizer(tmp_path, two):
    other = tiny.build_small_sagan(ema_momentum=0.9)
    other.compile(d_optimizer="sgd")
    with pytest.raises(ValueError, match="`d_optimizer` is Adam in the checkpoint and SGD in the"):
        TrainingCheckpoint(tmp_path).restore_latest(other)


def test_a_checkpoint_without_the_counts_of_batch_norms(model, tmp_path, two):
    """As this package wrote them before: the statistics are taken as settled."""
    manifest, values = checkpoint_files.CheckpointFiles(str(tmp_path), keep=3).read(14)
    values = {key: x for key, x in values.items() if not key.endswith("num_updates")}
    for part, entries in manifest["variables"].items():
        entries = [x for x in entries if not x[0].endswith("num_updates")]
        manifest["variables"][part] = entries
    old = tmp_path / "old"
    checkpoint_files.CheckpointFiles(str(old), keep=1).write(14, values, manifest)
    TrainingCheckpoint(old).restore_latest(model)
    received, counts = snapshot(model), []
    for key in [key for key in received if key.endswith("num_updates")]:
        two[14].pop(key)
        counts.append(int(received.pop(key)))
    assert len(counts) == 2 and min(counts) > 10**9  # In the generator and its average.
    assert_same(received, two[14])


def test_layers_of_other_names_or_number():
    from keras_sagan.callbacks.model_state import first_difference

    def of(*paths):
        rows = [[path, [2], "float32"] for path in paths]
        return {"variables": {"generator": rows}, "optimizers": {}}

    assert first_difference(of("dense/kernel"), of("dense_3/kernel")) is None
    message = first_difference(of("norm/gamma"), of("norm/beta"))
    assert "`norm/gamma` of shape (2,) and dtype float32 where the model has `norm/beta`" in message
    assert "only the checkpoint has `b/bias`" in first_difference(of("a/a", "b/bias"), of("a/a"))
    assert "only the model has `b/bias`" in first_difference(of("a/a"), of("a/a", "b/bias"))


def test_a_folder_that_cannot_be_written(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="`directory` must be a folder that can be written"):
        fit(model, dataset(), [TrainingCheckpoint(tmp_path / "file" / "run")])


def test_a_run_is_never_mixed_with_another(model, tmp_path, two):
    with pytest.raises(ValueError, match="must not hold a run that is ahead .*step 14"):
        fit(model, dataset(), [TrainingCheckpoint(tmp_path, restore=False)])
    model.steps.assign(20)
    with pytest.raises(ValueError, match="must not be behind the model(.|\n)*step 14 .*20 steps"):
        fit(model, dataset(), [TrainingCheckpoint(tmp_path)])


def test_an_epoch_of_another_length(model, traced, undisturbed, tmp_path):
    fit(model, dataset(), [TrainingCheckpoint(tmp_path, every_steps=1)], kill_at=9)
    restart(traced)
    checkpoint = TrainingCheckpoint(tmp_path)
    with pytest.raises(ValueError, match="An epoch must have 7 steps as before.* 2 steps into"):
        fit(model, dataset(), [checkpoint], steps_per_epoch=8)
    fit(model, dataset(), [checkpoint])  # Put right, it goes on from where it was.
    assert_same(snapshot(model), undisturbed["step"][0])


def test_a_refused_fit_leaves_the_next_one_to_position_its_data(
    model, traced, undisturbed, tmp_path
):
    fit(model, finite_dataset(), [TrainingCheckpoint(tmp_path, 1)], kill_at=9, steps_per_epoch=None)
    restart(traced)
    checkpoint = TrainingCheckpoint(tmp_path)
    with pytest.raises(ValueError, match="validation_split"):
        fit(model, finite_dataset(), [checkpoint], validation_split=0.5, steps_per_epoch=None)
    fit(model, finite_dataset(), [checkpoint], steps_per_epoch=None)
    assert_same(snapshot(model), undisturbed["finite"][0])


def test_data_that_end_too_early(model, traced, tmp_path):
    checkpoint = TrainingCheckpoint(tmp_path, every_steps=1)
    fit(model, finite_dataset(), [checkpoint], kill_at=6, steps_per_epoch=None)
    restart(traced)
    checkpoint = TrainingCheckpoint(tmp_path)
    with pytest.raises(ValueError, match="An epoch must have 7 steps|as many batches as before"):
        fit(model, finite_dataset().take(4), [checkpoint], steps_per_epoch=None)
    train_function = model.train_function
    unknown = finite_dataset().take(4).filter(lambda *batch: True)
    restart(traced)
    checkpoint = TrainingCheckpoint(tmp_path)
    with pytest.raises(ValueError, match="must yield as many batches as before"):
        fit(model, unknown, [checkpoint], steps_per_epoch=None)
    assert model.train_function is train_function


def test_models_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="must be given a compiled SAGAN.*without `d_optimizer`"):
        TrainingCheckpoint(tmp_path).restore_latest(tiny.build_small_sagan())
    other = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="Sequential without `generator`"):
        TrainingCheckpoint(tmp_path).restore_latest(other)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
@pytest.mark.parametrize("name", ["every_steps", "every_epochs", "keep"])
def test_counts_must_be_positive(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1"):
        TrainingCheckpoint(tmp_path, **{name: value})


def test_arguments_that_say_nothing(tmp_path):
    with pytest.raises(ValueError, match="`every_steps` or `every_epochs` must be given"):
        TrainingCheckpoint(tmp_path, every_epochs=None)
    with pytest.raises(ValueError, match='`mode` must be "auto", "min" or "max"'):
        TrainingCheckpoint(tmp_path, mode="least")
    with pytest.raises(ValueError, match='`mode` must be "min" or "max" if'):
        TrainingCheckpoint(tmp_path, monitor="speed")


# Several workers


def test_other_workers_write_nothing(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("keras_sagan.callbacks.checkpoint.is_chief", lambda strategy: False)
    monkeypatch.setattr(model, "_is_one_of_many", True)
    fit(model, dataset(), [TrainingCheckpoint(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_the_manifest_is_plain_json(model, tmp_path, two):
    content = json.loads((tmp_path / "step-14/manifest.json").read_text())
    manifest = content["manifest"]
    assert manifest["step"] == 14 and manifest["seed"] == 7
    assert manifest["optimizers"] == {"optimizer": "Adam", "d_optimizer": "Adam"}


def test_a_step_whose_end_no_callback_saw_is_kept_too(model, tmp_path):
    """As where Ctrl-C comes between a step and what is called after it."""
    checkpoint = TrainingCheckpoint(tmp_path)
    fit(model, dataset(), [checkpoint], epochs=1)
    fit(model, dataset(STEPS), epochs=1, steps_per_epoch=1)
    expected = snapshot(model)
    assert checkpoint.save().endswith(f"step-{STEPS + 1}")
    assign_state(model, 7, {key: 0 * value for key, value in expected.items()})
    assert TrainingCheckpoint(tmp_path).restore_latest(model) == STEPS + 1
    assert_same(snapshot(model), expected)


def test_a_checkpoint_of_fused_adam_fits_adam(tmp_path):
    """As the default optimizer was called in older versions."""
    folder = tmp_path / "run"
    model = tiny.build_small_sagan()
    model.compile(*[FusedAdam(0.01, beta_1=0.5) for _ in range(2)], run_eagerly=True)
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
    data = tiny.images(8), tiny.labels(8)
    model.fit(*data, callbacks=[TrainingCheckpoint(str(folder))], **fit)
    saved = architecture_of(model)
    saved["optimizers"] = dict.fromkeys(saved["optimizers"], "FusedAdam")  # As it was written then.
    check_architecture(model, saved, folder)
    other = tiny.build_small_sagan()
    other.compile(*[keras.optimizers.Adam(0.01, beta_1=0.5) for _ in range(2)], run_eagerly=True)
    assert TrainingCheckpoint(str(folder)).restore_latest(other) == 2
    for one, two in zip(model.variables, other.variables):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    slots = [[v.numpy() for v in x.g_optimizer.variables] for x in (model, other)]
    assert all(np.array_equal(*pair) for pair in zip(*slots)) and np.any(slots[0][-1])
