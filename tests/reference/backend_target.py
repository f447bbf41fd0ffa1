"""Trains a tiny SAGAN on the backend of KERAS_BACKEND, as `test_training_on_backends.py` asks for.

    python backend_target.py FOLDER            writes FOLDER/SETTING-BACKEND.npz
    python backend_target.py FOLDER DEVICES    some of them on several devices of JAX's

Weights, latents, labels and batches are the same on every backend. A folder with `saved.keras` has
a model that goes on training: `continued-BACKEND.npz` is how it ends, and `saved-BACKEND.keras`
the model then. With a checkpoint in `half`, `half-BACKEND.npz` is how its run goes on.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tiny_networks as tiny
from keras import ops

import keras_sagan  # Before `load_model`: it registers the classes.
from keras_sagan.callbacks import TrainingCheckpoint
from keras_sagan.training import backend, input_gradient

STEPS, BATCH, RATE = 10, 8, 0.001
SIZES = {
    ("generator", "query"): 0.003,
    ("generator", "key"): 0.003,
    ("generator", "start"): 0.04,
    ("generator", "output"): 0.06,
    ("discriminator", "query"): 0.03,
    ("discriminator", "key"): 0.03,
    ("discriminator", "logits"): 0.5,
}
ROUNDING = 3e-7  # Of a variable's length: few steps in float32, where it hardly changes.
BACKEND = keras.backend.backend()

SHARED = ("conditional", "mixed_float16")  # What two devices of JAX's train too.


def flipped(images, uniform):
    uniform(1)  # Drawn as in an augmentation, and left: each backend has its own numbers.
    return ops.flip(images, axis=2)


def r1(judge, real, fake):
    images, labels = real
    gradient = input_gradient(lambda x: judge(x, labels), images)
    return 0.05 * ops.mean(ops.sum(ops.square(gradient), axis=(1, 2, 3)))


def g_relativistic(real_logits, fake_logits):
    return ops.mean(ops.softplus(real_logits - fake_logits))


def d_relativistic(real_logits, fake_logits):
    return ops.mean(ops.softplus(fake_logits - real_logits))


SETTINGS = {  # Arguments of the model and of `compile`; every layer is in the first.
    "conditional": ({"smooth": True, "d_steps": 2, "ema_momentum": 0.9}, {}),
    "unconditional": (
        {"num_classes": None},
        {"augmentation": flipped, "penalty": r1, "loss": (g_relativistic, d_relativistic)},
    ),
    # A loss without a kink, as rounding is coarse. The second with two loss scales that grow.
    "mixed_bfloat16": ({"ema_momentum": 0.9}, {"loss": "non_saturating"}),
    "mixed_float16": ({"ema_momentum": 0.9}, {"loss": "non_saturating"}),
}


def known_noise(seed, batch, latent_dim, num_classes=None):
    """In place of a backend's own: equal latents and labels, by step and update."""
    _, step, index = seed
    rng = np.random.default_rng(1)
    latents = rng.standard_normal((STEPS + 4, 3, batch, latent_dim)).astype("float32")
    labels = rng.integers(0, tiny.CLASSES, (STEPS + 4, 3, batch)).astype("int32")
    place = ops.cast(step, "int32") * 3 + ops.cast(index, "int32")
    latents, labels = (
        ops.take(x.reshape(-1, *x.shape[2:]), place, axis=0) for x in (latents, labels)
    )
    return latents, None if num_classes is None else labels


def give_known_weights(model):
    rng = np.random.default_rng(2)
    for network in (model.generator, model.discriminator):
        for variable in network.variables:
            layer, name = variable.path.split("/")[-2:]
            value = rng.standard_normal(variable.shape)
            if name == "vector_u":
                variable.assign(value / np.linalg.norm(value))
            elif name in ("kernel", "embeddings"):
                # A normalized kernel moves by a share that falls with its size: all shall move.
                size = SIZES.get((network.name, layer), 0.15)
                variable.assign(size * value / np.sqrt(np.prod(variable.shape[:-1])))


