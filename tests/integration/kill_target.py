"""Trains tiny networks, to be killed: `benchmarks/kill_test.py` and `test_kill.py` run this.

It reads jobs as lines of JSON and forks a process for each, so that the backend is imported once:
it has run no operation and has no threads of its own before the fork. It answers with the
process's id, and with its exit code when it ends. A job:

    {"workdir": "…", "mode": "plain" | "xla" | "mirrored" | …, "epochs": 4, "every_steps": 1}

The process appends the number of each step that is done, and saved where that is due, to
`progress`, and the figures of each epoch to `epochs`; `final.json` holds the digest of all state.
With `"every_steps": null` nothing is saved: the run that nobody interrupts.
"""

import contextlib
import hashlib
import json
import os
import sys
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from keras_sagan import SAGAN, ConditionalBatchNorm, SNConv2D, SNDense, SNEmbedding
from keras_sagan.callbacks import TrainingCheckpoint
from keras_sagan.callbacks.model_state import keyed, state_of
from keras_sagan.data import make_dataset

STEPS_PER_EPOCH, BATCH, CLASSES = 7, 4, 3


def build_model(mode):
    """8 x 8 pixels, with every kind of state: u, batch statistics, dropout seeds, slots, EMA."""
    latents, labels = keras.Input((3,)), keras.Input((), dtype="int32")
    x = layers.Reshape((4, 4, 4))(SNDense(64)(latents))
    x = layers.ReLU()(ConditionalBatchNorm(CLASSES, momentum=0.9)(x, labels))
    x = layers.UpSampling2D()(layers.Dropout(0.2)(x))
    generator = keras.Model([latents, labels], SNConv2D(1, 3, padding="same")(x))
    images, labels = keras.Input((8, 8, 1)), keras.Input((), dtype="int32")
    x = layers.LeakyReLU()(SNConv2D(4, 3, strides=2)(images))
    features = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    rows = SNEmbedding(CLASSES, 4)(labels)
    logits = layers.Add()([SNDense(1)(features), layers.Dot(axes=1)([features, rows])])
    discriminator = keras.Model([images, labels], logits)
    model = SAGAN(generator, discriminator, 3, CLASSES, ema_momentum=0.9, seed=11)
    model.compile(**({"jit_compile": mode == "xla"} if mode in ("plain", "xla") else {}))
    return model


def make_data(start_step):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (30, 8, 8, 1)).astype("uint8")
    labels = rng.integers(0, CLASSES, 30)
    return make_dataset(images, labels, BATCH, seed=2, start_step=start_step)


def digest(model):
    """Of the bits of all state, on every replica."""
    total, parts = hashlib.sha256(), {}
    for part, variables in state_of(model).items():
        own = hashlib.sha256()
        for variable in keyed({part: variables}).values():
            copies = getattr(variable.value, "values", None)
            for copy in copies if isinstance(copies, tuple) else [variable.value]:
                own.update(np.ascontiguousarray(keras.ops.convert_to_numpy(copy)).tobytes())
        parts[part] = own.hexdigest()
        total.update(own.digest())
    return {"all": total.hexdigest(), **parts}


def append(path, line):
    with open(path, "a") as file:
        file.write(f"{line}\n")


class Progress(keras.callbacks.Callback):
    """Stands after the checkpoint, so that what it says is done and saved."""

    def __init__(self, path):
        super().__init__()
        self.path, self.step = path, None

    def on_train_batch_end(self, batch, logs=None):
        step = int(keras.ops.convert_to_numpy(self.model.steps))
        if step != self.step:
            append(self.path, step)
        self.step = step


class Figures(keras.callbacks.Callback):
    """Stands before the checkpoint, as what acts on an epoch's figures should."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        append(self.path, json.dumps([epoch, {k: float(v) for k, v in logs.items()}]))


def train(workdir, mode, epochs, every_steps):
    workdir = Path(workdir)
    scope = contextlib.nullcontext()
    if mode == "mirrored":
        import tensorflow as tf

        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
        scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
    # Each life begins with other weights, which only a restored state can hide.
    keras.utils.set_random_seed(4 if not (workdir / "progress").exists() else os.getpid())
    with scope:
        model = build_model(mode)
    step, callbacks = 0, []
    if every_steps is not None:
        checkpoint = TrainingCheckpoint(workdir / "run", every_steps, keep=2)
        step = checkpoint.restore_latest(model)
        callbacks = [checkpoint]
    model.fit(
        make_data(step),
        epochs=epochs,
        steps_per_epoch=STEPS_PER_EPOCH,
        callbacks=[Figures(workdir / "epochs"), *callbacks, Progress(workdir / "progress")],
        verbose=0,
    )
    steps = int(keras.ops.convert_to_numpy(model.steps))
    final = {"steps": steps, "digest": digest(model)}
    (workdir / "final.json").write_text(json.dumps(final))


def serve():
    for line in sys.stdin:
        job = json.loads(line)
        Path(job["workdir"]).mkdir(parents=True, exist_ok=True)
        process = os.fork()
        if process == 0:
            code = 1
            try:
                log = os.open(f"{job['workdir']}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1), os.dup2(log, 2)
                train(**job)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
