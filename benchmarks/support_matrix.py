"""What works on which devices, under which strategy, with XLA or not, in which precision?

Command:   python benchmarks/support_matrix.py --json
Measures   every combination that needs no GPU or TPU: tiny networks with every layer of SAGAN train
           three steps, on one CPU device, on two logical ones, and in two processes; all state
           must stay finite and move, every replica must have the same bits, and the losses must be
           those of float32 without XLA, on one device where batch statistics are synchronised, to
           1e-4 or, in a mixed policy, to 5e-2; or the combination must be refused
Result:    benchmarks/results/support_matrix.json and the table of docs/compatibility.md; about 2
           minutes on 2 CPU cores. The exit code is 1 if a combination neither works nor is refused
"""

import json
import os
import socket
import subprocess
import sys
from unittest import mock

import common
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_sagan import (
    SAGAN,
    ConditionalBatchNorm,
    SelfAttention2D,
    SNConv2D,
    SNDense,
    SNEmbedding,
)
from keras_sagan.data import make_dataset
from keras_sagan.distribution import make_strategy
from keras_sagan.training import backend

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
# The device and the strategy of each row, as they stand in the table.
ROWS = {
    "one": ("CPU", '`"none"`'),
    "mirrored": ("CPU, two logical devices", '`"mirrored"`'),
    "multi_worker": ("CPU, two processes", '`"multi_worker"`'),
    "gpu": ("GPU", '`"none"`'),
    "gpus": ("GPUs", '`"mirrored"`, `"multi_worker"`'),
    "tpu": ("TPU", '`"tpu"`'),
}
WORKS, REFUSED, UNKNOWN = "works", "refused", "not tried"
STEPS, BATCH = 3, 8
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (STEPS * BATCH, 8, 8, 1)).astype("uint8")
LABELS = RNG.integers(0, 3, STEPS * BATCH).astype("int32")


def build_model(synchronized):
    """Tiny networks with every layer of SAGAN's."""
    keras.utils.set_random_seed(3)
    latents, labels = keras.Input((4,)), keras.Input((), dtype="int32")
    x = layers.Reshape((4, 4, 8))(SNDense(4 * 4 * 8)(latents))
    norm = ConditionalBatchNorm(3, momentum=0.9, synchronized=synchronized, name="norm")
    x = norm(x, labels)
    x = SelfAttention2D(key_reduction=4)(layers.UpSampling2D()(layers.ReLU()(x)))
    images = layers.Activation("tanh", dtype="float32")(SNConv2D(1, 3, padding="same")(x))
    generator = keras.Model([latents, labels], images)
    images, labels = keras.Input((8, 8, 1)), keras.Input((), dtype="int32")
    x = SNConv2D(8, 3, strides=2, padding="same", activation="relu")(images)
    x = keras.ops.sum(x, axis=(1, 2))
    rows = layers.Dot(axes=1, dtype="float32")([x, SNEmbedding(3, 8)(labels)])
    logits = layers.Add(dtype="float32")([SNDense(1, dtype="float32")(x), rows])
    discriminator = keras.Model([images, labels], logits)
    return SAGAN(generator, discriminator, 4, 3, ema_momentum=0.9, seed=5)


def train(strategy, jit_compile, policy, synchronized=False):
    """Trains a model, and returns it with its weights of before and the losses of the epoch."""
    keras.config.set_dtype_policy(policy)
    try:
        with strategy.scope():
            model = build_model(synchronized)
            optimizers = [keras.optimizers.SGD(0.01, momentum=0.5) for _ in "gd"]
            if policy == "mixed_float16":
                # Keras's first scale, 2^15, overflows: steps would be left out until it fits.
                optimizers = [keras.optimizers.LossScaleOptimizer(x, 128.0) for x in optimizers]
            model.compile(*optimizers, jit_compile=jit_compile)
    finally:
        keras.config.set_dtype_policy("float32")
    before = model.get_weights()
    dataset = make_dataset(IMAGES, LABELS, BATCH, shuffle=False, repeat=False)
    history = model.fit(dataset, verbose=0).history
    return model, before, {name: history[name][0] for name in ("g_loss", "d_loss")}


def replicas_agree(model):
    """Whether every copy of every variable has the same bits on the replicas of this process."""
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    variables = [*model.variables, *model.optimizer.variables]
    for variable in variables:
        copies = [np.asarray(x) for x in getattr(variable.value, "values", [variable.value])]
        if id(variable) not in metrics and any((copies[0] != x).any() for x in copies[1:]):
            return False
    return True


