"""How many images a second does `generate` make?

Command:   python benchmarks/generation.py --json [--peer NAME=COMMAND]
Measures   `SAGAN.generate` against the textbook form below, a batch at a time, with the same
           weights; both give the same images first. A peer is another program that prints
           `READY` and then, for each line it reads, the seconds in which it made --count images
Result:    benchmarks/results/generation.json and a table; about a minute on 2 CPU cores
"""

import argparse

import common
import numpy as np
import tensorflow as tf

import keras_sagan

SIZE, CLASSES, LATENT_DIM, ATTENTION = 64, 10, 128, 32


def textbook(generator):
    """The generator written plainly: up-sampling, then convolution; batch norm, then ReLU."""

    def weight(name):
        """W / sigma, by one step of the power iteration from the stored u."""
        layer = generator
        for part in name.split("/"):
            layer = layer.get_layer(part) if hasattr(layer, "get_layer") else getattr(layer, part)
        kernel, u = layer._raw_weight().value, layer.vector_u.value
        matrix = tf.reshape(kernel, (-1, kernel.shape[-1]))
        v = tf.linalg.l2_normalize(tf.linalg.matvec(matrix, u))
        u = tf.linalg.l2_normalize(tf.linalg.matvec(matrix, v, transpose_a=True))
        sigma = tf.tensordot(tf.linalg.matvec(matrix, u), v, 1)
        return kernel / sigma, None if not getattr(layer, "use_bias", False) else layer.bias.value

    def conv(x, name):
        kernel, bias = weight(name)
        x = tf.nn.conv2d(x, kernel, 1, "SAME")
        return x if bias is None else tf.nn.bias_add(x, bias)

    def norm(x, name, labels=None):
        layer = generator.get_layer(name)
        labels = tf.zeros_like(tf.shape(x)[:1]) if labels is None else labels
        gamma, beta = (tf.gather(t.value, labels)[:, None, None] for t in (layer.gamma, layer.beta))
        mean, variance = layer.moving_mean.value, layer.moving_variance.value
        return (x - mean) / tf.sqrt(variance + layer.epsilon) * gamma + beta

    def up(x):
        return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)

    def locations(x):
        return tf.reshape(x, (tf.shape(x)[0], -1, x.shape[-1]))

    def attention(x, name):
        gamma = generator.get_layer(name).gamma.value
        query = locations(conv(x, f"{name}/query_conv"))
        key = locations(tf.nn.max_pool2d(conv(x, f"{name}/key_conv"), 2, 2, "VALID"))
        value = locations(tf.nn.max_pool2d(conv(x, f"{name}/value_conv"), 2, 2, "VALID"))
        scores = tf.nn.softmax(tf.matmul(query, key, transpose_b=True))
        attended = tf.matmul(scores, value)
        attended = tf.reshape(attended, (-1, *x.shape[1:3], value.shape[-1]))
        return x + gamma * conv(attended, f"{name}/output_conv")

    def call(latents, labels):
        kernel, bias = weight("start")
        x = tf.matmul(latents, kernel) + bias
        x = tf.reshape(x, (-1, 4, 4, x.shape[-1] // 16))
        for size in (8, 16, 32, 64):
            block = f"block_{size}"
            shortcut = conv(up(x), f"{block}_shortcut")
            x = up(tf.nn.relu(norm(x, f"{block}_norm_1", labels)))
            x = conv(x, f"{block}_conv_1")
            x = conv(tf.nn.relu(norm(x, f"{block}_norm_2", labels)), f"{block}_conv_2")
            x = x + shortcut
            if size == ATTENTION:
                x = attention(x, f"attention_{size}")
        x = conv(tf.nn.relu(norm(x, "last_norm")), "last_conv")
        pixels = tf.round((tf.tanh(x) + 1.0) * 127.5)
        return tf.cast(tf.clip_by_value(pixels, 0.0, 255.0), "uint8")

    return tf.function(call, reduce_retracing=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--base_filters", type=int, default=32)
    parser.add_argument("--count", type=int, default=128, help="images a call")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=13)
    parser.add_argument("--peer", type=common.named_command, help="NAME=COMMAND")
    common.add_json_argument(parser, "generation")
    settings = parser.parse_args(arguments)
    shape = {
        "image_size": SIZE,
        "base_filters": settings.base_filters,
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
    latents = rng.standard_normal((settings.count, LATENT_DIM)).astype("float32")
    labels = rng.integers(0, CLASSES, settings.count).astype("int32")
    model.generator.get_layer(f"attention_{ATTENTION}").gamma.assign(0.5)
    plain = textbook(model.generator)

    def by_hand():
        parts = range(0, settings.count, settings.batch_size)
        parts = [slice(start, start + settings.batch_size) for start in parts]
        return np.concatenate([plain(latents[part], labels[part]).numpy() for part in parts])

    def generate():
        return model.generate(
            settings.count, labels, latents=latents, batch_size=settings.batch_size, use_ema=False
        )

    difference = int(np.abs(by_hand().astype("int32") - generate()).max())
    if difference > 1:
        raise RuntimeError(f"Images must agree within one grey level. Received: {difference}")
    functions = {"textbook": by_hand, "generate": generate}
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
            }
        )
    common.print_table(rows)
    common.record(  # A peer's command has paths of this machine.
        __file__,
        settings.json,
        ["--json", *(["--peer", f"{reference}=COMMAND"] if settings.peer else [])],
        settings={k: getattr(settings, k) for k in ("base_filters", "count", "batch_size")},
        image_size=SIZE,
        generator_parameters=model.generator.count_params(),
        largest_difference_in_grey_levels=difference,
        rows=rows,
    )


if __name__ == "__main__":
    main()