def train(model, start, steps):
    """Trains with known batches; returns all variables, by name, and the last logits."""
    for step in range(start, start + steps):
        labels = None if model.num_classes is None else tiny.labels(BATCH, seed=step)
        # Brighter than the fakes, so that biases have gradients that are more than rounding.
        model.train_on_batch(0.5 * tiny.images(BATCH, seed=step) + 0.5, labels)
    return state(model)


def state(model):
    found = {f"{i:03d} {v.name}": ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
    for name in ("g_optimizer", "d_optimizer"):
        variables = getattr(model, name).variables
        found |= {
            f"{name} {i:03d} {v.path.split('/')[-1]}": ops.convert_to_numpy(v)
            for i, v in enumerate(variables)
        }
    inputs = [tiny.images(BATCH), tiny.labels(BATCH)]
    inputs = inputs[0] if model.num_classes is None else inputs
    found["logits"] = ops.convert_to_numpy(model.discriminator(inputs))
    return {name: np.asarray(value, "float64") for name, value in found.items()}


def scaled(optimizers, growth_steps):
    settings = {"initial_scale": 64.0, "dynamic_growth_steps": growth_steps}
    scale = keras.optimizers.LossScaleOptimizer
    return {key: scale(optimizer, **settings) for key, optimizer in optimizers.items()}


def build_half():
    """A model in mixed_float16, whose loss scale doubles in each second step."""
    keras.config.set_dtype_policy("mixed_float16")
    model = tiny.build_small_sagan()
    model.compile(**scaled(tiny.sgd(RATE), 2))
    keras.config.set_dtype_policy("float32")
    return model


def main(folder, devices=None):
    backend.draw_noise = known_noise
    name = BACKEND if devices is None else f"{BACKEND}-{devices}"
    if devices is not None:
        assert len(keras.distribution.list_devices()) == devices
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    for setting, (arguments, compiled) in SETTINGS.items():
        if devices is not None and setting not in SHARED:
            continue
        policy = setting if setting.startswith("mixed") else "float32"
        keras.config.set_dtype_policy(policy)
        build = tiny.build_sagan if "smooth" in arguments else tiny.build_small_sagan
        model = build(**arguments)
        give_known_weights(model)
        if model.ema_momentum:
            model.restart_average()
        optimizers = tiny.sgd(RATE if "smooth" in arguments else 20 * RATE)
        if policy == "mixed_float16":
            optimizers = scaled(optimizers, 6)
        model.compile(**optimizers, **compiled)
        write(folder / f"{setting}-{name}.npz", state(model), train(model, 0, STEPS))
    keras.config.set_dtype_policy("float32")
    if devices is None and (folder / "saved.keras").exists():
        model = keras.saving.load_model(folder / "saved.keras")
        assert isinstance(model, keras_sagan.SAGAN)
        write(folder / f"continued-{name}.npz", state(model), train(model, 3, 3))
        model.save(folder / f"saved-{name}.keras")
    if devices is None and (folder / "half").exists():
        model = build_half()
        assert TrainingCheckpoint(folder / "half").restore_latest(model) == 3
        write(folder / f"half-{name}.npz", state(model), train(model, 3, 3))


def assert_close(expected, found, share, moves=True):
    """By the length of each variable's change; `moves` says whether each kernel must change."""
    expected, found = dict(np.load(expected)), dict(np.load(found))
    assert list(expected) == list(found)
    for name, value in expected.items():
        if name.startswith("before "):
            continue
        before = expected[f"before {name}"]
        change, length = np.linalg.norm(value - before), np.linalg.norm(before)
        if "kernel" in name and "optimizer" not in name:
            assert change > 0.01 * length or not moves, name
        error = np.linalg.norm(found[name] - value)
        assert error <= share * change + ROUNDING * length, (name, error, change)


def write(path, before, after):
    np.savez(path, **{f"before {key}": value for key, value in before.items()}, **after)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
