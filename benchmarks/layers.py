"""What does each layer cost against its textbook form?

Command:   python benchmarks/layers.py --json
Measures   forward and backward pass of every layer against the same composed plainly, with the
           same weights; both give the same outputs and gradients first
Result:    benchmarks/results/layers.json and a table; about three minutes on 2 CPU cores
"""

import common
import keras
import numpy as np
import tensorflow as tf
import textbook
from keras import layers

from keras_sagan import ConditionalBatchNorm, SelfAttention2D, SNConv2D, SNDense, SNEmbedding

TOLERANCE = 1e-4


def divided(weight, vector_u):
    """W / sigma by one power iteration, as in the paper: sigma = v' W u."""
    matrix = tf.reshape(weight, (-1, weight.shape[-1]))
    constant = tf.stop_gradient(matrix)
    v = tf.linalg.l2_normalize(tf.linalg.matvec(constant, vector_u))
    u = tf.linalg.l2_normalize(tf.linalg.matvec(constant, v, transpose_a=True))
    return weight / tf.tensordot(v, tf.linalg.matvec(matrix, u), 1), u


def textbook_conv(layer, x):
    if layer.resample == "up":
        x = layers.UpSampling2D()(x)
    kernel, u = divided(layer.kernel.value, layer.vector_u.value)
    layer.vector_u.assign(u)
    x = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), layer.bias.value)
    return tf.nn.avg_pool2d(x, 2, 2, "VALID") if layer.resample == "down" else x


def textbook_dense(layer, x):
    kernel, u = divided(layer.kernel.value, layer.vector_u.value)
    layer.vector_u.assign(u)
    return tf.matmul(x, kernel) + layer.bias.value


def textbook_embedding(layer, labels):
    table, u = divided(layer.embeddings.value, layer.vector_u.value)
    layer.vector_u.assign(u)
    return tf.gather(table, labels)


def textbook_norm(layer, x, labels):
    """As composed of Keras's own layers: a batch norm without tables, then two embeddings."""
    mean, variance = tf.nn.moments(x, (0, 1, 2))
    share = textbook.share_of_a_batch(layer)
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign((1.0 - share) * moving.value + share * value)
    layer.num_updates.assign_add(1)
    x = tf.nn.batch_normalization(x, mean, variance, None, None, layer.epsilon)
    gamma = tf.gather(layer.gamma.value, labels)[:, None, None]
    return x * gamma + tf.gather(layer.beta.value, labels)[:, None, None]


def textbook_attention(layer, x):
    batch, height, width, _ = x.shape

    def locations(conv, pools):
        kernel, u = divided(conv.kernel.value, conv.vector_u.value)
        conv.vector_u.assign(u)
        y = tf.nn.conv2d(x, kernel, 1, "SAME")
        y = tf.nn.max_pool2d(y, 2, 2, "VALID") if pools else y
        return tf.reshape(y, (batch, -1, y.shape[-1]))

    query = locations(layer.query_conv, False)
    key, value = locations(layer.key_conv, True), locations(layer.value_conv, True)
    scores = tf.nn.softmax(tf.matmul(query, key, transpose_b=True))
    attended = tf.reshape(tf.matmul(scores, value), (batch, height, width, -1))
    kernel, u = divided(layer.output_conv.kernel.value, layer.output_conv.vector_u.value)
    layer.output_conv.vector_u.assign(u)
    return x + layer.gamma.value * tf.nn.conv2d(attended, kernel, 1, "SAME")


