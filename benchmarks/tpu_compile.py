"""Has the real TPU compiler compile a training step of JAX, on a machine without a TPU.

Command:   python benchmarks/tpu_compile.py --preset sagan_imagenet_128 --recipe official \
               --batch_size 32 --topology v5e v5e:2x4
Needs:     pip install "jax[tpu]"   (Linux; the compiler is in its libtpu wheel)
Result:    FLOPs, bytes and memory per chip, the collectives between chips, and whether the step
           fits; exit code 0 if it does, 1 if it doesn't or if the step calls its host, 2 for a
           wrong call

The step is the one that `SAGAN.fit` compiles on JAX: both networks, both losses, both Adam updates
and all other assignments. A topology such as v5e:2x4 shares each batch among all of its chips, as
`keras.distribution.DataParallel` does. docs/guides/scaling.md says what this proves.
"""

import argparse
import collections
import os
import re
import sys
import time
from importlib import util

import common

# Chips by name: the smallest topology that the compiler knows them in, and the HBM of one chip in
# GB as Google publishes it, here taken as 10^9 bytes, the smaller reading:
# https://cloud.google.com/tpu/docs/v5e, https://cloud.google.com/tpu/docs/v6e and
# https://cloud.google.com/tpu/docs/v5p
CHIPS = {"v5e": ("v5e:2x2", 16), "v6e": ("v6e:2x2", 32), "v5p": ("v5p:2x2x1", 95)}
POLICIES = ("float32", "mixed_bfloat16")
PIP = 'pip install "jax[tpu]"'
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# There is no TPU: nobody is asked where it is, and no process must have it for itself.
NO_TPU = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}


def lower_step(model, batch_size, topology):
    """Lowers a model's training step for the chips of a topology.

    Args:
        model: A compiled `SAGAN`, built without a distribution: its values stay on the host.
        batch_size: Positive integer, the images per chip.
        topology: String such as `"v5e"` for one chip, or `"v5e:2x4"` for all chips of that shape.

    Returns:
        Tuple of what JAX has lowered, and the list of chips.
    """
    import jax
    import keras
    import numpy as np
    from jax.experimental import topologies

    from keras_sagan.training.jax import make_pure_step

    name, _, shape = topology.partition(":")
    found = topologies.get_topology_desc(
        topology_name=topology if shape else CHIPS[name][0], platform="tpu"
    ).devices
    chips = found if shape else found[:1]
    distribution = keras.distribution.DataParallel(
        keras.distribution.DeviceMesh((len(chips),), ["batch"], np.array(chips))
    )
    mesh = distribution.device_mesh.backend_mesh
    copied = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shared = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    bool(model.judges_apart)  # Known from here on: nothing is computed while tracing.
    step, groups = make_pure_step(model, model.train_step)
    state = tuple(
        [jax.ShapeDtypeStruct(v.shape, v.value.dtype, sharding=copied) for v in group]
        for group in groups()
    )
    count = batch_size * len(chips)
    data = [jax.ShapeDtypeStruct((count, *model.image_shape), "uint8", sharding=shared)]
    if model.num_classes is not None:
        data.append(jax.ShapeDtypeStruct((count,), "int32", sharding=shared))
    with distribution.scope():
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(None, copied))
        return jitted.lower(state, tuple(data)), chips


def find_problems(text):
    """Lists what in a compiled step needs the host.

    Args:
        text: String, the HLO of the step.
    """
    found = set(re.findall(r" (infeed|outfeed|send|recv)\(", text))
    found |= set(re.findall(r'custom_call_target="([^"]*callback[^"]*)"', text))
    return [f"The step calls its host: {name}" for name in sorted(found)]


def count_collectives(text):
    """Counts the exchanges between chips in the HLO of a step, by kind."""
    found = re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", text)
    return dict(collections.Counter(found).most_common())


