"""`SAGAN.fit`: the step against plain TensorFlow, what moves when, ways to run, data, callbacks."""

import keras
import numpy as np
import oracles
import pytest
import scalar_gan
import tensorflow as tf
import tiny_networks as tiny
from keras import layers, ops
from plain_sagan import PlainSAGAN

from keras_sagan import SAGAN, SNDense, SNEmbedding
from keras_sagan.layers.spectral_norm import SpectralNormMixin
from keras_sagan.ops import resampling
from keras_sagan.training.tensorflow import draw_noise

METRICS = {"g_loss", "d_loss", "real_logits", "fake_logits", "real_accuracy", "fake_accuracy"}
METRICS |= {"real_in_margin", "fake_in_margin"}
RATES = {"g_learning_rate", "d_learning_rate"}
IMAGES, LABELS = tiny.images(26), tiny.labels(26)  # Seven batches of 4, the last one of 2.


def fit(model, *args, **kwargs):
    kwargs = {"batch_size": 4, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(*args, **kwargs).history


@pytest.fixture(scope="module")
def compiled():
    """A conditional model with SGD, traced once for all tests that only need a trained one."""
    model = tiny.build_small_sagan()
    model.compile(**tiny.sgd())
    return model, model.get_weights()


def rerun(compiled, *args, **kwargs):
    model, start = compiled
    model.set_weights(start)
    return fit(model, *args, **kwargs)


def assert_same(weights, expected, atol=0.0):
    assert len(weights) == len(expected)
    for received, wanted in zip(weights, expected):
        np.testing.assert_allclose(received, wanted, rtol=0.0, atol=atol)


def scatter(model):
    """Gives layers a `vector_u` that hasn't converged, whose moves can be seen."""
    rng = np.random.default_rng(0)
    for layer in [*sn_layers(model.generator), *sn_layers(model.discriminator)]:
        u = rng.normal(size=layer.vector_u.shape)
        layer.vector_u.assign(u / np.linalg.norm(u))


# The step


@pytest.mark.slow
@pytest.mark.parametrize("d_steps, accumulate", [(2, 1), (1, 2)])
def test_step_against_plain_tensorflow(d_steps, accumulate):
    draws, judged = [], []
    model = tiny.build_sagan(
        on_generator=lambda *call: draws.append(call),
        on_discriminator=lambda *call: judged.append(call),
        d_steps=d_steps,
    )
    steps = None if accumulate == 1 else accumulate
    rates = [keras.optimizers.SGD(x, gradient_accumulation_steps=steps) for x in (0.004, 0.008)]
    model.compile(*rates, run_eagerly=True)
    assert not model.judges_apart  # The discriminator is called to find it out.
    judged.clear()
    scatter(model)
    plain = PlainSAGAN(model.generator, model.discriminator, 0.004, 0.008, accumulate)
    start = tiny.weights(model.generator), tiny.weights(model.discriminator)
    history = fit(model, IMAGES[:10], LABELS[:10])  # Batches of 4, 4 and 2.
    calls = d_steps + 1
    assert len(draws) == 3 * calls and len(judged) == 3 * calls
    # Real and fake images go through D together, and the G step shows it fake ones alone.
    assert [len(images) for images, _ in judged[:calls]] == [8] * d_steps + [4]

    rows = []
    for step, size in enumerate((4, 4, 2)):
        batch = slice(4 * step, 4 * step + size)
        mine = draws[step * calls : (step + 1) * calls]
        metrics, moved_in_d = plain.step(IMAGES[batch], LABELS[batch], mine)
        rows.append(metrics)
    for network, expected in ((model.generator, plain.g), (model.discriminator, plain.d)):
        for weight in network.weights:
            received, wanted = weight.numpy(), expected[weight.path].numpy()
            np.testing.assert_allclose(received, wanted, rtol=0, atol=1e-6, err_msg=weight.path)
    for network, before in zip((model.generator, model.discriminator), start):
        for weight, old in zip(network.weights, before):  # All of it had moved.
            if weight.shape != (1,):  # A unit vector of one number can't.
                assert np.abs(weight.numpy() - old).max() > 1e-5, weight.path
    # Had the G step moved D's `vector_u`, this test would have seen it.
    assert max(np.abs(v - plain.d[name]).max() for name, v in moved_in_d.items()) > 1e-3
    # The epoch's figures are means over its samples.
    assert set(history) == METRICS | RATES
    for name in METRICS:
        mean = np.average([row[name] for row in rows], weights=(4, 4, 2))
        assert history[name] == [pytest.approx(mean, rel=1e-5, abs=1e-6)], name


@pytest.mark.slow
def test_latents_and_labels():
    draws = []
    model = tiny.build_sagan(on_generator=lambda *call: draws.append(call), d_steps=2)
    model.compile(**tiny.sgd(0.0), run_eagerly=True)
    images = np.repeat(IMAGES[:1], 256, axis=0)
    fit(model, images, np.zeros(256, "int32"), batch_size=128)
    latents = np.stack([z for z, _ in draws])
    assert latents.shape == (6, 128, tiny.LATENT_DIM) and latents.dtype == "float32"
    assert len(np.unique(latents)) > 0.99 * latents.size  # Every update has its own.
    assert abs(latents.mean()) < 5 / np.sqrt(latents.size)
    assert latents.std() == pytest.approx(1.0, abs=0.05)
    counts = np.bincount(np.concatenate([ids for _, ids in draws]), minlength=tiny.CLASSES)
    assert len(counts) == tiny.CLASSES
    expected = counts.sum() / tiny.CLASSES
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    again = tiny.build_sagan(on_generator=lambda *call: draws.append(call), d_steps=2)
    again.compile(**tiny.sgd(0.0), run_eagerly=True)
    fit(again, images[:128], np.zeros(128, "int32"), batch_size=128)
    np.testing.assert_array_equal(draws[6][0], latents[0])  # The seed determines them.
    other = tiny.build_sagan(on_generator=lambda *call: draws.append(call), seed=8)
    other.compile(**tiny.sgd(0.0), run_eagerly=True)
    fit(other, images[:128], np.zeros(128, "int32"), batch_size=128)
    assert np.abs(draws[9][0] - latents[0]).max() > 0.1


def iterate(kernel, u, count):
    matrix = kernel.reshape(-1, kernel.shape[-1])
    for _ in range(count):
        u = matrix.T @ (matrix @ u)
        u = u / np.linalg.norm(u)
    return u


def sn_layers(network):
    return [x for x in network._flatten_layers() if isinstance(x, SpectralNormMixin)]


@pytest.mark.slow
def test_u_moves_once_per_update_of_its_own_network():
    model = tiny.build_sagan(d_steps=2)
    model.compile(**tiny.sgd(0.0), run_eagerly=True)
    scatter(model)
    expected = {}
    for network, count in ((model.generator, 3), (model.discriminator, 6)):
        for layer in sn_layers(network):
            kernel = layer.weights[0].numpy().astype("float64")
            u = layer.vector_u.numpy().astype("float64")
            expected[layer] = iterate(kernel, u, count)
            if kernel.shape[-1] > 1 and "key" not in layer.name:
                assert np.abs(expected[layer] - iterate(kernel, u, count + 1)).max() > 1e-5
    fit(model, IMAGES[:12], LABELS[:12])
    for layer, u in expected.items():
        np.testing.assert_allclose(layer.vector_u.numpy(), u, atol=2e-6, err_msg=layer.path)
    assert int(model.steps.numpy()) == 3


class TracedApart(layers.Layer):
    """A layer in a function of its own, which stays the one of the first step."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.function = tf.function(lambda x: self.inner(x, training=False), autograph=False)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.function(x)

    def compute_output_shape(self, shape):
        return self.inner.compute_output_shape(shape)


def build_awkward_networks(equality_constrained):
    """A table that both have, a layer that is called twice, and one in a function."""
    latents = keras.Input((tiny.LATENT_DIM,))
    labels = keras.Input((), dtype="int32")
    settings = {"equality_constrained": equality_constrained}
    twice = SNDense(tiny.LATENT_DIM, **settings)
    x = twice(layers.ReLU()(twice(latents)))
    table = SNEmbedding(tiny.CLASSES, 4, **settings)
    x = layers.Concatenate()([x, table(labels), SNEmbedding(tiny.CLASSES, 2)(labels)])
    x = TracedApart(SNDense(int(np.prod(tiny.SHAPE)), **settings))(x)
    generator = keras.Model([latents, labels], layers.Reshape(tiny.SHAPE)(x))
    images = keras.Input(tiny.SHAPE)
    x = layers.Concatenate()([layers.Flatten()(images), table(labels)])
    return generator, keras.Model([images, labels], SNDense(1)(x))


@pytest.mark.slow
@pytest.mark.parametrize("equality_constrained", [True, False])
def test_awkward_networks_train_alike_compiled_and_eagerly(equality_constrained):
    def train(run_eagerly):
        keras.utils.set_random_seed(0)
        networks = build_awkward_networks(equality_constrained)
        model = SAGAN(*networks, tiny.LATENT_DIM, tiny.CLASSES, seed=1)
        sigmas = [float(layer.sigma) for layer in sn_layers(model.generator)]
        assert min(sigmas) < 1.0 < max(sigmas)  # Both cases of max(1, sigma).
        model.compile(**tiny.sgd(), run_eagerly=run_eagerly)
        fit(model, IMAGES[:12], LABELS[:12])
        return tiny.weights(model)

    assert_same(train(run_eagerly=True), train(run_eagerly=False), 1e-6)


@pytest.mark.parametrize("trained", ["g", "d"])
def test_each_update_leaves_the_other_network_alone(trained):
    model = tiny.build_sagan()
    rates = {f"{side}_optimizer": keras.optimizers.SGD(0.1 * (side == trained)) for side in "gd"}
    model.compile(**rates, run_eagerly=True)
    before = tiny.weights(model)
    fit(model, IMAGES[:8], LABELS[:8])
    moved = {
        id(weight): not np.array_equal(weight.numpy(), old)
        for weight, old in zip(model.weights, before)
    }
    networks = {"g": model.generator, "d": model.discriminator}
    frozen = networks.pop("d" if trained == "g" else "g")
    (network,) = networks.values()
    assert not any(moved[id(w)] for w in frozen.trainable_weights)
    assert all(moved[id(w)] for w in network.trainable_weights if w.shape != (1,))


def test_real_and_fake_are_judged_by_the_same_kernels():
    # A generator that makes the very images of the data: the logits must agree, but for the
    # rounding of a product of matrices, which depends on the place in the batch.
    latents = keras.Input((tiny.LATENT_DIM,))
    x = layers.Dense(int(np.prod(tiny.SHAPE)), kernel_initializer="zeros")(latents)
    generator = keras.Model(latents, layers.Reshape(tiny.SHAPE)(x))
    generator.layers[1].bias.assign(IMAGES[0].ravel())
    model = SAGAN(generator, tiny.build_discriminator(None), tiny.LATENT_DIM, d_steps=2, seed=0)
    model.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(1e-3))
    history = fit(model, np.repeat(IMAGES[:1], 8, axis=0), epochs=3)
    assert history["real_logits"] == pytest.approx(history["fake_logits"], rel=3e-6)
    assert len(set(history["real_logits"])) == 3


@pytest.mark.slow
def test_average_covers_all_state_of_the_generator():
    start, ema_start = 1000, 1002  # So late that `ema_momentum` alone rules.
    model = tiny.build_sagan(ema_momentum=0.7, ema_start=ema_start)
    model.compile(**tiny.sgd(0.02), run_eagerly=True)
    model.steps.assign(start)
    average = tiny.weights(model.generator)
    received, expected = [], []

    def follow(batch, logs):
        for i, weight in enumerate(model.generator.weights):
            value = weight.numpy()
            # Moving statistics of momentum 0.9 are older than this average of weights can be.
            is_copied = start + batch < ema_start or value.dtype.kind != "f"
            is_copied = is_copied or "moving" in weight.path
            average[i] = value if is_copied else 0.7 * average[i] + 0.3 * value
        expected.append(list(average))
        received.append(tiny.weights(model.ema_generator))

    assert_same(tiny.weights(model.ema_generator), average)
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=follow)
    fit(model, IMAGES[:20], LABELS[:20], callbacks=[callback])
    assert len(received) == 5
    for step, (mine, wanted) in enumerate(zip(received, expected)):
        assert_same(mine, wanted, atol=0.0 if start + step < ema_start else 1e-6)
    pairs = zip(received[-1], tiny.weights(model.generator))
    assert max(np.abs(one - other).max() for one, other in pairs) > 1e-4
    assert not model.ema_generator.trainable_weights


@pytest.mark.slow
@pytest.mark.parametrize("frozen", ["generator", "discriminator"])
def test_a_frozen_network_stays_as_it_is(frozen):
    model = tiny.build_sagan()
    network = getattr(model, frozen)
    rng = np.random.default_rng(0)
    for weight in network.trainable_weights:
        if len(weight.shape) > 1:  # Kernels that sigma would have to follow.
            weight.assign(rng.normal(size=weight.shape))
    network.trainable = False
    model.compile(**tiny.sgd(), run_eagerly=True)
    before, images = tiny.weights(network), model.generate(4, seed=0)
    fit(model, IMAGES[:8], LABELS[:8])
    assert_same(tiny.weights(network), before)
    is_same = np.array_equal(model.generate(4, seed=0), images)
    assert is_same == (frozen == "generator")


# Ways to run


@pytest.mark.slow
def test_several_steps_in_a_call_agree_with_single_ones(compiled):
    """The last batch is smaller: with another one in its call, or alone."""
    model = tiny.build_small_sagan()
    model.compile(**tiny.sgd(), steps_per_execution=2)
    for count, steps in ((14, 4), (10, 3)):
        model.set_weights(compiled[1])
        history = fit(model, IMAGES[:count], LABELS[:count])
        assert int(model.steps.numpy()) == steps
        expected = rerun(compiled, IMAGES[:count], LABELS[:count])
        assert_same(tiny.weights(model), tiny.weights(compiled[0]), atol=1e-6)
        for name, values in expected.items():
            assert history[name] == pytest.approx(values, abs=1e-4), name


def train_on_three_batches(model):
    data = tf.data.Dataset.from_tensor_slices((IMAGES[:12], LABELS[:12]))
    return fit(model, data.batch(4, drop_remainder=True), batch_size=None)


@pytest.fixture(scope="module")
def two_in_a_call():
    """Every layer, trained for two steps in one call and one alone, and what a strategy ran."""
    model = tiny.build_sagan()
    model.compile(**tiny.sgd(), steps_per_execution=2)
    start, step, taken = model.get_weights(), model.train_step, []
    model.train_step = lambda data: taken.append(tf.compat.v1.get_default_graph()) or step(data)
    strategy, functions, arguments, graphs = model.distribute_strategy, [], [], set()
    run = strategy.run

    def watch(function, args=(), **kwargs):
        functions.append(function)
        arguments.extend(tf.nest.flatten(args))
        graphs.add(tf.compat.v1.get_default_graph())
        return run(function, args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategy, "run", watch)
        history = train_on_three_batches(model)
    assert functions[-1] is model.train_step
    assert len(set(taken)) == len(taken) == 3 and set(taken) <= graphs  # First, loop's body, alone.
    return model, start, history, arguments, graphs


@pytest.mark.slow
def test_what_a_strategy_runs_is_the_step_with_static_shapes_and_no_host_call(two_in_a_call):
    # As under any strategy; what TPUStrategy adds, the replica's number as a tensor, is in
    # integration/test_tpu_compile.py.
    *_, arguments, graphs = two_in_a_call
    made = [operation for graph in graphs for operation in graph.get_operations()]
    shapes = [x.shape for x in arguments if tf.is_tensor(x)]
    shapes += [x.shape for operation in made for x in operation.outputs]
    assert len(shapes) > 1000 and all(shape.is_fully_defined() for shape in shapes)
    definitions = [x for graph in graphs for x in graph.as_graph_def().library.function]
    kinds = {x.type for x in made} | {node.op for x in definitions for node in x.node_def}
    assert "Conv2D" in kinds and {"While", "StatelessWhile"} & kinds
    words = ("Optional", "Iterator", "PyFunc", "Print", "HostCompute", "StringFormat")
    assert not [kind for kind in kinds if any(word in kind for word in words)]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_every_layer_trains_eagerly_and_by_xla_as_compiled(two_in_a_call, arguments):
    expected, start, expected_history, *_ = two_in_a_call
    model = tiny.build_sagan()
    model.set_weights(start)
    model.compile(**tiny.sgd(), **arguments)
    history = train_on_three_batches(model)
    assert int(model.steps.numpy()) == 3
    assert_same(tiny.weights(model), tiny.weights(expected), atol=1e-5)
    for name, values in expected_history.items():
        assert history[name] == pytest.approx(values, abs=1e-4), name


@pytest.mark.slow
def test_the_step_is_traced_once_for_all_epochs_and_fits():
    model = scalar_gan.compiled(0.1, 0.1)
    step, taken = model.train_step, []
    model.train_step = lambda data: taken.append(data) or step(data)
    images = np.zeros((26, 1, 1, 1), "float32")
    data = tf.data.Dataset.from_tensor_slices(images[:24])
    for _ in range(2):
        fit(model, data.batch(4, drop_remainder=True), batch_size=None, epochs=2)
        assert len(taken) == 1
    # A smaller last batch takes one more, and no other after it.
    for count in (26, 14, 26):
        fit(model, images[:count], epochs=2)
        assert len(taken) == 2


def test_auto_is_xla_on_accelerators_alone_and_the_user_overrules_it(monkeypatch):
    model = tiny.build_small_sagan()

    def chosen(**kwargs):
        model.compile(**tiny.sgd(), **kwargs)
        return model.jit_compile

    assert chosen() is False and chosen(jit_compile=True) is True
    devices = tf.config.list_physical_devices()
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *kind: [*devices, gpu])
    assert chosen() is True and chosen(jit_compile=False) is False
    assert chosen(run_eagerly=True) is False


@pytest.mark.slow
def test_jit_compile_false_is_for_parts_of_layers_too():
    model = scalar_gan.build()
    step, seen = model.train_step, []
    model.train_step = lambda data: seen.append(calls_xla()) or step(data)
    for jit_compile, expected in (("auto", resampling.cpu is not None), (False, False)):
        model.compile(jit_compile=jit_compile, steps_per_execution=2)
        fit(model, np.zeros((8, 1, 1, 1), "float32"))
        assert set(seen) == {expected}
        seen.clear()


def calls_xla():
    """Whether XLA compiles a part of a wide convolution that is called here."""

    @tf.function(autograph=False)
    def program():
        return resampling.convolve(tf.zeros((1, 8, 8, 64)), tf.zeros((3, 3, 64, 64)), training=True)

    parts = program.get_concrete_function().graph.as_graph_def().library.function
    return any(part.attr["_XlaMustCompile"].b for part in parts)


@pytest.mark.slow
def test_history_has_means_of_every_epoch(compiled):
    history = rerun(compiled, IMAGES, LABELS, epochs=2, validation_data=(IMAGES[:6], LABELS[:6]))
    assert set(history) == METRICS | RATES | {f"val_{name}" for name in METRICS}
    assert all(len(values) == 2 and np.isfinite(values).all() for values in history.values())


def test_a_smaller_last_batch_counts_less():
    model = scalar_gan.compiled(0.25, 0.5, run_eagerly=True)
    history = scalar_gan.fit(model, batch_size=3)
    bias, slope, losses = scalar_gan.BIAS, scalar_gan.SLOPE, []
    for real in np.split(scalar_gan.IMAGES.ravel(), (3, 6)):
        slope -= 0.5 * (np.tanh(bias) - real.mean())
        losses.append(-slope * np.tanh(bias))
        bias += 0.25 * slope * (1.0 - np.tanh(bias) ** 2)
    expected = np.average(losses, weights=(3, 3, 2))
    assert history["g_loss"] == [pytest.approx(expected, rel=1e-5)]


def test_a_logit_on_the_threshold_is_a_fakes():
    model = scalar_gan.build()
    model.compile(run_eagerly=True)
    model.discriminator.trainable_variables[0].assign([[0.0]])
    logs = model.test_on_batch(scalar_gan.IMAGES, return_dict=True)
    assert logs["real_accuracy"] == 0.0 and logs["fake_accuracy"] == 1.0


@pytest.mark.slow
def test_evaluate_against_numpy_and_is_deterministic():
    draws = []
    model = tiny.build_sagan(on_generator=lambda *call: draws.append(call))
    model.compile(**tiny.sgd(), run_eagerly=True)
    before = tiny.weights(model)
    first = model.evaluate(IMAGES[:10], LABELS[:10], batch_size=4, verbose=0, return_dict=True)
    evaluated = list(draws)
    again = model.evaluate(IMAGES[:10], LABELS[:10], batch_size=4, verbose=0, return_dict=True)
    assert first == again
    assert_same(tiny.weights(model), before)  # `steps` too.
    rows, sizes = [], (4, 4, 2)
    for step, ((latents, ids), size) in enumerate(zip(evaluated, sizes)):
        batch = slice(4 * step, 4 * step + size)
        fake = model.discriminator([model.generator([latents, ids]).numpy(), ids]).numpy()
        real = model.discriminator([IMAGES[batch], LABELS[batch]]).numpy()
        d_loss = np.maximum(1 - real, 0).mean() + np.maximum(1 + fake, 0).mean()
        rows.append((-fake.mean(), d_loss, real.mean(), fake.mean(), (real > 0).mean()))
    names = ("g_loss", "d_loss", "real_logits", "fake_logits", "real_accuracy")
    for name, mean in zip(names, np.average(rows, axis=0, weights=sizes)):
        assert first[name] == pytest.approx(mean, rel=1e-4, abs=1e-6), name
    latents = np.concatenate([z for z, _ in evaluated])
    assert len(np.unique(latents)) == latents.size  # No batch sees another's latents.


@pytest.mark.slow
def test_train_on_batch_and_predict(compiled):
    model, start = compiled
    model.set_weights(start)
    logs = model.train_on_batch(IMAGES[:4], LABELS[:4], return_dict=True)
    assert set(logs) == METRICS and int(model.steps.numpy()) == 1
    latents = np.zeros((3, tiny.LATENT_DIM), "float32")
    images = model.predict([latents, np.arange(3)], verbose=0)
    np.testing.assert_allclose(images, model.generator([latents, np.arange(3)]), atol=1e-6)


# Data


@pytest.fixture(scope="module")
def unconditional():
    model = tiny.build_small_sagan(num_classes=None)
    model.compile(**tiny.sgd())
    return model, model.get_weights()


@pytest.mark.slow
def test_uint8_is_the_same_as_its_floats(unconditional):
    compiled = unconditional
    pixels = np.random.default_rng(0).integers(0, 256, (8, *tiny.SHAPE)).astype("uint8")
    pixels.flat[:2] = 0, 255
    floats = pixels.astype("float32") / np.float32(127.5) - np.float32(1.0)
    assert floats.min() == -1.0 and floats.max() == 1.0
    rerun(compiled, pixels)
    received = tiny.weights(compiled[0])
    rerun(compiled, floats)
    assert_same(received, tiny.weights(compiled[0]), atol=1e-6)
    rerun(compiled, floats.astype("float64"))
    assert_same(received, tiny.weights(compiled[0]), atol=1e-6)


# Callbacks of Keras


@pytest.mark.slow
def test_stock_callbacks(compiled, tmp_path):
    model, start = compiled
    model.compile(**tiny.sgd(0.5), run_eagerly=True)
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 * (epoch + 1)),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best.weights.h5",
            "d_loss",
            mode="min",
            save_best_only=True,
            save_weights_only=True,
        ),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    history = rerun(compiled, IMAGES[:8], LABELS[:8], epochs=2, callbacks=callbacks)
    assert history["learning_rate"] == pytest.approx([0.01, 0.02])
    assert float(model.g_optimizer.learning_rate) == pytest.approx(0.02)
    assert float(model.d_optimizer.learning_rate) == pytest.approx(0.04)
    saved = {path.name for path in tmp_path.iterdir()}
    assert saved == {"1.keras", "2.keras", "best.weights.h5", "log.csv"}
    again = keras.saving.load_model(tmp_path / "2.keras")
    assert_same(tiny.weights(again), tiny.weights(model))
    lines = (tmp_path / "log.csv").read_text().split()
    assert len(lines) == 3 and METRICS < set(lines[0].split(","))


def test_tensorboard(compiled, tmp_path):
    pytest.importorskip("tensorboard")
    callback = keras.callbacks.TensorBoard(tmp_path, update_freq="batch")
    rerun(compiled, IMAGES[:8], LABELS[:8], callbacks=[callback])
    assert list((tmp_path / "train").iterdir())


@pytest.mark.slow
def test_callbacks_that_watch_a_metric(compiled):
    model, start = compiled
    model.compile(**tiny.sgd(0.5), run_eagerly=True)
    callbacks = [
        keras.callbacks.ReduceLROnPlateau(
            "g_loss", factor=0.1, patience=1, min_delta=1e9, mode="min"
        ),
        keras.callbacks.EarlyStopping("d_loss", patience=2, min_delta=1e9, mode="min"),
    ]
    history = rerun(compiled, IMAGES[:4], LABELS[:4], epochs=9, callbacks=callbacks)
    assert len(history["g_loss"]) == 3
    assert float(model.g_optimizer.learning_rate) == pytest.approx(0.005)
    assert float(model.d_optimizer.learning_rate) == pytest.approx(0.01)


# compile


def test_compile_without_arguments_is_ttur():
    model = tiny.build_small_sagan(ttur={"d_learning_rate": 3e-4})
    model.compile()
    assert model.g_optimizer is not model.d_optimizer
    for optimizer, rate in ((model.g_optimizer, 1e-4), (model.d_optimizer, 3e-4)):
        assert isinstance(optimizer, keras.optimizers.Adam)
        assert float(optimizer.learning_rate) == pytest.approx(rate)
        assert (optimizer.beta_1, optimizer.beta_2) == (0.0, 0.999)


def test_compile_with_names_and_configurations():
    model = tiny.build_small_sagan()
    model.compile("adam", "adam", loss="wasserstein")
    assert model.g_optimizer is not model.d_optimizer
    assert type(model.g_optimizer) is type(model.d_optimizer) is keras.optimizers.Adam
    config = keras.optimizers.serialize(keras.optimizers.SGD(0.25))
    model.compile(config, config)
    assert model.g_optimizer is not model.d_optimizer
    assert float(model.d_optimizer.learning_rate) == 0.25


def test_compile_again_with_the_same_optimizers_keeps_their_slots():
    model = tiny.build_small_sagan()
    optimizers = keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3)
    model.compile(*optimizers, run_eagerly=True)
    fit(model, IMAGES[:4], LABELS[:4])
    slots = [x.numpy() for x in optimizers[1].variables]
    model.compile(*optimizers, loss="wasserstein", run_eagerly=True)
    assert_same([x.numpy() for x in model.d_optimizer.variables], slots)
    assert int(model.d_optimizer.iterations.numpy()) == 1


def test_one_optimizer_under_two_names():
    optimizer = keras.optimizers.Adam()
    with pytest.raises(ValueError, match="`g_optimizer` and `d_optimizer` must be two.*Received"):
        tiny.build_small_sagan().compile(optimizer, optimizer)
    with pytest.raises(ValueError, match="`g_optimizer` and `d_optimizer` must be two.*Received"):
        tiny.build_small_sagan().compile(optimizer, keras.optimizers.LossScaleOptimizer(optimizer))


@pytest.mark.parametrize("side", ["g", "d"])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_averaging_optimizer(side, is_scaled):
    optimizer = keras.optimizers.Adam(use_ema=True)
    if is_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    with pytest.raises(ValueError, match=f"`{side}_optimizer` must not have use_ema.*ema_momentum"):
        tiny.build_small_sagan().compile(**{**tiny.sgd(), f"{side}_optimizer": optimizer})


def test_unknown_loss():
    with pytest.raises(ValueError, match="`loss` must be one of .*Received: loss='hings'"):
        tiny.build_small_sagan().compile(loss="hings")


LOSSES = {
    "hinge": (lambda f: -f, lambda r, f: max(1 - r, 0) + max(1 + f, 0)),
    "wasserstein": (lambda f: -f, lambda r, f: f - r),
    "least_squares": (lambda f: (f - 1) ** 2 / 2, lambda r, f: ((r - 1) ** 2 + f**2) / 2),
    "non_saturating": (
        lambda f: np.log1p(np.exp(-f)),
        lambda r, f: np.log1p(np.exp(-r)) + np.log1p(np.exp(f)),
    ),
    "pair": (lambda f: f**2, lambda r, f: (r - f) ** 2),
}


def squares_g(fake_logits):
    return ops.mean(ops.square(fake_logits))


def squares_d(real_logits, fake_logits):
    return ops.mean(ops.square(real_logits - fake_logits))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_trains(name):
    model = scalar_gan.build()
    loss = (squares_g, squares_d) if name == "pair" else name
    model.compile(**tiny.sgd(), loss=loss, run_eagerly=True)
    # With one image the mean logits are the logits, and the losses follow from them.
    history = {k: v[0] for k, v in fit(model, scalar_gan.IMAGES[:1]).items()}
    real, fake = history["real_logits"], history["fake_logits"]
    assert history["d_loss"] == pytest.approx(LOSSES[name][1](real, fake), rel=1e-4)
    least, most = {"least_squares": (0.5, 0.5), "wasserstein": (fake, real)}.get(name, (0.0, 0.0))
    assert history["real_accuracy"] == float(real > least)
    assert history["fake_accuracy"] == float(fake <= most)
    bias, slope = scalar_gan.numbers(model)
    assert bias != np.float32(scalar_gan.BIAS) and slope != np.float32(scalar_gan.SLOPE)
    # The generator's is of the discriminator after its update.
    expected = LOSSES[name][0](slope * np.tanh(scalar_gan.BIAS))
    assert history["g_loss"] == pytest.approx(expected, rel=1e-4)


# Precision


@pytest.mark.slow
def test_mixed_float16_scales_both_losses():
    keras.config.set_dtype_policy("mixed_float16")
    model = tiny.build_sagan(ema_momentum=0.5)
    model.compile(**tiny.sgd())
    for optimizer in (model.g_optimizer, model.d_optimizer):
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    # The first steps are skipped, until the loss scale is small enough.
    assert_trains(model, epochs=10)
    again = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    model.compile(again, keras.optimizers.SGD(), auto_scale_loss=False)
    assert model.g_optimizer is again and type(model.d_optimizer) is keras.optimizers.SGD


@pytest.mark.slow
def test_mixed_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tiny.build_sagan(ema_momentum=0.5)
    model.compile(**tiny.sgd(), run_eagerly=True)
    assert type(model.g_optimizer) is type(model.d_optimizer) is keras.optimizers.SGD
    assert_trains(model, epochs=1)


def assert_trains(model, epochs):
    before = tiny.weights(model)
    history = fit(model, IMAGES[:8], LABELS[:8], epochs=epochs)
    assert all(np.isfinite(values).all() for values in history.values())
    for old, weight in zip(before, model.weights):
        is_count = weight.name in ("steps", "num_updates")
        assert weight.dtype == ("int32" if is_count else "float32")
        assert np.isfinite(weight.numpy()).all()
        if weight.shape != (1,):
            assert not np.array_equal(old, weight.numpy()), weight.path
    images = model.generate(2, seed=0)
    assert images.dtype == "uint8"


# Networks of the user's own


def test_sequential_networks_without_labels():
    generator = keras.Sequential([layers.Dense(32, "tanh"), layers.Reshape((4, 4, 2))])
    discriminator = keras.Sequential([layers.Flatten(), layers.Dense(1)])
    model = SAGAN(generator, discriminator, latent_dim=3, ema_momentum=0.9)
    assert model.image_shape == (4, 4, 2)
    model.compile()
    images = tiny.images(8)[:, :4, :4]
    before = tiny.weights(model)
    fit(model, images)
    same = [np.array_equal(old, new) for old, new in zip(before, tiny.weights(model))]
    # Inside its margins the hinge has no gradient for the discriminator's last bias.
    assert [w.shape for w, is_same in zip(model.weights, same) if is_same] == [(1,)]
    assert model.generate(3).shape == (3, 4, 4, 2)


@keras.saving.register_keras_serializable(package="tests")
class Generator(keras.Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.table = layers.Embedding(tiny.CLASSES, units)
        self.dense = layers.Dense(32, "tanh")
        self.norm = layers.BatchNormalization()
        self.dropout = layers.Dropout(0.5)
        self.reshape = layers.Reshape((4, 4, 2))

    def call(self, inputs, training=False):
        latents, labels = inputs
        x = self.norm(ops.concatenate([latents, self.table(labels)], -1), training=training)
        return self.reshape(self.dense(self.dropout(x, training=training)))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional_discriminator():
    images, labels = keras.Input((4, 4, 2)), keras.Input((), dtype="int32")
    x = layers.Flatten()(images)
    x = layers.BatchNormalization(name="norm")(layers.Dense(6, "relu")(x))
    x = layers.Dropout(0.5)(layers.Concatenate()([x, layers.Embedding(5, 3)(labels)]))
    return keras.Model([images, labels], layers.Dense(1)(x))


@pytest.mark.slow
def test_subclassed_and_functional_networks_with_dropout_and_batch_norm(tmp_path):
    model = SAGAN(
        Generator(4), functional_discriminator(), 3, tiny.CLASSES, ema_momentum=0.5, seed=1
    )
    model.compile(**tiny.sgd(), run_eagerly=True)
    images, labels = tiny.images(8)[:, :4, :4], tiny.labels(8)
    start = [w.numpy() for w in model.ema_generator.weights]
    assert_same([w.numpy() for w in model.generator.weights], start)
    norm = model.discriminator.get_layer("norm")
    fit(model, images, labels, batch_size=8)
    # Nothing is left of the 1 at the start, of which Keras keeps 0.99: a variance near 0.1.
    assert 0.001 < norm.moving_variance.numpy().min() < norm.moving_variance.numpy().max() < 0.5
    after = norm.moving_mean.numpy()
    model.evaluate(images, labels, verbose=0)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), after)
    moved = [not np.array_equal(a, w.numpy()) for a, w in zip(start, model.ema_generator.weights)]
    assert all(moved)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for one in (model, again):
        fit(one, images, labels, batch_size=8)
    assert_same(tiny.weights(again), tiny.weights(model))


def test_regularization_losses_are_added():
    def zero_g(fake_logits):
        return 0.0 * ops.mean(fake_logits)

    def zero_d(real_logits, fake_logits):
        return 0.0 * ops.mean(real_logits)

    generator = keras.Sequential(
        [layers.Dense(32, kernel_regularizer=keras.regularizers.L2(0.5)), layers.Reshape((4, 4, 2))]
    )
    discriminator = keras.Sequential(
        [layers.Flatten(), layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.25))]
    )
    model = SAGAN(generator, discriminator, latent_dim=3)
    model.compile(**tiny.sgd(0.1), loss=(zero_g, zero_d), run_eagerly=True)
    kernels = generator.layers[0].kernel, discriminator.layers[1].kernel
    before = [kernel.numpy() for kernel in kernels]
    history = fit(model, tiny.images(4)[:, :4, :4])
    # The gradient of 0.5 w^2 is w, with a step of 0.1; of 0.25 w^2 it is w / 2, with 0.2.
    for kernel, old in zip(kernels, before):
        np.testing.assert_allclose(kernel.numpy(), 0.9 * old, rtol=1e-6)
    assert history["d_loss"] == [0.0] and history["g_loss"] == [0.0]  # Reported without them.


def test_losses_that_layers_add_are_trained_on():
    """At a rate of 0.1, `x^2 / 2` makes x a tenth smaller."""

    def network(shape, *last):
        first = [layers.Flatten(), layers.Rescaling(0.0), layers.Dense(1, bias_initializer="ones")]
        added = layers.ActivityRegularization(l2=0.5)
        return keras.Sequential([keras.Input(shape), *first, added, *last])

    networks = network((1,), layers.Reshape((1, 1, 1))), network((1, 1, 1))
    model = SAGAN(*networks, latent_dim=1, seed=1)
    loss = (lambda fake: 0.0 * ops.mean(fake), lambda real, fake: 0.0 * ops.mean(real))
    model.compile(*(keras.optimizers.SGD(0.1) for _ in range(2)), loss=loss, run_eagerly=True)
    model.train_on_batch(np.zeros((4, 1, 1, 1), "float32"))
    for network in networks:
        assert network.trainable_variables[1].numpy() == pytest.approx(0.9)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_row_that_is_looked_up_often_has_one_gradient(run_eagerly):
    """Adam's first step is as long as the rate, which squares of parts of the gradient change."""
    images, labels = keras.Input(tiny.SHAPE), keras.Input((), dtype="int32")
    table = layers.Embedding(tiny.CLASSES, 1, embeddings_initializer="zeros")
    logits = layers.Dense(1)(layers.Flatten()(images)) + table(labels)
    discriminator = keras.Model([images, labels], logits)
    model = SAGAN(tiny.build_generator(), discriminator, tiny.LATENT_DIM, tiny.CLASSES, seed=1)
    model.compile("sgd", keras.optimizers.Adam(0.1), loss="wasserstein", run_eagerly=run_eagerly)
    model.train_on_batch(IMAGES[:4], np.full(4, 2))
    assert float(table.embeddings[2, 0]) == pytest.approx(0.1, rel=1e-3)


def test_oracle_of_sigma_agrees():  # `iterate` above converges to what numpy says.
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    u = iterate(kernel, np.ones(4) / 2.0, 500)
    matrix = kernel.reshape(-1, 4)
    assert np.linalg.norm(matrix @ u) == pytest.approx(oracles.spectral_norm(kernel), rel=1e-9)


def test_latents_are_normal_and_finite_at_both_ends():
    from keras_sagan.training.tensorflow import normal_from_bits

    ends = normal_from_bits(tf.constant([0, 2**22 - 1, 2**22, 2**23 - 1])).numpy()
    assert np.isfinite(ends).all()
    np.testing.assert_allclose(ends, -ends[::-1], rtol=1e-3, atol=1e-6)
    assert 5.0 < ends[-1] < 6.0
    numbers = normal_from_bits(tf.range(0, 2**23, 97)).numpy()  # evenly over all values
    assert abs(numbers.mean()) < 1e-3 and abs(numbers.std() - 1.0) < 1e-3
    assert np.mean(np.abs(numbers) < 1.0) == pytest.approx(0.6827, abs=1e-3)


class TwiceInTraining(layers.Layer):
    def call(self, x, training=False):
        return 2.0 * x if training else x


def small_networks(*between):
    keras.utils.set_random_seed(3)
    generator = keras.Sequential(
        [keras.Input((3,)), layers.Dense(128, activation="tanh"), layers.Reshape(tiny.SHAPE)]
    )
    discriminator = keras.Sequential(
        [keras.Input(tiny.SHAPE), layers.Flatten(), layers.Dense(4), *between, layers.Dense(1)]
    )
    return generator, discriminator


def test_losses_of_the_discriminator_are_not_the_generators():
    """What its layers add to its loss teaches the discriminator alone."""
    found = []
    for between in ((), (layers.ActivityRegularization(l2=10.0),)):
        model = SAGAN(*small_networks(*between), latent_dim=3, seed=1)
        # The discriminator stays what it is, so that the generator's gradients agree.
        model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.0), run_eagerly=True)
        model.train_on_batch(tiny.images(4))
        found.append(model.generator.get_weights())
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)


