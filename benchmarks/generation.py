"""How many images a second does `generate` make?

Command:   python benchmarks/generation.py --json [--peer NAME=COMMAND]
Measures   `SAGAN.generate` against the textbook form of textbook.py, a batch at a time, with the
           same weights; both give the same images first. A peer is another program that prints
           `READY` and then, for each line it reads, the seconds in which it made --count images
Result:    benchmarks/results/generation.json and a table; about a minute on 2 CPU cores
"""

import common
import numpy as np
import tensorflow as tf
import textbook

import keras_sagan

SIZE, CLASSES, LATENT_DIM, ATTENTION = 64, 10, 128, 32


def plain_form(generator):
    """The generator written plainly, as a function from latents and labels to uint8 pixels."""

    def call(latents, labels):
        pixels = tf.round((textbook.Generator(generator)(latents, labels) + 1.0) * 127.5)
        return tf.cast(tf.clip_by_value(pixels, 0.0, 255.0), "uint8")

    return tf.function(call, reduce_retracing=True)


def forms_of(base_filters, count, batch_size):
    """Functions that make `count` images in each form, and the generator of both."""
    shape = {
        "image_size": SIZE,
        "base_filters": base_filters,
        "num_classes": CLASSES,
        "attention_resolutions": (ATTENTION,),
    }
    model = keras_sagan.SAGAN(
        keras_sagan.build_generator(latent_dim=LATENT_DIM, **shape),
        keras_sagan.build_discriminator(**shape),
        LATENT_DIM,
        CLASSES,
    )
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((count, LATENT_DIM)).astype("float32")
    labels = rng.integers(0, CLASSES, count).astype("int32")
    model.generator.get_layer(f"attention_{ATTENTION}").gamma.assign(0.5)
    plain = plain_form(model.generator)

    def by_hand():
        parts = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
        return np.concatenate([plain(latents[part], labels[part]).numpy() for part in parts])

    def generate():
        return model.generate(count, labels, latents=latents, batch_size=batch_size, use_ema=False)

    forms = {"textbook": by_hand, "generate": generate}
    return forms, model.generator


def peak(form, base_filters, count, batch_size):
    """Bytes of a first call of a form, tracing included."""
    forms_of(8, 2, 2)[0][form]()  # What TensorFlow sets up once.
    return common.peak_of(forms_of(base_filters, count, batch_size)[0][form])


def main(arguments=None):
    parser = common.argument_parser(__doc__, "generation")
    parser.add_argument("--base_filters", type=int, default=32)
    parser.add_argument("--count", type=int, default=128, help="images a call")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=13)
    parser.add_argument("--peer", type=common.named_command, help="NAME=COMMAND")
    settings = parser.parse_args(arguments)
    if settings.peer and settings.peer[0] in ("textbook", "generate"):
        parser.error(f"--peer needs another name. Received: {settings.peer[0]}")
    functions, generator = forms_of(settings.base_filters, settings.count, settings.batch_size)
    expected, *received = (function().astype("int32") for function in functions.values())
    difference = max(int(np.abs(images - expected).max()) for images in received)
    if difference > 1:
        raise RuntimeError(f"Images must agree within one grey level. Received: {difference}")
    sizes = {k: getattr(settings, k) for k in ("base_filters", "count", "batch_size")}
    peaks = {form: common.peak_in_new_process(__file__, form=form, **sizes) for form in functions}
    reference = "textbook"
    if settings.peer:
        reference, command = settings.peer
        functions[reference] = common.Peer(command)
    seconds = common.alternate(functions, settings.rounds)
    if settings.peer:
        functions[reference].close()
    ratios = {name: common.summarize(seconds, name) for name in ("textbook", reference)}
    rows = []
    for name in functions:
        row = ratios["textbook"][name]
        rows.append(
            {
                "form": name,
                "images_per_second": common.rounded(settings.count / row["median_seconds"]),
                "times_the_textbook": row["times_faster"],
                "times_the_peer": ratios[reference][name]["times_faster"]
                if settings.peer
                else None,
                "peak_mb": peaks.get(name),
            }
        )
    common.print_table(rows)
    common.record(
        __file__,
        settings.json,
        arguments,
        settings={**sizes, "rounds": settings.rounds},
        image_size=SIZE,
        generator_parameters=generator.count_params(),
        largest_difference_in_grey_levels=difference,
        rows=rows,
    )


if __name__ == "__main__":
    common.run(main, peak)
