"""Files: everything comes back, and training goes on as if it had never stopped."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from keras import ops

from keras_sagan import run
from keras_sagan.callbacks import TrainingCheckpoint

IMAGES, LABELS = tiny.images(8), tiny.labels(8)


def train(model, epochs):
    model.fit(IMAGES, LABELS, batch_size=4, shuffle=False, epochs=epochs, verbose=0)


def adams():
    """Other settings than the default, and a schedule, which needs the iterations."""
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-2, 2, 0.5)
    return {
        "g_optimizer": keras.optimizers.Adam(schedule, beta_1=0.3),
        "d_optimizer": keras.optimizers.RMSprop(3e-3, momentum=0.5),
    }


def state(model):
    """All that training moves, by name."""
    found = {}
    for i, weight in enumerate(model.weights):
        found[f"{i} {weight.path}"] = weight
    for side in ("g", "d"):
        for i, variable in enumerate(getattr(model, f"{side}_optimizer").variables):
            found[f"{side}_optimizer {i} {variable.path}"] = variable
    return {name: np.array(value.numpy()) for name, value in found.items()}


def assert_same(received, expected):
    assert list(received) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A file written after one epoch of two, the state then, and the state after both."""
    model = tiny.build_sagan(ema_momentum=0.5, ema_start=1, ttur={"beta_1": 0.1})
    model.compile(**adams(), loss="non_saturating", run_eagerly=True)
    train(model, 1)
    path = tmp_path_factory.mktemp("saving") / "model.keras"
    model.save(path)
    middle = state(model)
    train(model, 1)
    return path, middle, state(model), model.generate(4, seed=0)


@pytest.mark.slow
def test_file_brings_everything_back(stopped):
    path, middle, _, _ = stopped
    model = keras.saving.load_model(path)
    assert_same(state(model), middle)
    assert (model.latent_dim, model.num_classes, model.d_steps) == (3, tiny.CLASSES, 1)
    assert (model.ema_momentum, model.ema_start, model.seed) == (0.5, 1, 7)
    assert model.ttur["beta_1"] == 0.1
    assert int(model.steps.numpy()) == 2
    assert isinstance(model.g_optimizer, keras.optimizers.Adam)
    assert isinstance(model.d_optimizer, keras.optimizers.RMSprop)
    slots = [x for x in model.d_optimizer.variables if len(x.shape) > 1]
    assert slots and any(np.abs(x.numpy()).max() > 0 for x in slots)
    assert int(model.d_optimizer.iterations.numpy()) == 2
    assert int(model.g_optimizer.iterations.numpy()) == 2


@pytest.mark.slow
def test_training_goes_on_from_a_file_as_if_never_stopped(stopped):
    path, middle, end, images = stopped
    model = keras.saving.load_model(path)
    train(model, 1)
    received = state(model)
    assert_same(received, end)
    moved = [name for name in end if not np.array_equal(middle[name], end[name])]
    assert len(moved) > 0.8 * len(end)
    np.testing.assert_array_equal(model.generate(4, seed=0), images)


FRESH = """
import sys
sys.path.insert(0, {folder!r})
import keras, numpy as np, tiny_networks as tiny
import keras_sagan
model = keras.saving.load_model({path!r})
images, labels = tiny.images(8), tiny.labels(8)
model.fit(images, labels, batch_size=4, shuffle=False, verbose=0)
variables = [*model.weights, *model.g_optimizer.variables, *model.d_optimizer.variables]
np.savez({result!r}, *[x.numpy() for x in variables], images=model.generate(4, seed=0))
"""


@pytest.mark.slow
def test_in_a_fresh_process(stopped, tmp_path):
    path, _, end, images = stopped
    result = str(tmp_path / "result.npz")
    folder = str(Path(tiny.__file__).parent)
    code = FRESH.format(folder=folder, path=str(path), result=result)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    received = np.load(result)
    for i, (name, value) in enumerate(end.items()):
        np.testing.assert_array_equal(received[f"arr_{i}"], value, err_msg=name)
    np.testing.assert_array_equal(received["images"], images)


def own_g_loss(fake_logits):
    return ops.mean(ops.square(fake_logits - 2.0))


def own_d_loss(real_logits, fake_logits):
    return ops.mean(ops.square(real_logits - 2.0)) + ops.mean(ops.square(fake_logits))


@pytest.mark.slow
def test_own_losses_through_custom_objects(tmp_path):
    path = tmp_path / "model.keras"
    model = tiny.build_small_sagan()
    model.compile(**tiny.sgd(), loss=(own_g_loss, own_d_loss, 1.0), run_eagerly=True)
    model.save(path)
    objects = {"own_g_loss": own_g_loss, "own_d_loss": own_d_loss}
    again = keras.saving.load_model(path, custom_objects=objects)
    assert tuple(again.loss_functions) == (own_g_loss, own_d_loss, 1.0)
    assert again.run_eagerly
    for one in (model, again):
        train(one, 1)
    assert_same(state(again), state(model))


def test_compile_settings_come_back(tmp_path):
    model = tiny.build_small_sagan()
    model.compile(loss="wasserstein", steps_per_execution=3, jit_compile=False)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.loss_functions == model.loss_functions
    assert again.steps_per_execution == 3 and not again.jit_compile
    assert float(again.d_optimizer.learning_rate) == pytest.approx(4e-4)


