"""What do the steps of `SAGAN.fit` cost on a GPU, on JAX and on PyTorch?

Command:   python benchmarks/gpu.py --json [--seconds 600] [--peer NAME=COMMAND] [--profile DIR]
Measures   for each setting, in a process of its own until the seconds are up: the time from the
           start of the process to the end of the first step, seconds a step, images per second,
           the memory of the compiled program, and the share of the card's matrix products, which
           are measured in the same process. The operations are those of XLA's count of the same
           program for a CPU, as it doesn't count those of cuDNN. The second start has the
           compiled programs of the first one in JAX's cache
Against:   the same step written plainly (plain_steps.py), and in the first setting a peer, another
           program that speaks the protocol of train_step.py. All take a step in turn; then `fit`
           and the plain form run alone, without waiting for each step
Needs:     a GPU; pip install "jax[cuda12]" keras, and torch for the row of PyTorch; this package
           may be on PYTHONPATH in place of installed. No TensorFlow
Result:    benchmarks/results/gpu.json and a table, about 10 minutes. Not run on a GPU yet;
           `--smoke` is the same with tiny networks on a CPU
"""

import collections
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import common

FIRST = {
    "backend": "jax",
    "image_size": 128,
    "policy": "mixed_bfloat16",
    "batch_size": 64,
    "base_filters": 64,
    "num_classes": 1000,
    "attention_resolutions": [32],
    "matrix_size": 8192,
}
SETTINGS = {
    "128 px, bfloat16": {},
    "second start": {"is_second_start": True},
    "64 px, bfloat16": {"image_size": 64},
    "128 px, float32": {"policy": "float32"},
    "PyTorch, 128 px, bfloat16": {"backend": "torch"},
    "128 px, bfloat16, batch 256": {"batch_size": 256},
}
SMOKE = {
    **FIRST,
    "image_size": 8,
    "batch_size": 2,
    "base_filters": 4,
    "num_classes": 3,
    "attention_resolutions": [4],
    "matrix_size": 64,
}
KINDS = {  # of kernels, by a part of their names; the first one that fits
    "copy or other layout": "memcpy|memset|copy|transpose|tonhwc|tonchw",
    "convolution": "conv|cudnn|fprop|dgrad|wgrad|xmma|implicit",
    "matrix product": "gemm|cublas|cutlass|nvjet|matmul|dot",
    "reduction": "reduc",
    "other fusion": "fusion|wrapped|loop",
}


# One setting, in a process of its own


def build(setting):
    import keras

    import keras_sagan

    keras.config.set_dtype_policy(setting["policy"])
    keras.utils.set_random_seed(0)
    names = ("image_size", "base_filters", "num_classes", "attention_resolutions")
    shape = {name: setting[name] for name in names}
    model = keras_sagan.SAGAN.from_preset("sagan_imagenet_128", seed=0, **shape)
    model.compile()
    return model


def measure(setting):
    """What there is to know of one setting; `fit` and the plain form take a step in turn."""
    import numpy as np
    import plain_steps

    model, rng = build(setting), np.random.default_rng(0)
    images = rng.integers(0, 256, (setting["batch_size"], *model.image_shape), "uint8")
    batch = images, rng.integers(0, setting["num_classes"], len(images), "int32")
    program, wait = None, plain_steps.waiter(model)
    if setting["backend"] == "jax":
        program = program_of(model, batch)
    losses = plain_steps.first_losses(model, batch, steps=1)
    wait()
    found = {"first_step_seconds": common.rounded(time.time() - setting["started"], 3)}
    found["card"] = card()
    if setting.get("is_second_start"):
        return found
    plain = plain_steps.plain_step(build(setting), batch)
    error = plain_steps.largest_difference(losses, [plain()])
    others, turns, data = {"plain": plain}, [], plain_steps.repeated(batch)
    if setting["peer"]:
        name, command = setting["peer"]
        others[name] = common.Peer(command)
    steps, warmup = setting["steps"], 3
    callback = plain_steps.Turns(wait, others, turns.append)
    model.fit(data, steps_per_epoch=warmup + steps, verbose=0, callbacks=[callback])
    seconds = {name: [turn[name] for turn in turns[warmup:]] for name in turns[0]}
    if setting["peer"]:
        others[name].close()
    figures = common.summarize(seconds)

    def train_plainly():
        for _ in range(steps):
            plain(is_awaited=False)
        plain()

    alone = {
        "fit": lambda: (model.fit(data, steps_per_epoch=1 + steps, verbose=0), wait()),
        "plain": train_plainly,
    }
    forms = {}
    for form, figure in figures.items():
        times = common.alternate({form: alone[form]}, 1, 0)[form] if form in alone else None
        forms[form] = {
            "ms": common.rounded(1e3 * figure["median_seconds"]),
            "images_per_second": common.rounded(len(images) / figure["median_seconds"]),
            "times_faster_than_fit": figure["times_faster"],
            "ms_without_waiting": times and common.rounded(1e3 * times[0] / (1 + steps)),
        }
    found.update(
        forms=forms,
        steps=steps,
        error_of_first_losses=common.rounded(error, 2),
    )
    print(json.dumps(found), flush=True)  # If what follows fails, this is kept.
    found.update(
        memory_mb=memory_of(program),
        peak_tflops=common.rounded(matrix_products(setting)),
    )
    if setting["profile"]:
        import jax

        with jax.profiler.trace(setting["profile"]):
            model.fit(data, steps_per_epoch=3, verbose=0)
            wait()
        found["kernels"] = kernels(setting["profile"])
    return found


