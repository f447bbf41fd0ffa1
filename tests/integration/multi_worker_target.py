"""Workers of one job, for `test_multi_worker.py`, which writes jobs to this as lines of JSON.

As in `kill_target.py`, TensorFlow is imported once and a process is forked for each job. Answers
are lines of JSON too: `{"started": 123}`, and `{"ended": 123, "code": 0}` when it has ended. A job:

    {"function": "train", "index": 0, "ports": [1234, 1235], "workdir": "…", …}

Without `ports` it is a job of one device. What a worker prints goes to `log-<index>`.
"""

import atexit
import functools
import hashlib
import json
import os
import select
import sys
import time
import traceback
import types
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import support_matrix
from keras import layers

from keras_sagan import SAGAN, ConditionalBatchNorm, SelfAttention2D, SNConv2D, SNDense
from keras_sagan import run as runs
from keras_sagan.callbacks import (
    AttentionFigure,
    AttentionMonitor,
    CollapseMonitor,
    FIDEvaluator,
    SampleGrid,
    SpectralMonitor,
    StopOnNonFinite,
    TrainingCheckpoint,
)
from keras_sagan.callbacks.model_state import keyed, state_of
from keras_sagan.data import make_dataset
from keras_sagan.distribution import check_workers_agree, make_strategy
from keras_sagan.metrics import FrechetInceptionDistance

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 8, 8, 1)).astype("uint8")
LABELS = RNG.integers(0, 3, 40).astype("int32")
STEPS_PER_EPOCH = 5


