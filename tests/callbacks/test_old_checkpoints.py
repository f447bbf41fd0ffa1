"""Folders of format 2, which older versions wrote: `old_checkpoints` is one of a tiny model."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from keras import Input, Sequential, layers, ops

from keras_sagan import SAGAN
from keras_sagan.callbacks import TrainingCheckpoint

FOLDER = Path(__file__).parent / "old_checkpoints"
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 1), dtype="uint8")
STEPS = 3  # An epoch's.


def build():
    generator = Sequential([Input((2,)), layers.Dense(4), layers.Reshape((2, 2, 1))])
    discriminator = Sequential([Input((2, 2, 1)), layers.Flatten(), layers.Dense(1)])
    model = SAGAN(generator, discriminator, latent_dim=2, seed=7)
    model.compile("sgd", "sgd", run_eagerly=True)
    return model


@pytest.fixture(params=["run", "lr[1e-4]"])
def folder(request, tmp_path):
    return shutil.copytree(FOLDER, tmp_path / request.param)


def state_of(model):
    networks = [model.generator, model.discriminator]
    variables = [v for network in networks for v in network.variables] + [model.steps]
    for optimizer in (model.g_optimizer, model.d_optimizer):
        variables += optimizer.variables
    return [ops.convert_to_numpy(v) for v in variables]


def fit(model, checkpoint, epochs):
    arguments = {"batch_size": 2, "shuffle": False, "verbose": 0, "epochs": epochs}
    return model.fit(IMAGES, callbacks=[checkpoint], **arguments)


def test_an_old_run_goes_on(folder, capsys):
    before = {path: path.read_bytes() for path in folder.glob("step-*.*")}
    model = build()
    with pytest.warns(UserWarning, match='order="index_shuffle"') as warned:
        assert TrainingCheckpoint(folder).restore_latest(model) == 2 * STEPS
    assert len([x for x in warned if x.category is UserWarning]) == 1
    with np.load(folder / "expected.npz") as expected:
        for value, name in zip(state_of(model), expected, strict=True):
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
    resumed = build()
    history = fit(resumed, TrainingCheckpoint(folder), epochs=3)
    assert history.epoch == [2] and "Restored step 6" in capsys.readouterr().out
    fit(model, TrainingCheckpoint(folder / "other", restore=False), epochs=1)
    for one, two in zip(state_of(resumed), state_of(model)):
        np.testing.assert_array_equal(one, two)
    assert (folder / "step-9/manifest.json").exists()
    assert {path: path.read_bytes() for path in before} == before
    assert TrainingCheckpoint(folder).restore_latest(build()) == 3 * STEPS
    assert TrainingCheckpoint(folder).restore_best(build()) == 2 * STEPS


@pytest.mark.parametrize("name", ["step-6.json", "step-6.index", "step-6.data-00000-of-00001"])
def test_a_damaged_one_is_named_and_the_one_before_used(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 16
    (folder / name).write_bytes(bytes(content))
    with pytest.warns(UserWarning, match="step 6 is damaged and the previous one"):
        assert TrainingCheckpoint(folder).restore_latest(build()) == STEPS