def cases(batch, size, channels, classes):
    """Name, layer, textbook form and inputs of each comparison."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return tf.constant(rng.standard_normal(shape), "float32")

    images, halved = draw(batch, size, size, channels), draw(batch, size // 2, size // 2, channels)
    labels = tf.constant(rng.integers(0, classes, batch), "int32")
    wide = draw(batch, 128)
    for resample, x in ((None, images), ("up", halved), ("down", images)):
        layer = SNConv2D(channels, 3, padding="same", resample=resample)
        name = f'SNConv2D, "{resample}"' if resample else "SNConv2D"
        yield name, layer, textbook_conv, (x,)
    yield "SNDense, 128 to 8192", SNDense(8192), textbook_dense, (wide,)
    yield f"SNEmbedding, {classes}", SNEmbedding(classes, 1024), textbook_embedding, (labels,)
    yield "ConditionalBatchNorm", ConditionalBatchNorm(classes), textbook_norm, (images, labels)
    yield "SelfAttention2D", SelfAttention2D(), textbook_attention, (images,)


def make_step(call, layer, inputs):
    """A function that gives outputs and all gradients of a form in training."""
    variables = [variable.value for variable in layer.trainable_variables]
    floats = [x for x in inputs if x.dtype == tf.float32]
    upstream = tf.constant(
        np.random.default_rng(1).standard_normal(layer(*inputs).shape), "float32"
    )

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(floats)
            outputs = call(*inputs)
        gradients = tape.gradient(outputs, [*floats, *variables], upstream)
        return outputs, *(tf.convert_to_tensor(x) for x in gradients)

    return lambda: [x.numpy() for x in step()]


def forms_of(layer, textbook, inputs):
    """The steps of the two forms of one layer."""
    layer(*inputs)
    rng = np.random.default_rng(2)
    if isinstance(layer, SelfAttention2D):
        layer.gamma.assign(0.5)
    if isinstance(layer, ConditionalBatchNorm):
        layer.gamma.assign(1.0 + rng.standard_normal(layer.gamma.shape))
    return {
        "textbook": make_step(lambda *x: textbook(layer, *x), layer, inputs),
        "product": make_step(lambda *x: layer(*x, training=True), layer, inputs),
    }


def peak(name, form, sizes):
    """Bytes of a step of one form of one layer, tracing included."""
    small = {case[0]: case[1:] for case in cases(2, 4, 8, sizes[-1])}
    forms_of(*small[name])[form]()  # What TensorFlow sets up once.
    case = next(case[1:] for case in cases(*sizes) if case[0] == name)
    return common.peak_of(forms_of(*case)[form])


def compare(name, layer, textbook, inputs, sizes, rounds):
    forms = forms_of(layer, textbook, inputs)
    state = [variable.numpy() for variable in layer.non_trainable_variables]

    def reset():
        for variable, value in zip(layer.non_trainable_variables, state):
            variable.assign(value)

    values = {}
    for form, step in forms.items():
        reset()
        values[form] = [*step(), *(v.numpy() for v in layer.non_trainable_variables)]
    errors = [
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in zip(*values.values())
    ]
    if len(set(map(len, values.values()))) != 1 or not max(errors) <= TOLERANCE:
        raise RuntimeError(f"{name} must agree within {TOLERANCE}. Received: {errors}")
    figures = common.summarize(common.alternate(forms, rounds, warmup=3))
    peaks = {
        form: common.peak_in_new_process(__file__, name=name, form=form, sizes=sizes)
        for form in forms
    }
    return {
        "layer": name,
        "textbook_ms": common.rounded(1e3 * figures["textbook"]["median_seconds"], 3),
        "ms": common.rounded(1e3 * figures["product"]["median_seconds"], 3),
        "times_faster": common.rounded(figures["product"]["times_faster"], 3),
        "textbook_peak_mb": peaks["textbook"],
        "peak_mb": peaks["product"],
        "error": common.rounded(max(errors), 2),
    }


def main(arguments=None):
    parser = common.argument_parser(__doc__, "layers")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--size", type=int, default=32, help="of the maps; halved before up")
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    settings = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    sizes = (settings.batch_size, settings.size, settings.channels, settings.num_classes)
    rows = [compare(*case, sizes, settings.rounds) for case in cases(*sizes)]
    common.print_table(rows)
    common.record(
        __file__,
        settings.json,
        arguments,
        settings={k: v for k, v in vars(settings).items() if k != "json"},
        rows=rows,
    )


if __name__ == "__main__":
    common.run(main, peak)
