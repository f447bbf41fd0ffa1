"""Checkpoints as a user sees them: folders, files, and what comes back."""

import os

import keras
import numpy as np
import pytest
from keras import layers

from keras_sagan import SAGAN
from keras_sagan.callbacks import TrainingCheckpoint
from keras_sagan.models import FusedAdam

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 2, 2, 1), dtype="uint8")
STEPS = 3  # An epoch's.


def build(width=4, seed=0, optimizer=keras.optimizers.Adam):
    """With `width` 4 all kernels but the last have one shape, so that mixed-up slots would fit."""
    keras.utils.set_random_seed(seed)
    latents, images = keras.Input((4,)), keras.Input((2, 2, 1))
    x = layers.Dense(width, "relu", use_bias=False)(latents)
    x = layers.Dense(4, "tanh", use_bias=False)(x)
    generator = keras.Model(latents, layers.Reshape((2, 2, 1))(x))
    x = layers.Dense(width, "relu", use_bias=False)(layers.Flatten()(images))
    x = layers.Dense(4, "relu", use_bias=False)(x)
    discriminator = keras.Model(images, layers.Dense(1)(x))
    model = SAGAN(generator, discriminator, latent_dim=4, ema_momentum=0.9, seed=7)
    model.compile(optimizer(1e-2), optimizer(2e-2), run_eagerly=True)
    return model


def fit(model, directory, callbacks=(), epochs=1, **kwargs):
    callbacks = [*callbacks, TrainingCheckpoint(directory, **kwargs)]
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0}
    return model.fit(IMAGES, epochs=epochs, callbacks=callbacks, **arguments)


def values(model):
    """All that training changes."""
    variables = [*model.variables, *model.ema_generator.variables]
    variables += [*model.g_optimizer.variables, *model.d_optimizer.variables]
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def assert_same(received, expected):
    assert len(received) == len(expected)
    for one, two in zip(received, expected):
        np.testing.assert_array_equal(one, two)


class Interrupted(Exception):
    pass


class InterruptEpochEnd(keras.callbacks.Callback):
    """As a kill while the FID is measured; before it, a callback may have set other rates."""

    def __init__(self, epoch, learning_rate=None):
        super().__init__()
        self.epoch, self.learning_rate = epoch, learning_rate

    def on_epoch_end(self, epoch, logs=None):
        if self.learning_rate is not None:
            self.model.g_optimizer.learning_rate = self.learning_rate
        if epoch == self.epoch:
            raise Interrupted


def test_executions_of_other_lengths_save_when_a_multiple_has_passed(tmp_path):
    model = build()
    model.compile(run_eagerly=True, steps_per_execution=3)
    fit(model, tmp_path, epochs=2, every_steps=2, every_epochs=None)
    assert sorted(os.listdir(tmp_path)) == ["step-3", "step-6"]


# One process that makes several models


@pytest.mark.slow
@pytest.mark.parametrize(
    "width, optimizer",
    [(4, keras.optimizers.Adam), (5, FusedAdam)],
)
def test_a_run_interrupted_at_an_epochs_end_and_resumed_by_new_models(tmp_path, width, optimizer):
    first = build(width, 0, optimizer)
    with pytest.raises(Interrupted):
        fit(first, tmp_path, [InterruptEpochEnd(0)], every_steps=1)
    expected = values(first)
    # The second takes no step: it ends the epoch, which notes its learning rates.
    second = build(width, 1, optimizer)
    fit(second, tmp_path, every_steps=1)
    assert_same(values(second), expected)
    third = build(width, 2, optimizer)
    assert TrainingCheckpoint(tmp_path).restore_latest(third) == STEPS
    assert_same(values(third), expected)
    fit(third, tmp_path, epochs=2)
    undisturbed = build(width, 0, optimizer)
    fit(undisturbed, tmp_path / "undisturbed", epochs=2)
    assert_same(values(third), values(undisturbed))
    # The first one, whose names the file of step 3 has, reads the other's file.
    assert TrainingCheckpoint(tmp_path).restore_latest(first) == 2 * STEPS
    assert_same(values(first), values(third))


