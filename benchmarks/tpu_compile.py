"""Has the real TPU compiler compile a training step, on a machine without a TPU.

Command:   python benchmarks/tpu_compile.py --preset sagan_imagenet_128 --recipe official \
               --batch_size 32 --topology v5e
Needs:     pip install "jax[tpu]"   (Linux; the compiler is in its libtpu wheel)
Result:    FLOPs, bytes and memory per chip, and whether the step fits; exit code 0 if it does,
           1 if it doesn't or if the step isn't fit for a TPU, 2 for a wrong call

The step is `SAGAN.train_step` as a replica of `TPUStrategy` runs it: batches of fixed shape and the
replica's number go in; both networks, both losses, both Adam updates and all other assignments are
inside. What this proves and what it doesn't: docs/tpu.md.
"""

import argparse
import os
import re
import sys
import time
from importlib import util
from pathlib import Path

import common

# Chips by name: the smallest topology that the compiler knows them in, and the HBM of one chip in
# GB as Google publishes it, here taken as 10^9 bytes, the smaller reading:
# https://cloud.google.com/tpu/docs/v5e, https://cloud.google.com/tpu/docs/v6e and
# https://cloud.google.com/tpu/docs/v5p
CHIPS = {"v5e": ("v5e:2x2", 16), "v6e": ("v6e:2x2", 32), "v5p": ("v5p:2x2x1", 95)}
POLICIES = ("float32", "mixed_bfloat16")
PIP = 'pip install "jax[tpu]"'


def export_step(model, batch_size):
    """Returns the compiled model's training step as StableHLO text.

    Args:
        model: A compiled `SAGAN`.
        batch_size: Positive integer, the images of one replica.
    """
    import tensorflow as tf

    model.make_train_function()  # As `fit` does before the first step.

    def step(replica_id, images, *labels):
        # TPUStrategy gives each replica its number as a tensor, not as a constant.
        with tf.distribute.ReplicaContext(tf.distribute.get_strategy(), replica_id):
            return model.train_step((images, *labels))

    arguments = [
        tf.TensorSpec((), tf.int32),
        tf.TensorSpec((batch_size, *model.image_shape), tf.uint8),
    ]
    if model.num_classes is not None:
        arguments.append(tf.TensorSpec((batch_size,), tf.int32))
    return common.stablehlo_of(step, *arguments)


def find_problems(text):
    """Lists what in the StableHLO of a step a TPU replica couldn't run, or not without its host.

    Args:
        text: String, as from `export_step`.

    Returns:
        List of sentences, empty if all is well.
    """
    problems = []
    dynamic = sorted(set(re.findall(r"tensor<[^>]*\?[^>]*>", text)))
    dynamic += sorted(
        set(
            re.findall(
                r"stablehlo\.(?:real_)?dynamic_(?!slice|update_slice)\w+"
                r"|stablehlo\.real_dynamic_slice|stablehlo\.[gs]et_dimension_size"
                r"|#stablehlo\.bounds<[^>]*>|mhlo\.is_dynamic = true",
                text,
            )
        )
    )
    if dynamic:
        problems.append(f"Shapes aren't static: {', '.join(dynamic[:5])}")
    calls = sorted(set(re.findall(r"stablehlo\.custom_call\s*@?([\w.$]+|\"[^\"]*\")", text)))
    if calls:
        problems.append(f"Custom calls leave the program: {', '.join(calls[:5])}")
    transfers = sorted(set(re.findall(r"stablehlo\.(?:infeed|outfeed|send|recv)\b", text)))
    if transfers:
        problems.append(f"Data go to the host or come from it: {', '.join(transfers)}")
    foreign = sorted(set(re.findall(r"(?<![\w.])(?:mhlo|chlo|tf)\.\w+(?= [%(])", text)))
    if foreign:
        problems.append(f"Operations aren't StableHLO: {', '.join(foreign[:5])}")
    return problems