def test_the_generator_learns_from_the_discriminator_as_it_is_in_training():
    generator, discriminator = small_networks(TwiceInTraining())
    before = generator.get_weights()
    model = SAGAN(generator, discriminator, latent_dim=3, seed=1)
    rates = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.0)
    model.compile(*rates, loss="wasserstein", run_eagerly=True)
    logs = model.train_on_batch(tiny.images(4), return_dict=True)
    after = generator.get_weights()
    generator.set_weights(before)
    with tf.GradientTape() as tape:
        images = generator(draw_noise((1, 0, 1), 4, 3)[0])
        loss = -tf.reduce_mean(discriminator(images, training=True))
    assert logs["g_loss"] == pytest.approx(float(loss), abs=1e-6)
    gradients = tape.gradient(loss, generator.trainable_variables)
    for old, new, gradient in zip(before, after, gradients):
        np.testing.assert_allclose(new, old - 0.1 * gradient.numpy(), atol=1e-6)


@pytest.mark.slow
def test_evaluate_draws_no_latents_of_training():
    seen = []
    model = tiny.build_sagan(on_generator=lambda latents, _: seen.extend(map(tuple, latents)))
    model.compile(**tiny.sgd(0.0), run_eagerly=True)
    images, labels = tiny.images(12), tiny.labels(12)
    model.fit(images, labels, batch_size=4, verbose=0)
    trained = set(seen)
    seen.clear()
    model.evaluate(images, labels, batch_size=4, verbose=0)
    assert len(seen) == 12 and not trained & set(seen)