def test_a_rate_set_at_an_epochs_end_by_another_model_comes_back(tmp_path):
    with pytest.raises(Interrupted):
        fit(build(), tmp_path, [InterruptEpochEnd(0)], every_steps=1)
    second = build(seed=1)
    fit(second, tmp_path, [InterruptEpochEnd(None, learning_rate=0.125)], every_steps=1)
    third = build(seed=2)
    TrainingCheckpoint(tmp_path).restore_latest(third)
    assert float(third.g_optimizer.learning_rate) == 0.125
    assert_same(values(third), values(second))


class Memory(layers.Layer):
    """A variable that nothing depends on."""

    def build(self, shape):
        self.memory = self.add_weight(name="memory", initializer="zeros", trainable=False)

    def call(self, x):
        return x


@pytest.mark.parametrize("index", [0, 1])
def test_variables_that_share_a_path(tmp_path, index):
    """Layers of nested models may have equal names."""

    def make():
        inputs = [keras.Input((4,)) for _ in range(2)]
        twins = [keras.Model(x, Memory(name="twin")(x)) for x in inputs]
        generator = keras.Sequential(
            [keras.Input((4,)), *twins, layers.Dense(4, "tanh"), layers.Reshape((2, 2, 1))]
        )
        discriminator = keras.Sequential(
            [keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(1)]
        )
        model = SAGAN(generator, discriminator, latent_dim=4, seed=7)
        model.compile(run_eagerly=True)
        return model, [twin.layers[-1].memory for twin in twins]

    class Set(keras.callbacks.Callback):
        value = 1.0

        def on_train_batch_end(self, batch, logs=None):
            memories[index].assign(self.value)

    model, memories = make()
    paths = [memory.path for memory in memories]
    assert paths[0] == paths[1]
    fit(model, tmp_path, [Set()])
    other, received = make()
    TrainingCheckpoint(tmp_path).restore_latest(other)
    assert [float(memory) for memory in received] == [float(memory) for memory in memories]
    Set.value = float("nan")
    with pytest.warns(RuntimeWarning, match=f"Step {2 * STEPS} isn't saved.*twin/memory"):
        fit(model, tmp_path, [Set()], epochs=2)
    assert not list(tmp_path.glob(f"step-{2 * STEPS}*"))


# A user's own files

ELSEWHERE = ["photo.png", "state.npz", "manifest.json", "step-4/state.npz"]
USERS = [
    "notes.txt",
    "step-7.weights.h5",
    "step-7.keras",
    "step-7.txt",
    "step-7.json",
    "step-7.new.txt",
    "step-07/state.npz",
    "step-7.old/manifest.json",
    "step-7_grid.png",
    "step-7.checkpoint",
    "step-20.png",
    "step-20.gif",
    "my-step-7/state.npz",
    "Step-7/state.npz",
    "step-6_samples/0.png",
    "step-8/0.png",
    "step-5/notes/manifest.json",
    "step-21/notes.txt",
    "step-21.new/notes.txt",
    "step-22",
    "best/notes.txt",
    "best/step-7.weights.h5",
    "best/step-20.png",
    "best/step-6_samples/0.png",
]


def tree(directory):
    """The contents of all files by path, and the targets of all links."""
    found = {}
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def write(directory, names):
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"the user's {name}")


