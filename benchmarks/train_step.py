"""How long does a training step take?

Command:   python benchmarks/train_step.py --json [--peer NAME=COMMAND]
           python benchmarks/train_step.py --sweep --json --figure
Measures   the training step of `SAGAN` (D then G, two Adams) against the textbook form of
           textbook.py, from the same weights; both make the same updates first. A peer is another
           program that prints `READY` and then, for each line it reads, the seconds of one step.
           --sweep: cost against image size and batch, and the share of the machine's own peak,
           that of a large matrix product in the same run
Needs:     pip install jax   (counts the operations)
Result:    benchmarks/results/train_step.json and a table, about 4 minutes on 2 CPU cores;
           with --sweep train_step_sweep.json and a figure, about 10 minutes
"""

import argparse
import importlib.util
from pathlib import Path

import common
import keras
import numpy as np
import tensorflow as tf
import textbook

import keras_sagan
from keras_sagan.ops.resampling import reference_forms

TOLERANCE = 1e-3  # The sum of float32 roundings, and of the few ReLUs that they switch.
LATENT_DIM = 128
# Forms by name: whether the step is plain, and whether it may use the forms for CPUs.
FORMS = {
    "textbook": (True, False),
    "SAGAN, reference forms": (False, False),
    "SAGAN": (False, True),
}
FIGURE = common.ROOT / "docs" / "images" / "train_step_cost.png"
SHAPE = ("image_size", "base_filters", "batch_size", "num_classes")
SIZES, BATCHES = (32, 64, 128, 256), (4, 8, 16, 32)


def make_model(settings, is_fast=True, optimizers=("auto", "auto")):
    """A SAGAN of the settings, the same at each call."""
    keras.utils.set_random_seed(0)
    shape = {
        "image_size": settings.image_size,
        "base_filters": settings.base_filters,
        "num_classes": settings.num_classes,
        "attention_resolutions": (min(32, settings.image_size // 2),),
    }
    model = keras_sagan.SAGAN(
        keras_sagan.build_generator(latent_dim=LATENT_DIM, **shape),
        keras_sagan.build_discriminator(**shape),
        LATENT_DIM,
        settings.num_classes,
        seed=0,
    )
    for network in (model.generator, model.discriminator):
        for layer in network.layers:
            if isinstance(layer, keras_sagan.SelfAttention2D):
                layer.gamma.assign(0.5)  # At 0 the attention's own gradients are 0.
    model.compile(*optimizers, jit_compile="auto" if is_fast else False)
    return model


def make_step(settings, form, data, optimizers=("auto", "auto")):
    """A model, and a function without arguments that trains it once and returns both losses."""
    is_plain, is_fast = FORMS[form]
    model = make_model(settings, is_fast, optimizers)
    if is_plain:
        model.compile(
            *(optimizers if optimizers[0] != "auto" else textbook.stock_optimizers(model))
        )
        function = tf.function(textbook.training_step(model))
        return model, lambda: [float(x) for x in function(*data)]
    model.make_train_function()

    def step():
        model.reset_metrics()
        logs = model.train_function(iter([data]))
        return [float(logs[name]) for name in ("d_loss", "g_loss")]

    return model, step


def batch_of(settings):
    rng = np.random.default_rng(0)
    shape = (settings.batch_size, settings.image_size, settings.image_size, 3)
    images = tf.constant(rng.integers(0, 256, shape), "uint8")
    return images, tf.constant(rng.integers(0, settings.num_classes, settings.batch_size), "int32")


def largest_error(settings, data):
    """By how much a step of gradient descent differs from the textbook's, relative to its length.

    Of the updates of all weights and states of each network as one vector, and of the losses.
    """
    found = []
    for form in ("textbook", "SAGAN"):
        optimizers = [keras.optimizers.SGD(0.01) for _ in range(2)]
        model, step = make_step(settings, form, data, optimizers)
        networks = (model.generator, model.discriminator)
        before = [network.get_weights() for network in networks]
        losses = step()
        updates = [
            np.concatenate([(new - old).ravel() for new, old in zip(x.get_weights(), weights)])
            for x, weights in zip(networks, before)
        ]
        found.append([*updates, np.array(losses)])
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in zip(*found))


def flops_of(settings, form):
    """Operations of one step by XLA's count."""
    is_plain, is_fast = FORMS[form]
    model = make_model(settings, is_fast)
    step = textbook.training_step(model) if is_plain else lambda *data: model.train_step(data)
    if not is_fast:
        step = reference_forms()(step)
    specs = [tf.TensorSpec.from_tensor(x) for x in batch_of(settings)]
    return common.count_flops(common.stablehlo_of(step, *specs))


def peak(form, **settings):
    """Bytes of the first step of a form, tracing included."""
    settings = argparse.Namespace(**settings)
    small = argparse.Namespace(image_size=32, base_filters=4, batch_size=2, num_classes=2)
    make_step(small, form, batch_of(small))[1]()  # What TensorFlow sets up once.
    return common.peak_of(make_step(settings, form, batch_of(settings))[1])


def matrix_product(size=2048):
    """A large product of matrices: what the machine can do at best. Returns its operations too."""
    matrix = tf.random.normal((size, size))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)[0]))
    return lambda: float(product()), 2 * size**3