@pytest.mark.slow
@pytest.mark.parametrize("run_eagerly", [True, False])
def test_metrics_of_a_subclass_and_of_its_layers_are_of_an_epoch(run_eagerly):
    class Counting(SAGAN):
        def __init__(self, *args, factor=2.0, **kwargs):
            super().__init__(*args, **kwargs)
            self.factor = factor
            self.pixels = keras.metrics.Sum(name="pixels")

        def train_step(self, data):
            logs = super().train_step(data)
            self.pixels.update_state(self.factor * tf.ones_like(data[..., 0]))
            return {**logs, "pixels": self.pixels.result()}

    model = Counting(*small_networks(), 3, seed=1)
    model.compile(**tiny.sgd(), run_eagerly=run_eagerly)
    history = model.fit(tiny.images(8), batch_size=4, epochs=3, verbose=0).history
    assert history["pixels"] == [2.0 * 8 * 64] * 3
    assert [x.name for x in model.metrics].count("loss") == 0


def test_methods_that_a_gan_does_not_call():
    class Own(SAGAN):
        def compute_loss(self, *args, **kwargs):
            return 0.0

    model = Own(tiny.build_generator(None), tiny.build_discriminator(None), 3)
    with pytest.warns(UserWarning, match="`compute_loss` of Own is never called.*`loss`"):
        model.compile()


def test_one_optimizer_alone():
    model = tiny.build_small_sagan()
    for optimizer in ("adam", {"class_name": "Adam", "config": {}}, keras.optimizers.Adam()):
        with pytest.raises(ValueError, match="`d_optimizer` must be given too.*Received: g_opt"):
            model.compile(optimizer)
    model.compile(keras.optimizers.SGD(0.5), "auto")
    assert float(model.d_optimizer.learning_rate) == pytest.approx(4e-4)
