"""Where does the time of a training step go?

Command:   python benchmarks/profile_step.py --json
Measures   the operations of a training step by TensorFlow's profiler, summed by layer and by kind.
           Two operations run at a time on two cores, so that the sum is larger than the step
Result:    benchmarks/results/profile_step.json and tables; about a minute on 2 CPU cores
"""

import collections
import re
import tempfile
from pathlib import Path

import common
import tensorflow as tf
import train_step

# What contains other events, or waits for them.
NOT_WORK = ("Process", "Run", "EagerLocalExecute", "Start", "Done", "Execute")
# What XLA compiled runs inside of another event, which says for which operation.
XLA, AROUND_XLA = "ExecuteAsyncOnStream", "ExecutorState::ProcessAsync::Start"
KINDS = (  # The first that is found in the name of a layer.
    ("attention", "attention"),
    ("norm", "batch norm"),
    ("relu", "ReLU"),
    ("_sum", "sums of blocks"),
    ("conv", "convolution"),
    ("shortcut", "convolution"),
    ("start|logits|embedding", "dense and embedding"),
)


def profile(step, steps=3):
    """Milliseconds a step of each operation, by its name."""
    for _ in range(3):
        step()
    spent = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(steps):
                step()
        for plane in read_planes(folder):
            names = {key: value.name for key, value in plane.event_metadata.items()}
            stats = {key: value.name for key, value in plane.stat_metadata.items()}
            for line in plane.lines:
                around = None
                for event in sorted(line.events, key=lambda event: event.offset_ps):
                    name, _, kind = names[event.metadata_id].rpartition(":")
                    is_inner = kind.startswith(" ")  # A call of several, or a part of one.
                    if names[event.metadata_id] == AROUND_XLA:
                        refs = {stats[x.metadata_id]: x.ref_value for x in event.stats}
                        around = stats.get(refs.get("name"))
                    if kind == XLA and around:
                        name = around
                    if name and kind not in NOT_WORK and not is_inner and name[0] != "$":
                        spent[f"{name}:{kind}"] += event.duration_ps / 1e9 / steps
    return spent


def read_planes(folder):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (path,) = Path(folder).rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    return [plane for plane in space.planes if plane.name == "/host:CPU"]


def layer_of(operation, names):
    """The network and layer that an operation belongs to, in either direction."""
    found = re.search(r"(generator|discriminator)(?:_\d+)?/([^/]+?)(?:_\d+)?/", operation)
    if found and found[2] in names:
        return f"{found[1]}/{found[2]}"
    return "optimizers" if "Adam" in operation or "adam" in operation else "the rest"


def kind_of(operation, names):
    if operation.endswith(XLA):
        return "transforms and sums that XLA compiles"
    layer = layer_of(operation, names)
    name = layer.split("/")[-1]
    return next((kind for pattern, kind in KINDS if re.search(pattern, name)), layer)


def shares(spent, key):
    """Rows of milliseconds and share of the whole, largest first."""
    sums = collections.Counter()
    for name, milliseconds in spent.items():
        sums[key(name)] += milliseconds
    whole = sum(sums.values())
    return [
        {"of": name, "ms": common.rounded(ms, 3), "share": common.rounded(ms / whole, 2)}
        for name, ms in sums.most_common()
    ]


def main(arguments=None):
    parser = common.argument_parser(__doc__, "profile_step")
    train_step.add_step_arguments(parser)
    settings = parser.parse_args(arguments)
    model, step = train_step.make_step(settings, "SAGAN", train_step.batch_of(settings))
    names = {x.name for network in (model.generator, model.discriminator) for x in network.layers}
    spent = profile(step)
    kinds = shares(spent, lambda name: kind_of(name, names))
    layers = shares(spent, lambda name: layer_of(name, names))
    operations = shares(spent, lambda name: name.rpartition(":")[2])
    for rows in (kinds, layers, operations):
        common.print_table(rows)
        print()
    common.record(
        __file__,
        settings.json,
        arguments,
        settings={k: v for k, v in vars(settings).items() if k != "json"},
        kinds=kinds,
        layers=layers,
        operations=operations,
    )


if __name__ == "__main__":
    main()