def measure(settings, forms, rounds, peer=None, check=True):
    """Rows of a table: seconds and operations of a step of each form, and the share of the peak.

    With `check` the forms must agree first, and the rows have their peaks of memory.
    """
    data = batch_of(settings)
    if check:
        error = largest_error(settings, data)
        if not error <= TOLERANCE:
            raise RuntimeError(f"The forms must agree within {TOLERANCE}. Received: {error}")
    functions = {form: make_step(settings, form, data)[1] for form in forms}
    functions["matrix product"], product_flops = matrix_product()
    if peer:
        functions[peer[0]] = common.Peer(peer[1])
    seconds = common.alternate(functions, rounds)
    if peer:
        functions[peer[0]].close()
    by_textbook = common.summarize(seconds)
    by_peer = common.summarize(seconds, peer and peer[0])
    peak_flops = product_flops / by_textbook["matrix product"]["median_seconds"]
    flops = {form: flops_of(settings, form) for form in forms}
    shape = {name: getattr(settings, name) for name in SHAPE}
    peaks = {}
    if check:
        peaks = {form: common.peak_in_new_process(__file__, form=form, **shape) for form in forms}
    rows = []
    for form in (*forms, *([peer[0]] if peer else [])):
        median = by_textbook[form]["median_seconds"]
        rows.append(
            {
                "form": form,
                "seconds": median,
                "times_the_textbook": by_textbook[form]["times_faster"],
                **({"times_the_peer": by_peer[form]["times_faster"]} if peer else {}),
                "gflop": common.rounded(flops[form] / 1e9) if form in flops else None,
                "share_of_peak": common.rounded(flops[form] / median / peak_flops, 3)
                if form in flops
                else None,
                **({"peak_mb": peaks.get(form)} if check else {}),
            }
        )
    return rows, {
        "error": common.rounded(error, 2) if check else None,
        "peak_gflops": peak_flops / 1e9,
    }


def sweep(settings):
    """The same for other image sizes and batches."""
    points = [{"image_size": size} for size in SIZES]
    points += [{"batch_size": batch} for batch in BATCHES if batch != settings.batch_size]
    found = []
    for point in points:
        here = argparse.Namespace(**{**vars(settings), **point})
        rows, _ = measure(here, ("textbook", "SAGAN"), settings.rounds, check=False)
        for row in rows:
            found.append({"image_size": here.image_size, "batch_size": here.batch_size, **row})
        common.print_table(found[-2:])
    return found


def draw(rows, settings, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    fixed = {"image_size": settings.image_size, "batch_size": settings.batch_size}
    panels = [
        ("image_size", "batch_size", "seconds", "seconds a step"),
        ("batch_size", "image_size", "seconds", "seconds a step"),
        ("image_size", "batch_size", "share_of_peak", "share of the peak"),
    ]
    for axis, (x, other, y, label) in zip(axes, panels):
        for form, color in (("textbook", "tab:gray"), ("SAGAN", "tab:blue")):
            line = [r for r in rows if r["form"] == form and r[other] == fixed[other]]
            line.sort(key=lambda row: row[x])
            axis.plot([r[x] for r in line], [r[y] for r in line], "o-", label=form, color=color)
        axis.set_xscale("log", base=2)
        ticks = sorted({row[x] for row in rows})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        if y == "seconds":
            axis.set_yscale("log", base=2)
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            axis.set_ylim(0)
        unit = "pixels" if x == "image_size" else "images"
        axis.set_xlabel(f"{x.replace('_', ' ')}, {unit}")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    axes[0].set_title(f"batch of {fixed['batch_size']}")
    axes[1].set_title(f"{fixed['image_size']} pixels")
    axes[2].set_title(f"operations, batch of {fixed['batch_size']}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def add_step_arguments(parser):
    """The options that say what is trained."""
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--base_filters", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_classes", type=int, default=10)


def main(arguments=None):
    parser = common.argument_parser(__doc__, "train_step")
    add_step_arguments(parser)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peer", type=common.named_command, help="NAME=COMMAND")
    parser.add_argument("--sweep", action="store_true", help="other image sizes and batches")
    parser.add_argument("--figure", nargs="?", const=FIGURE, type=Path, help="file for a figure")
    settings = parser.parse_args(arguments)
    if settings.sweep and settings.peer:
        parser.error("--sweep can't be given with --peer")
    if settings.figure and not settings.sweep:
        parser.error("--figure needs --sweep")
    if settings.peer and settings.peer[0] in (*FORMS, "matrix product"):
        parser.error(f"--peer needs another name. Received: {settings.peer[0]}")
    if importlib.util.find_spec("jax") is None:
        parser.error("counting the operations needs jax: pip install jax")
    kept = {"settings": {name: getattr(settings, name) for name in (*SHAPE, "rounds")}}
    if settings.sweep:
        rows, path = sweep(settings), settings.json
        if path == common.RESULTS / "train_step.json":
            path = path.with_name("train_step_sweep.json")
        if settings.figure:
            draw(rows, settings, settings.figure)
        return common.record(__file__, path, arguments, rows=rows, **kept)
    rows, found = measure(settings, FORMS, settings.rounds, settings.peer)
    common.print_table(rows)
    return common.record(__file__, settings.json, arguments, rows=rows, **found, **kept)


if __name__ == "__main__":
    common.run(main, peak)