@pytest.mark.slow
def test_loss_scale_optimizers_come_back(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = tiny.build_small_sagan()
    model.compile(run_eagerly=True)
    train(model, 1)
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for optimizer in (again.g_optimizer, again.d_optimizer):
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        assert isinstance(optimizer.inner_optimizer, keras.optimizers.Adam)
    assert_same(state(again), state(model))
    train(model, 1)
    train(again, 1)
    assert_same(state(again), state(model))


@pytest.mark.slow
def test_seeds_of_dropout_come_back(tmp_path):
    def build():
        generator = keras.Sequential(
            [keras.layers.Dense(128), keras.layers.Dropout(0.5), keras.layers.Reshape(tiny.SHAPE)]
        )
        discriminator = keras.Sequential(
            [keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
        )
        model = tiny.SAGAN(generator, discriminator, 3, ema_momentum=0.5, d_steps=2, seed=1)
        model.compile(**tiny.sgd(), run_eagerly=True)
        return model

    model = build()
    model.fit(IMAGES, batch_size=4, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    other = build()
    other.load_weights(tmp_path / "model.weights.h5")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for one in (model, again, other):
        one.fit(IMAGES, batch_size=4, shuffle=False, verbose=0)
    for one in (again, other):
        for mine, wanted in zip(tiny.weights(one), tiny.weights(model)):
            np.testing.assert_array_equal(mine, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [None, tiny.CLASSES])
def test_model_that_was_never_compiled(num_classes, tmp_path):
    model = tiny.build_small_sagan(num_classes, ema_momentum=0.9)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert not again.compiled
    for old, new in zip(tiny.weights(model), tiny.weights(again)):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(again.generate(2, seed=0), model.generate(2, seed=0))


def test_load_without_compiling(stopped):
    model = keras.saving.load_model(stopped[0], compile=False)
    assert not model.compiled
    for weight, value in zip(model.weights, stopped[1].values()):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_config_round_trip():
    model = tiny.build_small_sagan(ema_momentum=0.9, ema_start=4, d_steps=3, name="mine")
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert again.name == "mine" and again.d_steps == 3
    objective = {"loss": "relativistic", "r2": 2.0, "augmentation": {"policy": "color"}}
    model = tiny.build_small_sagan(ema_half_life=100, top_k=0.5, objective=objective)
    again = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert (again.ema_half_life, again.top_k) == (100.0, 0.5)
    assert again.objective == {**objective, "r1": 0.0, "every": 1}
    assert keras.saving.get_registered_name(type(model)) == "keras_sagan>SAGAN"


@pytest.mark.slow
def test_weights_file(tmp_path):
    model = tiny.build_small_sagan(ema_momentum=0.5)
    model.compile(**tiny.sgd(), run_eagerly=True)
    train(model, 1)
    model.save_weights(tmp_path / "model.weights.h5")
    again = tiny.build_small_sagan(ema_momentum=0.5)
    again.load_weights(tmp_path / "model.weights.h5")
    assert int(again.steps.numpy()) == 2
    for old, new in zip(tiny.weights(model), tiny.weights(again)):
        np.testing.assert_array_equal(old, new)


def test_clone():
    model = tiny.build_small_sagan(ema_momentum=0.5)
    again = keras.models.clone_model(model)
    assert again is not model and again.get_config() == model.get_config()


def test_networks_that_share_layers(tmp_path):
    """A file and a copy would have two layers; training and weights files work."""

    def build():
        shared = keras.layers.Conv2D(tiny.SHAPE[-1], 3, padding="same", name="shared")
        latents, images = keras.Input((tiny.LATENT_DIM,)), keras.Input(tiny.SHAPE)
        x = keras.layers.Dense(128)(latents)
        x = keras.layers.Activation("tanh")(shared(keras.layers.Reshape(tiny.SHAPE)(x)))
        logits = keras.layers.Dense(1)(keras.layers.Flatten()(shared(images)))
        networks = keras.Model(latents, x), keras.Model(images, logits)
        model = tiny.SAGAN(*networks, tiny.LATENT_DIM, ema_momentum=0.5, seed=1)
        model.compile(**tiny.sgd(), run_eagerly=True)
        return model

    model = build()
    model.fit(IMAGES, verbose=0, callbacks=[TrainingCheckpoint(tmp_path / "checkpoints")])
    for action in (
        lambda: model.save(tmp_path / "model.keras"),
        lambda: tiny.SAGAN.from_model(model),
        lambda: run.fit(model, IMAGES, tmp_path / "run", 1, 1),
    ):
        with pytest.raises(ValueError, match="must not share.*save_weights.*shared/kernel"):
            action()
    assert not (tmp_path / "model.keras").exists() and not (tmp_path / "run").exists()
    model.save_weights(tmp_path / "model.weights.h5")
    again, resumed = build(), build()
    again.load_weights(tmp_path / "model.weights.h5")
    checkpoint = TrainingCheckpoint(tmp_path / "checkpoints")
    resumed.fit(IMAGES, verbose=0, callbacks=[checkpoint])  # The only epoch is done.
    for other in (again, resumed):
        for mine, wanted in zip(tiny.weights(other), tiny.weights(model), strict=True):
            np.testing.assert_array_equal(mine, wanted)