def compile_step(text, chip):
    """Compiles StableHLO for one chip.

    Args:
        text: String, as from `export_step`.
        chip: String, a key of `CHIPS`.

    Returns:
        Dictionary: FLOPs, bytes accessed and memory of a step as the compiler counts them, or
        its `error` where the step doesn't fit.
    """
    # There is no TPU: nobody is asked where it is, and no process must have it for itself.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    import numpy as np
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies
    from jax.interpreters.mlir import make_ir_context
    from jaxlib import xla_client
    from jaxlib.mlir import ir

    name, hbm_gb = CHIPS[chip]
    device = topologies.get_topology_desc(topology_name=name, platform="tpu").devices[0]
    options = xla_client.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id]]))
    report = {"chip": chip, "device_kind": device.device_kind, "hbm_bytes": int(hbm_gb * 1e9)}
    start = time.perf_counter()
    with make_ir_context():
        try:
            executable = device.client.compile(
                ir.Module.parse(text),
                executable_devices=xla_client.DeviceList((device,)),
                compile_options=options,
            )
        except JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return {**report, "fits": False, "error": str(error).strip()[:2000]}
    cost, memory = executable.cost_analysis(), executable.get_compiled_memory_stats()
    sizes = {
        "argument": memory.argument_size_in_bytes,
        "output": memory.output_size_in_bytes,
        "alias": memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    # Outputs that take the place of arguments (updated variables) are counted once.
    sizes["total"] = sum(sizes.values()) - 2 * sizes["alias"]
    return {
        **report,
        "flops": int(cost["flops"]),
        "bytes_accessed": int(cost["bytes accessed"]),
        "memory_bytes": sizes,
        "fits": sizes["total"] <= report["hbm_bytes"],
        "spare": round(1 - sizes["total"] / report["hbm_bytes"], 4),
        "compile_seconds_on_host": round(time.perf_counter() - start, 1),
        "compiler": device.client.platform_version.replace("\n", ", "),
    }


def describe(report):
    """A report of `compile_step` as lines of text."""
    chip, hbm = report["chip"], report["hbm_bytes"] / 1e9
    if "error" in report:
        return f"{chip}: DOES NOT FIT in {hbm:.0f} GB. The compiler says: {report['error']}"
    memory = {name: size / 1e9 for name, size in report["memory_bytes"].items()}
    verdict = f"fits, {report['spare']:.1%} to spare" if report["fits"] else "DOES NOT FIT"
    return (
        f"{chip} ({report['device_kind']}), per chip and step:\n"
        f"  {report['flops'] / 1e9:12.1f} GFLOP\n"
        f"  {report['bytes_accessed'] / 1e9:12.2f} GB accessed\n"
        + "".join(f"  {memory[name]:12.3f} GB {name}\n" for name in memory if name != "total")
        + f"  {memory['total']:12.3f} GB in all (outputs that replace arguments counted once) "
        f"of {hbm:.0f} GB: {verdict}"
    )


def row(settings, report):
    """The row of docs/tpu.md for a recorded report."""
    memory = {name: size / 1e9 for name, size in report["memory_bytes"].items()}
    cells = [
        *(settings["recipe"], report["chip"], settings["policy"]),
        *(f"{report['flops'] / 1e9:,.0f}", f"{report['bytes_accessed'] / 1e9:.1f}"),
        *(f"{memory[name]:.2f}" for name in ("argument", "temporary", "program", "total")),
        *(f"{report['hbm_bytes'] / 1e9:.0f}", f"{report['spare']:.1%}".replace("%", " %")),
    ]
    return f"| {' | '.join(cells)} |"


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--preset", default="sagan_imagenet_128")
    parser.add_argument("--recipe", help="a recipe of the preset; default: its first one")
    parser.add_argument("--batch_size", type=int, default=32, help="images per chip and step")
    parser.add_argument("--topology", nargs="+", default=["v5e"], help=f"of {', '.join(CHIPS)}")
    parser.add_argument("--policy", default="mixed_bfloat16", help=f"of {', '.join(POLICIES)}")
    parser.add_argument("--base_filters", type=int, help="the width of both networks")
    parser.add_argument("--min_spare", type=float, default=0.0, help="share of the HBM to be free")
    parser.add_argument("--json", help="file to record the result in")
    parser.add_argument("--stablehlo", help="file to keep the exported step in")
    settings = parser.parse_args(arguments)
    for chip in settings.topology:
        if chip not in CHIPS:
            parser.error(f"`--topology` must be of {', '.join(CHIPS)}. Received: {chip}")
    if settings.policy not in POLICIES:
        parser.error(f"`--policy` must be of {', '.join(POLICIES)}. Received: {settings.policy}")
    for name in ("batch_size", "base_filters"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            parser.error(f"`--{name}` must be a positive integer. Received: {value}")
    missing = [name for name in ("jax", "libtpu") if util.find_spec(name) is None]
    if missing:
        parser.error(f"The TPU compiler needs {' and '.join(missing)}: {PIP}")
    return parser, settings


def main(arguments=None):
    parser, settings = parse_arguments(arguments)
    import keras

    import keras_sagan
    from keras_sagan.ops.resampling import reference_forms

    overrides = {}
    if settings.base_filters is not None:
        overrides["base_filters"] = settings.base_filters
    try:
        keras_sagan.models.preset_settings(settings.preset, settings.recipe)
    except ValueError as error:
        parser.error(str(error))
    if settings.recipe is None:
        settings.recipe = next(iter(keras_sagan.models.PRESETS[settings.preset]["recipes"]))
    keras.config.set_dtype_policy(settings.policy)
    model = keras_sagan.SAGAN.from_preset(settings.preset, settings.recipe, seed=0, **overrides)
    model.compile()
    networks = (model.generator, model.discriminator)
    parameters = {network.name: network.count_params() for network in networks}
    with reference_forms():  # As on a TPU.
        text = export_step(model, settings.batch_size)
    del model, networks
    problems = find_problems(text)
    operations = len(re.findall(r"= \"?stablehlo\.", text))
    print(
        f"{settings.preset} {settings.recipe}, {settings.batch_size} images per chip, "
        f"{settings.policy}: a step of {operations} StableHLO operations; "
        + ("; ".join(problems) or "static shapes, no call or transfer to the host"),
        flush=True,
    )
    if settings.stablehlo:
        Path(settings.stablehlo).write_text(text)
    reports = []
    for chip in [] if problems else settings.topology:
        reports.append(compile_step(text, chip))
        print(describe(reports[-1]), flush=True)
    is_fit = not problems and all(
        report["fits"] and report["spare"] >= settings.min_spare for report in reports
    )
    if settings.json:
        common.record(
            __file__,
            settings.json,
            arguments,
            packages=("keras", "tensorflow", "jax", "jaxlib", "libtpu"),
            settings={k: v for k, v in vars(settings).items() if k not in ("json", "stablehlo")},
            parameters=parameters,
            step={"stablehlo_operations": operations, "problems": problems},
            reports=reports,
            fits=is_fit,
            host="no TPU: compiled only, never run",
        )
    return 0 if is_fit else 1


if __name__ == "__main__":
    sys.exit(main())
