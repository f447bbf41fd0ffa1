"""What does self-attention cost in memory and time, whole and in blocks of queries?

Command:   python benchmarks/attention.py --json --figure
Measures   forward and backward pass of `SelfAttention2D` on maps of 64 channels, 16 x 16 to
           128 x 128, against the textbook form below; all give the same first. Maps up to
           64 x 64 also with 8 heads, and with the masks of YLG, which compute something else
Result:    benchmarks/results/attention.json, docs/images/attention_cost.png and a table; about
           2 minutes on 2 CPU cores

The times of a map are taken in turn in one process; each peak of memory in a process of its own.
"""

import common
import keras
import numpy as np
import tensorflow as tf

from keras_sagan import SelfAttention2D
from keras_sagan.ops.attention import automatic_chunk_size

CHANNELS, TOLERANCE = 64, 1e-5
FORMS = ("textbook", "whole", "chunked", "auto")
PATTERNS = {"8 heads": {"num_heads": 8}, "ylg": {"num_heads": 8, "pattern": "ylg"}}
MAX_PATTERN_SIZE = 64  # A map of 128 x 128 would need 10 GB.


def textbook(images, kernels, gamma):
    """The equations of the paper, with the pooling of the authors' code."""
    batch, height, width, channels = images.shape

    def locations(kernel, pools):
        x = tf.nn.conv2d(images, kernel, 1, "SAME")
        x = tf.nn.max_pool2d(x, 2, 2, "VALID") if pools else x
        return tf.reshape(x, (batch, -1, x.shape[-1]))

    query, key, value = (locations(k, pools) for k, pools in zip(kernels, (False, True, True)))
    scores = tf.nn.softmax(tf.matmul(query, key, transpose_b=True))
    attended = tf.reshape(tf.matmul(scores, value), (batch, height, width, -1))
    return images + gamma * tf.nn.conv2d(attended, kernels[3], 1, "SAME")


def make_step(form, size, batch):
    """A function that returns outputs and gradients of a form for the same weights and images."""
    rng = np.random.default_rng(0)
    images, upstream = (
        tf.constant(rng.standard_normal((batch, size, size, CHANNELS)), "float32") for _ in "ab"
    )
    initializer = keras.initializers.GlorotUniform(seed=0)
    layer = SelfAttention2D(
        use_spectral_norm=False,
        kernel_initializer=initializer,
        query_chunk_size="auto" if form == "auto" else chunk_size(form, size),
        **PATTERNS.get(form, {}),
    )
    layer.build(images.shape)
    for index, conv in enumerate(layers_of(layer)):
        values = np.random.default_rng(index).standard_normal(conv.kernel.shape)
        conv.kernel.assign(values / np.sqrt(conv.kernel.shape[2]))
    layer.gamma.assign(0.5)
    variables = [layer.gamma.value, *(conv.kernel.value for conv in layers_of(layer))]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(images)
            if form == "textbook":
                outputs = textbook(images, variables[1:], variables[0])
            else:
                outputs = layer(images, training=True)
        return outputs, *tape.gradient(outputs, [images, *variables], upstream)

    return lambda: [x.numpy() for x in step()]


def chunk_size(form, size):
    """The queries of a block, or `None` for the whole form."""
    return {
        "auto": automatic_chunk_size(size**2, size**2 // 4),
        "chunked": max(1, 2**20 // (size // 2) ** 2),  # As "auto" has it for large maps.
    }.get(form)


def layers_of(layer):
    return layer.query_conv, layer.key_conv, layer.value_conv, layer.output_conv


def largest_difference(first, second):
    """Of outputs and gradients, each relative to its largest number."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(first, second))


def peak(form, size, batch):
    """Bytes of a step at this size, in this process, which should do nothing else."""
    make_step(form, 4, 1)()  # What TensorFlow sets up once.
    return common.peak_of(make_step(form, size, batch))


def measure(size, batch, rounds):
    forms = (*FORMS, *PATTERNS) if size <= MAX_PATTERN_SIZE else FORMS
    steps = {form: make_step(form, size, batch) for form in forms}
    expected = steps["textbook"]()
    errors = {form: largest_difference(steps[form](), expected) for form in FORMS}
    if max(errors.values()) > TOLERANCE:
        raise RuntimeError(f"The forms must agree within {TOLERANCE}. Received: {errors}")
    del expected
    figures = common.summarize(common.alternate(steps, rounds, warmup=1))
    rows = []
    for form in forms:
        megabytes = common.peak_in_new_process(__file__, form=form, size=size, batch=batch)
        if form == "textbook":
            reference = megabytes
        rows.append(
            {
                "map": f"{size} x {size}",
                "form": form,
                "ms": common.rounded(1e3 * figures[form]["median_seconds"]),
                "times_faster": figures[form]["times_faster"],
                "peak_mb": megabytes,
                "times_less_memory": common.rounded(reference / megabytes),
                "error": common.rounded(errors[form], 2) if form in errors else None,
                "chunk_size": chunk_size(form, size),
            }
        )
    return rows


def draw(record, path):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    memory, speed = axes
    styles = {"textbook": "o-", "whole": "d:", "chunked": "s-", "auto": "^--"}
    sizes = record["settings"]["sizes"]
    by_form = {form: [x for x in record["rows"] if x["form"] == form] for form in styles}
    for form, style in styles.items():
        memory.plot(sizes, [row["peak_mb"] for row in by_form[form]], style, label=form)
        # Relative, as milliseconds over four decades hide what differs.
        speed.plot(sizes, [1 / row["times_faster"] for row in by_form[form]], style, label=form)
    memory.set(yscale="log", ylabel="peak, MB")
    speed.set(ylabel="time, textbook = 1", ylim=(0, 1.08 * speed.get_ylim()[1]))
    milliseconds = [row["ms"] for row in by_form["textbook"]]
    ticks = [[f"{size}²" for size in sizes]]
    texts = [f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}" for ms in milliseconds]
    ticks.append([f"{size}²\n{text} ms" for size, text in zip(sizes, texts)])
    for axis, labels, title in zip(axes, ticks, ("map", "map, and the textbook's time")):
        axis.set_xscale("log")
        axis.set_xticks(sizes, labels)
        axis.minorticks_off()
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    speed.legend(frameon=False, loc="lower right")
    batch = record["settings"]["batch_size"]
    figure.suptitle(f"Self-attention, {CHANNELS} channels, batch {batch}: forward and backward")
    figure.savefig(path, dpi=110)


def main(arguments=None):
    parser = common.argument_parser(__doc__, "attention")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--figure", nargs="?", const=common.ROOT / "docs" / "images" / "attention_cost.png"
    )
    settings = parser.parse_args(arguments)
    rows = []
    for size in settings.sizes:
        found = measure(size, settings.batch_size, settings.rounds)
        common.print_table([{k: v or "" for k, v in row.items()} for row in found])
        rows += found
    record = common.record(
        __file__,
        settings.json,
        arguments,
        settings={k: getattr(settings, k) for k in ("sizes", "batch_size", "rounds")},
        rows=rows,
    )
    if settings.figure:
        draw(record, settings.figure)


if __name__ == "__main__":
    common.run(main, peak)