def compile_step(model, batch_size, topology):
    """Compiles a model's training step for a topology; arguments are those of `lower_step`.

    Returns:
        Dictionary: FLOPs, bytes accessed and memory of a step on each chip as the compiler counts
        them, and the collectives; or its `error` where the step doesn't fit.
    """
    import jax

    start = time.perf_counter()
    lowered, chips = lower_step(model, batch_size, topology)
    report = {
        "topology": topology,
        "chips": len(chips),
        "device_kind": chips[0].device_kind,
        "hbm_bytes": int(CHIPS[topology.partition(":")[0]][1] * 1e9),
    }
    try:
        executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {**report, "fits": False, "problems": [], "error": str(error).strip()[:2000]}
    cost, memory, text = (
        executable.cost_analysis(),
        executable.memory_analysis(),
        executable.as_text(),
    )
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
        "collectives": count_collectives(text),
        "problems": find_problems(text),
        "fits": sizes["total"] <= report["hbm_bytes"],
        "spare": round(1 - sizes["total"] / report["hbm_bytes"], 4),
        "seconds_on_host": round(time.perf_counter() - start, 1),
        "compiler": chips[0].client.platform_version.replace("\n", ", "),
    }


def describe(report):
    """A report of `compile_step` as lines of text."""
    hbm = report["hbm_bytes"] / 1e9
    name = f"{report['topology']} ({report['chips']} {report['device_kind']})"
    if "error" in report:
        return f"{name}: DOES NOT FIT in {hbm:.0f} GB. The compiler says: {report['error']}"
    memory = {name: size / 1e9 for name, size in report["memory_bytes"].items()}
    verdict = f"fits, {report['spare']:.1%} to spare" if report["fits"] else "DOES NOT FIT"
    collectives = ", ".join(f"{n} {kind}" for kind, n in report["collectives"].items()) or "none"
    return (
        f"{name}, per chip and step:\n"
        f"  {report['flops'] / 1e9:12.1f} GFLOP\n"
        f"  {report['bytes_accessed'] / 1e9:12.2f} GB accessed\n"
        + "".join(f"  {memory[name]:12.3f} GB {name}\n" for name in memory if name != "total")
        + f"  {memory['total']:12.3f} GB in all (outputs that replace arguments counted once) "
        f"of {hbm:.0f} GB: {verdict}\n  collectives: {collectives}\n"
        + "".join(f"  {problem}\n" for problem in report["problems"])
    )


def row(settings, report):
    """The row of docs/guides/scaling.md for a recorded report."""
    memory = {name: size / 1e9 for name, size in report["memory_bytes"].items()}
    collectives = ", ".join(f"{n} {kind}" for kind, n in report["collectives"].items()) or "none"
    cells = [
        *(settings["recipe"], report["topology"], str(settings["batch_size"] * report["chips"])),
        *(f"{report['flops'] / 1e9:,.0f}", f"{report['bytes_accessed'] / 1e9:.1f}"),
        *(f"{memory['total']:.2f} of {report['hbm_bytes'] / 1e9:.0f}", collectives),
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
    topologies = f"of {', '.join(CHIPS)} for one chip, with a shape such as v5e:2x4 for several"
    parser.add_argument("--topology", nargs="+", default=["v5e"], help=topologies)
    parser.add_argument("--policy", default="mixed_bfloat16", help=f"of {', '.join(POLICIES)}")
    parser.add_argument("--base_filters", type=int, help="the width of both networks")
    parser.add_argument("--min_spare", type=float, default=0.0, help="share of the HBM to be free")
    parser.add_argument("--json", help="file to record the result in")
    settings = parser.parse_args(arguments)
    for topology in settings.topology:
        if not re.fullmatch(rf"({'|'.join(CHIPS)})(:\d+x\d+(x\d+)?)?", topology):
            parser.error(f"`--topology` must be {topologies}. Received: {topology}")
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
    os.environ.update(NO_TPU)
    import keras

    import keras_sagan

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
    parameters = {x.name: x.count_params() for x in (model.generator, model.discriminator)}
    print(
        f"{settings.preset} {settings.recipe}, {settings.batch_size} images per chip, "
        f"{settings.policy}",
        flush=True,
    )
    reports = []
    for topology in settings.topology:
        reports.append(compile_step(model, settings.batch_size, topology))
        print(describe(reports[-1]), flush=True)
    is_fit = all(
        report["fits"] and not report["problems"] and report["spare"] >= settings.min_spare
        for report in reports
    )
    if settings.json:
        common.record(
            __file__,
            settings.json,
            arguments,
            packages=("keras", "jax", "jaxlib", "libtpu"),
            settings={k: v for k, v in vars(settings).items() if k != "json"},
            parameters=parameters,
            reports=reports,
            fits=is_fit,
            host="no TPU: compiled only, never run",
        )
    return 0 if is_fit else 1


if __name__ == "__main__":
    sys.exit(main())