def build_model(filters=8, seed=5, size=8, num_classes=3, **arguments):
    latents, labels = keras.Input((4,)), keras.Input((), dtype="int32")
    x = layers.Reshape((4, 4, filters))(SNDense(4 * 4 * filters)(latents))
    x = ConditionalBatchNorm(num_classes, momentum=0.9, synchronized=True)(x, labels)
    x = layers.UpSampling2D(size // 4)(layers.ReLU()(x))
    x = SelfAttention2D(key_reduction=4)(x)
    images = layers.Activation("tanh")(SNConv2D(1, 3, padding="same")(x))
    generator = keras.Model([latents, labels], images)
    images, labels = keras.Input((size, size, 1)), keras.Input((), dtype="int32")
    x = SNConv2D(8, 3, strides=2, padding="same", activation="relu")(images)
    x = layers.Concatenate()([layers.Flatten()(x), layers.Embedding(num_classes, 4)(labels)])
    discriminator = keras.Model([images, labels], SNDense(1)(x))
    model = SAGAN(generator, discriminator, 4, num_classes, ema_momentum=0.9, seed=seed)
    # Plain sums, in which a wrong factor shows, with slots to restore.
    rates = [keras.optimizers.SGD(0.05, momentum=0.5) for _ in range(2)]
    model.compile(*rates, **arguments)
    return model


def values_of(model):
    return {key: v.numpy() for key, v in keyed(state_of(model)).items()}


class Watch(keras.callbacks.Callback):
    """Keeps the figures and the state after the first epoch; says each step that is done."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_train_begin(self, logs=None):
        self.step = self.model.steps.numpy()

    def on_train_batch_end(self, batch, logs=None):
        before, self.step = self.step, self.model.steps.numpy()
        if self.step > before:  # After a restart the epoch's earlier steps pass without work.
            with open(self.folder / "progress", "a") as file:
                file.write(f"{self.step}\n")

    def on_epoch_end(self, epoch, logs=None):
        figures = {f"figure:{name}": float(value) for name, value in logs.items()}
        np.savez(self.folder / f"epoch-{epoch}.npz", **values_of(self.model), **figures)


class Forget(keras.callbacks.Callback):
    """Takes the figure away on all workers but the first, whose figures decide."""

    def __init__(self, name, folder):
        super().__init__()
        self.name, self.is_first = name, folder.name != "worker-1"

    def on_epoch_end(self, epoch, logs=None):
        if not self.is_first:
            del logs[self.name]


def train(strategy, workdir, folder, epochs=2, every_steps=None, looks=True, **arguments):
    # Every worker and every life begins with other weights: the first worker's are taken by all,
    # and a checkpoint's replace them.
    keras.utils.set_random_seed(3 if folder.name in ("alone", "worker-0") else os.getpid())
    with strategy.scope():
        model = build_model(**arguments)
    metric = FrechetInceptionDistance(lambda x: x[:, ::4, ::4, 0])
    fid = FIDEvaluator(metric, IMAGES, num_images=20, batch_size=10)
    step, checkpoint = 0, []
    if every_steps:
        last = TrainingCheckpoint(workdir / "checkpoints", every_steps, monitor=fid.name)
        checkpoint = [Forget(fid.name, folder), last]
        step = last.restore_latest(model)
    beside = [fid, StopOnNonFinite(), Watch(folder)]
    if looks:
        beside[1:1] = [
            SampleGrid(folder, images_per_class=2),
            AttentionFigure(folder, num_images=1),
            AttentionMonitor(),
            SpectralMonitor(),
            CollapseMonitor(),
        ]
    model.fit(
        make_dataset(IMAGES, LABELS, 8, seed=2, start_step=step),
        epochs=epochs,
        steps_per_epoch=STEPS_PER_EPOCH,
        callbacks=[*beside, *checkpoint],
        verbose=0,
    )
    values = values_of(model)
    digest = hashlib.sha256(b"".join(v.tobytes() for v in values.values())).hexdigest()
    data = make_dataset(IMAGES, LABELS, 8, shuffle=False, repeat=False)
    result = {
        "steps": int(model.steps.numpy()),
        "digest": digest,
        "evaluated": model.evaluate(data, return_dict=True, verbose=0),
        "fid": fid.history[-1][1],
        "generated": model.generate(5, seed=1).tolist(),
    }
    (folder / "final.json").write_text(json.dumps(result))


def differ(strategy, workdir, folder, checkpoints):
    """Does what workers may not do differently, and writes down what they are told."""
    index = int(folder.name[-1])
    told = {}

    def attempt(name, function):
        try:
            function()
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"

    with strategy.scope():
        preset = ("sagan_fashion_mnist_32", "sagan_cifar10_32")[index]
        attempt("preset", lambda: SAGAN.from_preset(preset))
        model = build_model(seed=5 + index, run_eagerly=True)
        attempt("seed", lambda: model.fit(IMAGES, LABELS, batch_size=8, verbose=0))
        model.seed = 5
        checkpoint = TrainingCheckpoint(checkpoints[index])
        attempt("checkpoint", lambda: checkpoint.restore_latest(model))
        # A host that has no network for the FID.
        found = types.SimpleNamespace(name="fid_50k"), None
        runs.make_strategy = lambda *arguments, **kwargs: strategy
        runs.evaluator_for = lambda *arguments: found[index]
        small = {"output": str(workdir / "fid"), "base_filters": 4, "strategy": "multi_worker"}
        attempt("fid", lambda: runs.train(**small))
    for name, count in (("uneven", 13), ("empty", 9)):
        data = IMAGES[:count], LABELS[:count], 8
        attempt(name, functools.partial(model.fit, *data, shuffle=False, verbose=0))
    images = IMAGES / np.float32(127.5) - (1.0, np.nan)[index]
    attempt("nan", lambda: model.fit(images, LABELS, batch_size=8, shuffle=False, verbose=0))
    later = np.where(np.arange(40)[:, None, None, None] < 8, 0.0, images)
    attempt("later", lambda: model.fit(later, LABELS, batch_size=8, shuffle=False, verbose=0))
    told["steps"] = int(model.steps.numpy())
    sizes = make_dataset(IMAGES, LABELS, (4, 8)[index])
    attempt("batch_size", lambda: model.fit(sizes, steps_per_epoch=1, verbose=0))
    with strategy.scope():
        if index:  # A network more: this waits for the other worker.
            attempt("networks", lambda: keras.layers.Dense(1).build((None, 2)))
        attempt("networks", lambda: check_workers_agree(strategy, seed=5))
    (folder / "told.json").write_text(json.dumps(told))


def end(strategy, workdir, folder, seconds):
    """Leaves after some seconds, other ones on each worker, as an interpreter does."""
    check_workers_agree(strategy, seed=5)
    time.sleep(seconds[int(folder.name[-1])])
    atexit._run_exitfuncs()


def support(strategy, workdir, folder):
    """Finds a cell of `docs/compatibility.md` again."""
    alone = support_matrix.train(strategy, False, "float32", synchronized=False)[2]
    found = support_matrix.attempt(strategy, True, "mixed_bfloat16", alone)
    (folder / "found.json").write_text(json.dumps({"True mixed_bfloat16": found}))


def follow(workdir, folder, script):
    """Runs the script of `docs/guides/scaling.md` as it stands, but for tiny networks."""
    os.chdir(workdir)
    fit, short = SAGAN.fit, {"epochs": 1, "steps_per_epoch": 2}
    SAGAN.from_preset = lambda name, seed: build_model(seed=seed, size=32, num_classes=10)
    SAGAN.fit = lambda self, *args, **kwargs: fit(self, *args, **{**kwargs, **short})
    names = {}
    exec(script, names)
    weights = b"".join(x.tobytes() for x in names["model"].get_weights())
    result = {
        "replicas": names["strategy"].num_replicas_in_sync,
        "steps": int(names["model"].steps.numpy()),
        "digest": hashlib.sha256(weights).hexdigest(),
    }
    (folder / "final.json").write_text(json.dumps(result))


def run(function, workdir, index=None, ports=None, tf_configs=None, **arguments):
    workdir = Path(workdir)
    folder = workdir / ("alone" if ports is None else f"worker-{index}")
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    if tf_configs is not None:
        os.environ["TF_CONFIG"] = tf_configs[index]
        return follow(workdir, folder, **arguments)
    if ports is not None:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        task = {"type": "worker", "index": index}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    strategy = make_strategy("none" if ports is None else "multi_worker")
    globals()[function](strategy, workdir, folder, **arguments)


def serve():
    print(json.dumps({"ready": True}), flush=True)
    while True:
        if select.select([sys.stdin], [], [], 0.05)[0]:
            line = os.read(0, 1 << 16).decode()
            if not line:
                return
            process = os.fork()
            if process == 0:
                code = 1
                try:
                    run(**json.loads(line))
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush(), sys.stderr.flush()
                    os._exit(code)
            print(json.dumps({"started": process}), flush=True)
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            continue
        if process:
            code = os.waitstatus_to_exitcode(status)
            print(json.dumps({"ended": process, "code": code}), flush=True)


if __name__ == "__main__":
    serve()