def program_of(model, batch):
    """Returns a function that lowers the program of `fit` on JAX. Call it before `fit`."""
    import jax

    made, jit = [], jax.jit

    def kept(*args, **kwargs):
        made.append(jit(*args, **kwargs))
        return made[-1]

    with mock.patch.object(jax, "jit", kept):
        model.make_train_function()
    _ = model.judges_apart  # `fit` finds it out before its first step.

    def lower():
        groups = model.trainable_variables, model.non_trainable_variables
        groups += model.optimizer.variables, model.metrics_variables
        state = tuple([jax.ShapeDtypeStruct(v.shape, v.dtype) for v in group] for group in groups)
        return made[0].lower(state, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in batch))

    return lower


def memory_of(program):
    """Megabytes of the program of `fit`, or on PyTorch of all tensors at their peak."""
    if program is None:
        import torch

        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return {"peak": common.rounded(peak / 2**20)}
    sizes = program().compile().memory_analysis()  # From the cache.
    return {
        "temp": common.rounded(sizes.temp_size_in_bytes / 2**20),
        "arguments": common.rounded(sizes.argument_size_in_bytes / 2**20),
    }


def matrix_products(setting, products=10):
    """TFLOP/s of large products of matrices, in bfloat16 or, on GPUs, in TF32."""
    import keras

    size, dtype = setting["matrix_size"], setting["policy"].removeprefix("mixed_")
    matrix = keras.random.normal((size, size), dtype=dtype, seed=0)

    def run():
        for _ in range(products):
            product = keras.ops.matmul(matrix, matrix)
        keras.ops.convert_to_numpy(keras.ops.cast(product[0, 0], "float32"))

    seconds = statistics.median(common.alternate({"": run}, 5)[""])
    return 2 * size**3 * products / seconds / 1e12


def card():
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def kernels(directory):
    """The share of each kind of kernel in the time of the device, and the longest kernels.

    Of a trace without a device, as on a CPU, those of the host.
    """
    import jax

    path = max(Path(directory).rglob("*.xplane.pb"), key=os.path.getmtime)
    planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    spent, kinds = collections.Counter(), collections.Counter()
    for plane in devices or planes:
        for line in plane.lines:
            if not devices or line.name.startswith("Stream"):
                for event in line.events:
                    spent[re.sub(r"[._]?\d+", "", event.name)[:80]] += event.duration_ns
    for name, time_ in spent.items():
        fits = (kind for kind, part in KINDS.items() if re.search(part, name.lower()))
        kinds[next(fits, "other")] += time_
    total = max(sum(spent.values()), 1)

    def shares(counter, count=None):
        return {name: common.rounded(x / total, 3) for name, x in counter.most_common(count)}

    return {"of_a_device": bool(devices), "kinds": shares(kinds), "longest": shares(spent, 15)}


def count_flops(settings):
    """Operations of a step of `fit` of each setting, by XLA's count in a process without a GPU."""
    import numpy as np

    names, flops = [name for name in FIRST if name != "backend"], {}
    keys = [json.dumps([setting[name] for name in names]) for setting in settings]
    for key, setting in zip(keys, settings):
        if key in flops:
            continue
        model, size = build(setting), setting["batch_size"]
        batch = np.zeros((size, *model.image_shape), "uint8"), np.zeros(size, "int32")
        flops[key] = program_of(model, batch)().cost_analysis()["flops"]
    return [flops[key] for key in keys]


# All settings