def attempt(strategy, jit_compile, policy, expected, synchronized=False):
    """Says what becomes of a combination: `"works"`, `"refused: …"`, or else what went wrong.

    Args:
        strategy: A `tf.distribute.Strategy`.
        jit_compile: Boolean.
        policy: String, the dtype policy.
        expected: Dictionary, the losses that float32 without XLA has.
        synchronized: Boolean, whether batch statistics are. Defaults to `False`.
    """
    try:
        print(type(strategy).__name__, jit_compile, policy, synchronized, file=sys.stderr)
        model, before, losses = train(strategy, jit_compile, policy, synchronized)
    except ValueError as error:
        is_ours = str(error).startswith("`") and "Received: " in str(error)
        return f"{REFUSED if is_ours else 'fails'}: {error}"
    except Exception as error:
        return f"fails: {type(error).__name__}: {error}"
    after = model.get_weights()
    if not all(np.isfinite(x).all() for x in after):
        return "fails: the state isn't finite"
    if not any((x != y).any() for x, y in zip(before, after)):
        return "fails: nothing has moved"
    if not replicas_agree(model):
        return "fails: the replicas don't agree"
    tolerance = 1e-4 if policy == "float32" else 5e-2
    if any(abs(losses[name] - expected[name]) > tolerance for name in expected):
        return f"fails: the losses are {losses}, and without XLA in float32 {expected}"
    return WORKS


def attempt_all(strategy, expected, policies=POLICIES):
    """What becomes of all combinations under a strategy.

    Args:
        strategy: A `tf.distribute.Strategy`.
        expected: Dictionary, the losses of one device in float32 without XLA.
        policies: The names of dtype policies. Defaults to all.

    Returns:
        Dictionary from `(jit_compile, policy)`, as a string, to what `attempt` says. Over several
        replicas batch statistics are synchronised, and aren't where XLA compiles; `"XLA,
        synchronized"` is what comes of both.
    """
    is_one = strategy.num_replicas_in_sync == 1
    found = {f"False {x}": attempt(strategy, False, x, expected, not is_one) for x in policies}
    if not is_one:  # Each has the statistics of its own part of the batch.
        expected = train(strategy, False, "float32", synchronized=False)[2]
    found |= {f"True {x}": attempt(strategy, True, x, expected) for x in policies}
    if not is_one:
        found["XLA, synchronized"] = attempt(strategy, True, "float32", expected, True)
    return found


def attempt_tpu():
    """What a model says that is built under a `TPUStrategy`, in as far as it says it unasked."""
    found = {}
    for jit_compile in (False, True):
        for policy in POLICIES:
            keras.config.set_dtype_policy(policy)
            model = build_model(synchronized=False)
            keras.config.set_dtype_policy("float32")
            # There is no TPU to make one with; what is looked at is its class and its variables.
            model._strategy = object.__new__(tf.distribute.TPUStrategy)
            model._strategy._extended = tf.distribute.get_strategy().extended
            try:
                with mock.patch.object(backend, "check_scope"):
                    model.compile(jit_compile=jit_compile)
                found[f"{jit_compile} {policy}"] = UNKNOWN
            except ValueError as error:
                found[f"{jit_compile} {policy}"] = f"{REFUSED}: {error}"
    return found


def attempt_workers(expected):
    """What becomes of all combinations in two processes, which must agree."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]
    workers = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": hosts}, "task": task})
        command = [sys.executable, __file__, "--worker", json.dumps(expected)]
        options = {"env": {**os.environ, "TF_CONFIG": config}, "text": True}
        workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, **options))
    try:
        outputs = [worker.communicate(timeout=600)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    if any(worker.returncode for worker in workers):
        raise RuntimeError("A worker ended without a result; its error is above.")
    first, second = (json.loads(output.splitlines()[-1]) for output in outputs)
    return {
        key: value if value == second[key] else f"fails: worker 0 {value}, worker 1 {second[key]}"
        for key, value in first.items()
    }


def table(found):
    """The table of docs/compatibility.md: a row for each device, strategy and use of XLA.

    Args:
        found: Dictionary from `"one"`, `"mirrored"`, `"multi_worker"` and `"tpu"` to what the
            functions above return.
    """
    lines = [f"| device | strategy | XLA | {' | '.join(POLICIES)} |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        for jit_compile in (False, True):
            cells = [*ROWS[row], "yes" if jit_compile else "no"]
            for policy in POLICIES:
                said = found.get(row, {}).get(f"{jit_compile} {policy}", UNKNOWN).split(":")[0]
                is_apart = jit_compile and said == WORKS and "XLA, synchronized" in found[row]
                cells.append(f"{said}, unsynchronized" if is_apart else said)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def reasons(found):
    """The messages of all refusals, each once."""
    texts = (text for row in found.values() for text in row.values())
    return sorted({x.removeprefix(f"{REFUSED}: ") for x in texts if x.startswith(REFUSED)})


def main(arguments=None):
    parser = common.argument_parser(__doc__, "support_matrix")
    parser.add_argument("--worker", help="the losses of one device: to be a worker of TF_CONFIG")
    settings = parser.parse_args(arguments)
    if settings.worker:
        found = attempt_all(make_strategy("multi_worker"), json.loads(settings.worker))
        print(json.dumps(found))
        return 0
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = make_strategy("none")
    expected = train(one, False, "float32")[2]
    found = {
        "one": attempt_all(one, expected),
        "mirrored": attempt_all(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), expected),
        "multi_worker": attempt_workers(expected),
        "tpu": attempt_tpu(),
    }
    common.record(__file__, settings.json, arguments, found=found)
    print(table(found))
    print("\n".join(reasons(found)))
    failures = [f"{row}, {k}: {v}" for row in found for k, v in found[row].items() if "fails" in v]
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