@pytest.mark.slow
def test_files_of_other_names_are_left_alone(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    write(elsewhere, ELSEWHERE)
    write(run, USERS)
    for name in ("step-5_photos", "step-23", "step-24.new", "best/step-5_photos", "best/step-23"):
        (run / name).symlink_to(elsewhere, target_is_directory=True)
    users = tree(run)
    write(run, ["step-25.new/state.npz", "step-26/state.npz"])  # Half a checkpoint each.
    expected = tree(elsewhere)
    for epochs in (2, 3):  # The second one resumes the first.
        model = build()
        fit(model, run, epochs=epochs, every_steps=1, keep=2, monitor="g_loss")
        found = tree(run)
        assert {name: found.get(name) for name in users} == users
        assert tree(elsewhere) == expected
    own = {name for name in set(found) - set(users) if not name.startswith("best/")}
    assert own == files_of(3 * STEPS - 1, 3 * STEPS)
    other = build(seed=1)
    assert TrainingCheckpoint(run).restore_latest(other) == 3 * STEPS
    assert_same(values(other), values(model))


def files_of(*steps):
    return {f"step-{step}/{name}" for step in steps for name in ("state.npz", "manifest.json")}


def test_a_file_or_link_with_the_name_of_a_checkpoint(tmp_path):
    for make in (lambda path: path.write_text("mine"), lambda path: path.symlink_to(tmp_path)):
        path = tmp_path / f"step-{STEPS}"
        make(path)
        with pytest.raises(OSError, match=f"step-{STEPS} can't be written: its name is taken"):
            fit(build(), tmp_path)
        path.unlink()
        assert list(tmp_path.iterdir()) == []


# Paths


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, neighbor",
    [
        ("lr[1e-4]", "lr1"),
        ("all*of?", "all-of1"),
        ("back\\slash", "backslash"),
        ("two ]words [大ö", "two"),
    ],
)
def test_every_path_is_taken_as_it_stands(tmp_path, monkeypatch, name, neighbor):
    write(tmp_path / neighbor, sorted(files_of(*range(9))))
    monkeypatch.chdir(tmp_path)
    expected = tree(tmp_path / neighbor)
    for epochs, directory in ((1, tmp_path / name), (2, name)):  # The second one resumes.
        model = build(seed=epochs)
        assert TrainingCheckpoint(directory).restore_latest(model) == STEPS * (epochs - 1)
        arguments = {"every_steps": 1, "keep": 2, "monitor": "g_loss", "mode": "max"}
        fit(model, directory, epochs=epochs, **arguments)
    assert tree(tmp_path / neighbor) == expected
    kept = (2 * STEPS - 1, 2 * STEPS)
    assert {x for x in tree(tmp_path / name) if not x.startswith("best/")} == files_of(*kept)
    assert sorted(os.listdir()) == sorted([name, neighbor])
    other = build(seed=3)
    assert TrainingCheckpoint(tmp_path / name).restore_latest(other) == 2 * STEPS
    assert_same(values(other), values(model))
    assert TrainingCheckpoint(name).restore_best(other) in (STEPS, 2 * STEPS)


def test_a_relative_path_within_such_a_folder(tmp_path, monkeypatch):
    (tmp_path / "lr[1e-4]").mkdir()
    monkeypatch.chdir(tmp_path / "lr[1e-4]")
    model, other = build(), build(seed=1)
    fit(model, "run")
    assert TrainingCheckpoint("run").restore_latest(other) == STEPS
    assert_same(values(other), values(model))


def test_a_path_that_no_file_system_can_have():
    with pytest.raises(ValueError, match="`directory` must not contain NUL"):
        TrainingCheckpoint("a\0b")


def test_a_relative_path_is_one_from_where_the_callback_was_made(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    model, other = build(), build(seed=1)
    first, second = TrainingCheckpoint("run", monitor="g_loss"), TrainingCheckpoint("run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    model.fit(IMAGES, batch_size=4, shuffle=False, verbose=0, callbacks=[first])
    assert second.restore_latest(other) == STEPS and second.restore_best(other) == STEPS
    assert_same(values(other), values(model))
    assert os.listdir(tmp_path / "elsewhere") == []
    monkeypatch.chdir(tmp_path)
    assert TrainingCheckpoint("run").restore_latest(build()) == STEPS