def in_new_process(form, argument, cache, seconds, is_smoke, backend="jax", **variables):
    """Runs a function of this file in a process of its own, and returns its result or why not.

    JAX keeps all that it compiles in the folder `cache`.
    """
    variables = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **variables,
    }
    if is_smoke:
        flags = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
        variables.update(JAX_PLATFORMS="cpu", XLA_FLAGS=flags, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    command = [sys.executable, __file__, form, json.dumps(argument)]
    environment = {**os.environ, "KERAS_BACKEND": backend, **variables}
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return {"failed": "the seconds were up"}
    lines = [line for line in done.stdout.splitlines() if line.startswith(("{", "["))]
    if done.returncode:
        found = json.loads(lines[-1]) if lines else {}
        return {**found, "failed": f"exit status {done.returncode}"}
    return json.loads(lines[-1])


def table(rows):
    lines = []
    for row in rows:
        for form, found in row.get("forms", {"": {}}).items():
            lines.append(
                {
                    "setting": row["name"],
                    "form": form or row.get("failed", "first step alone"),
                    "ms": found.get("ms"),
                    "images/s": found.get("images_per_second"),
                    "alone, ms": found.get("ms_without_waiting"),
                    "share": found.get("share_of_peak"),
                    "first step, s": row.get("first_step_seconds"),
                }
            )
    common.print_table(lines)


def main(arguments=None):
    parser = common.argument_parser(__doc__, "gpu")
    parser.add_argument("--seconds", type=float, default=600, help="after which no setting begins")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each form")
    parser.add_argument("--peer", type=common.named_command, help="NAME=COMMAND")
    parser.add_argument("--profile", type=Path, help="folder for a trace of the first setting")
    parser.add_argument("--smoke", action="store_true", help="tiny networks on a CPU")
    settings = parser.parse_args(arguments)
    if settings.peer and settings.peer[0] in ("fit", "plain"):
        parser.error(f"--peer needs another name. Received: {settings.peer[0]}")
    begun, rows = time.monotonic(), []
    # This process measures nothing and must not take the card.
    os.environ["KERAS_BACKEND"] = "jax"
    platforms = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "")}
    os.environ["JAX_PLATFORMS"] = "cpu"

    def left():
        return settings.seconds - (time.monotonic() - begun)

    def write():
        return common.record(
            __file__,
            settings.json,
            arguments,
            card=next((row["card"] for row in rows if "card" in row), None),
            rows=rows,
            settings={
                "seconds": settings.seconds,
                "steps": settings.steps,
                "smoke": settings.smoke,
            },
        )

    with tempfile.TemporaryDirectory() as cache:
        for name, changes in SETTINGS.items():
            setting = {**(SMOKE if settings.smoke else FIRST), **changes}
            if settings.smoke and not changes.keys() <= {"is_second_start", "backend"}:
                continue  # The same again but larger.
            if setting["backend"] == "torch" and importlib.util.find_spec("torch") is None:
                continue
            if left() <= 0:
                break
            is_first = not rows
            also = {
                "started": time.time(),
                "steps": settings.steps,
                "peer": settings.peer if is_first else None,
                "profile": str(settings.profile) if settings.profile and is_first else None,
            }
            found = in_new_process(
                "--measure",
                {**setting, **also},
                cache,
                left(),
                settings.smoke,
                setting["backend"],
                **platforms,
            )
            rows.append({"name": name, **setting, **found})
            print(json.dumps(rows[-1]), flush=True)
            write()
        measured, cpu = [row for row in rows if "peak_tflops" in row], {"JAX_PLATFORMS": "cpu"}
        flops = in_new_process("--flops", measured, cache, None, settings.smoke, **cpu)
    if "failed" in flops:
        print(f"The operations weren't counted: {flops['failed']}")
    else:
        for row, operations in zip(measured, flops):
            row["tflop"] = common.rounded(operations / 1e12)
            for form in row["forms"].values():
                tflops = 1e3 * row["tflop"] / form["ms"]
                form["share_of_peak"] = common.rounded(tflops / row["peak_tflops"], 3)
    table(rows)
    for row in rows:
        if "kernels" in row:
            for part in ("kinds", "longest"):
                shares = row["kernels"][part].items()
                common.print_table([{part: name, "share": share} for name, share in shares])
    return write()


if __name__ == "__main__":
    forms = {"--measure": measure, "--flops": count_flops}
    if sys.argv[1:2] and sys.argv[1] in forms:
        print(json.dumps(forms[sys.argv[1]](json.loads(sys.argv[2]))))
    else:
        main()
