"""`generate`, `attention_maps` and `attention_gammas`."""

import collections
import threading

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
import tiny_networks as tiny

from keras_sagan import SAGAN


def randomize(network, scale=0.3, seed=3):
    """Weights that make images of one latent differ visibly from those of another."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        if len(weight.shape) > 1:
            weight.assign(weight + scale * rng.normal(size=weight.shape))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = tiny.build_sagan(ema_momentum=0.5)
    model.steps.assign(1)  # Before training the average is the generator.
    randomize(model.generator)
    randomize(model.ema_generator, seed=4)
    randomize(model.discriminator)
    return model


@pytest.fixture(scope="module")
def unconditional():
    return tiny.build_sagan(num_classes=None)


def grey_levels(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


def test_shape_dtype_and_determinism(model):
    images = model.generate(5, seed=1)
    assert images.shape == (5, *tiny.SHAPE) and images.dtype == "uint8"
    np.testing.assert_array_equal(images, model.generate(5, seed=1))
    assert grey_levels(images, model.generate(5, seed=2)) > 20
    assert grey_levels(model.generate(5), model.generate(5)) > 20  # No seed: new ones.
    assert images.std() > 10


def test_pixels_are_the_rounded_images_of_the_network(model):
    latents = np.random.default_rng(0).normal(size=(4, tiny.LATENT_DIM)).astype("float32")
    labels = np.array([0, 1, 2, 3])
    floats = keras.ops.convert_to_numpy(model.ema_generator([latents, labels]))
    assert np.abs(floats).max() <= 1.0
    expected = np.round((floats.astype("float64") + 1.0) * 127.5)
    received = model.generate(4, labels, latents=latents)
    assert np.abs(received - expected).max() <= 1
    assert (received == expected).mean() > 0.99


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_batch_size_does_not_matter(model, batch_size):
    # Convolutions of other batches may round differently: at most one grey level.
    expected = model.generate(7, seed=4, batch_size=7)
    received = model.generate(7, seed=4, batch_size=batch_size)
    assert received.shape == expected.shape
    assert grey_levels(received, expected) <= 1


def test_labels(model):
    scalar = model.generate(3, labels=2, seed=0)
    np.testing.assert_array_equal(scalar, model.generate(3, labels=[2, 2, 2], seed=0))
    np.testing.assert_array_equal(scalar, model.generate(3, labels=np.int64(2), seed=0))
    np.testing.assert_array_equal(scalar, model.generate(3, labels=np.array([2] * 3), seed=0))
    assert grey_levels(scalar, model.generate(3, labels=3, seed=0)) > 5
    mixed = model.generate(3, labels=[2, 3, 2], seed=0)
    assert grey_levels(mixed[[0, 2]], scalar[[0, 2]]) <= 1
    assert grey_levels(mixed[1], scalar[1]) > 5


def test_labels_are_drawn_from_the_seed(model):
    latents = np.zeros((200, tiny.LATENT_DIM), "float32")
    images = model.generate(200, latents=latents, seed=0)
    np.testing.assert_array_equal(images, model.generate(200, latents=latents, seed=0))
    by_class = [model.generate(1, label, latents=latents[:1])[0] for label in range(tiny.CLASSES)]
    distance = [[grey_levels(image, other) for other in by_class] for image in images]
    nearest = np.argmin(distance, axis=1)
    assert np.min(distance, axis=1).max() <= 1
    assert np.bincount(nearest, minlength=tiny.CLASSES).min() > 15  # Of 40 each.


def test_latents_and_seed(model):
    latents = np.random.default_rng(0).normal(size=(3, tiny.LATENT_DIM))
    images = model.generate(3, 1, latents=latents)
    np.testing.assert_array_equal(images, model.generate(3, 1, latents=latents.tolist(), seed=5))
    np.testing.assert_array_equal(images[::-1], model.generate(3, 1, latents=latents[::-1].copy()))


def test_truncation(unconditional):
    seen = []
    spied = tiny.build_sagan(num_classes=None, on_generator=lambda latents, _: seen.append(latents))
    # Computed eagerly, the spy in front of the network sees the latents.
    tf.config.run_functions_eagerly(True)
    try:
        spied.generate(50, seed=0)
        spied.generate(50, seed=0, truncation=0.5)
        spied.generate(50, seed=0, truncation=2.0)
    finally:
        tf.config.run_functions_eagerly(False)
    free, narrow, wide = seen
    assert np.abs(free).max() > 2.0
    assert 0.4 < np.abs(narrow).max() <= 0.5
    assert 1.5 < np.abs(wide).max() <= 2.0


def test_use_ema(model):
    latents = np.random.default_rng(0).normal(size=(3, tiny.LATENT_DIM)).astype("float32")
    weights = model.generator.get_weights()
    before = {use: model.generate(3, 1, latents=latents, use_ema=use) for use in (True, False)}
    np.testing.assert_array_equal(before[True], model.generate(3, 1, latents=latents))
    model.generator.set_weights([1.5 * w for w in weights])
    assert grey_levels(before[False], model.generate(3, 1, latents=latents, use_ema=False)) > 5
    np.testing.assert_array_equal(before[True], model.generate(3, 1, latents=latents))
    model.generator.set_weights(weights)
    np.testing.assert_array_equal(
        before[False], model.generate(3, 1, latents=latents, use_ema=False)
    )


def test_without_an_average_use_ema_is_the_generator(unconditional):
    images = unconditional.generate(2, seed=0)
    np.testing.assert_array_equal(images, unconditional.generate(2, seed=0, use_ema=False))


def test_other_counts_are_not_traced_again():
    traces = []
    generator = keras.Sequential(
        [keras.layers.Dense(32, "tanh"), keras.layers.Reshape((4, 4, 2)), Counter(traces)]
    )
    discriminator = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model = SAGAN(generator, discriminator, latent_dim=3)
    model.generate(4, batch_size=4)
    before = len(traces)
    for count, batch_size in ((1, 4), (4, 3), (9, 5), (70, 64), (2, 64), (99, 33)):
        assert len(model.generate(count, batch_size=batch_size)) == count
    assert len(traces) == before


class Counter(keras.layers.Layer):
    def __init__(self, traces):
        super().__init__()
        self.on_call = traces.append

    def call(self, x):
        self.on_call(1)
        return x


def test_generating_moves_nothing(model):
    before = tiny.weights(model)
    model.generate(3, seed=0)
    model.attention_maps(np.zeros((2, tiny.LATENT_DIM)), [0, 1])
    model.attention_maps(tiny.images(2), [0, 1])
    for old, new in zip(before, tiny.weights(model)):
        np.testing.assert_array_equal(old, new)


# Attention


@pytest.mark.parametrize("use_ema", [True, False])
def test_attention_maps_of_the_generator(model, use_ema):
    latents = np.random.default_rng(0).normal(size=(3, tiny.LATENT_DIM)).astype("float32")
    labels = np.array([4, 0, 2])
    images, maps = model.attention_maps(latents, labels, use_ema=use_ema)
    expected = model.generate(3, labels, latents=latents, use_ema=use_ema)
    assert images.dtype == "uint8" and grey_levels(images, expected) <= 1
    network = model.ema_generator if use_ema else model.generator
    check_scores(network, [latents, labels], maps)


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_attention_maps_of_the_discriminator(model, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (3, *tiny.SHAPE)).astype("uint8")
    floats = (pixels / 127.5 - 1.0).astype("float32")
    labels = np.array([4, 0, 2])
    images, maps = model.attention_maps(pixels if kind == "uint8" else floats, labels)
    assert images.dtype == "uint8"
    np.testing.assert_array_equal(images, pixels)
    check_scores(model.discriminator, [floats, labels], maps)


def check_scores(network, inputs, maps):
    assert list(maps) == ["attention"]
    (scores,) = maps.values()
    assert scores.shape == (3, 8, 8, 4, 4) and scores.dtype == "float32"
    np.testing.assert_allclose(scores.sum(axis=(3, 4)), 1.0, atol=1e-5)
    layer = network.get_layer("attention")
    features = keras.Model(network.inputs, layer.input)(inputs)
    _, own = layer(features, return_attention_scores=True)
    own = keras.ops.convert_to_numpy(own)
    np.testing.assert_allclose(scores.reshape(own.shape), own, atol=1e-6)
    convs = (layer.query_conv, layer.key_conv, layer.value_conv, layer.output_conv)
    kernels = [keras.ops.convert_to_numpy(conv.normalized_weight()) for conv in convs]
    features = keras.ops.convert_to_numpy(features)
    _, expected = oracles.self_attention(features, kernels, 0.5, 2)
    np.testing.assert_allclose(scores.reshape(own.shape), expected, atol=1e-5)
    assert scores.std() > 1e-4  # Not uniform.


def test_attention_maps_without_labels(unconditional):
    images, maps = unconditional.attention_maps(np.zeros((2, tiny.LATENT_DIM)))
    assert images.shape == (2, *tiny.SHAPE) and maps["attention"].shape == (2, 8, 8, 4, 4)


def test_attention_gammas(model):
    model.generator.get_layer("attention").gamma.assign(0.25)
    assert model.attention_gammas() == {
        "generator/attention": 0.25,
        "discriminator/attention": 0.5,
    }
    assert all(type(value) is float for value in model.attention_gammas().values())
    model.generator.get_layer("attention").gamma.assign(0.5)


def test_network_without_attention():
    generator = keras.Sequential([keras.layers.Dense(8), keras.layers.Reshape((2, 2, 2))])
    discriminator = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model = SAGAN(generator, discriminator, latent_dim=3)
    assert model.attention_gammas() == {}
    for inputs in (np.zeros((1, 3)), np.zeros((1, 2, 2, 2))):
        with pytest.raises(ValueError, match="`attention_maps` needs .*SelfAttention2D.*Received"):
            model.attention_maps(inputs)


@pytest.mark.parametrize("seed", ["a", 1.5, -1])
def test_seeds_that_are_none(model, seed):
    with pytest.raises(ValueError, match=f"`seed` must be a non-negative integer.*seed={seed!r}"):
        model.generate(2, seed=seed)


def test_a_truncation_that_is_no_number(model):
    with pytest.raises(ValueError, match="`truncation` must be positive. Received: .*='a'"):
        model.generate(2, truncation="a")


# Threads


def run_in_threads(*functions):
    """Runs functions at the same time, and returns their results or errors."""
    results, begun = {}, threading.Barrier(len(functions))

    def run(index, function):
        begun.wait(timeout=60)
        try:
            results[index] = function()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=x) for x in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[index] for index in range(len(functions))]


def test_attention_maps_and_pictures_of_several_threads(model):
    latents = np.random.default_rng(0).normal(size=(3, 2, tiny.LATENT_DIM)).astype("float32")
    functions = [lambda x=x: model.attention_maps(x, [0, 1])[1]["attention"] for x in latents]
    functions.append(lambda: model.generate(5, seed=1, batch_size=2))
    expected = [function() for function in functions]
    for _ in range(3):
        for received, wanted in zip(run_in_threads(*functions), expected):
            np.testing.assert_allclose(received, wanted, atol=1e-6)


def test_layers_that_change_after_the_first_images():
    latents = keras.Input((tiny.LATENT_DIM,))
    x = keras.layers.Dense(128, activation="tanh", name="dense")(latents)
    generator = keras.Model(latents, keras.layers.Reshape(tiny.SHAPE)(x))
    model = SAGAN(generator, tiny.build_discriminator(None), tiny.LATENT_DIM)
    before = model.generate(2, seed=0)
    generator.get_layer("dense").enable_lora(1)
    generator.get_layer("dense").lora_kernel_b.assign(np.ones((1, 128)))
    after, details = model.generate(2, seed=0, return_details=True)
    images = 127.5 * generator.predict(details["latents"], verbose=0) + 127.5
    assert np.abs(after - images).max() <= 1 and grey_levels(after, before) > 20


@pytest.mark.slow
def test_attention_maps_and_pictures_while_fit_runs():
    model = tiny.build_sagan()
    model.compile(**tiny.sgd())
    counts, is_done = collections.Counter(), threading.Event()

    def fit():
        try:
            model.fit(tiny.images(8), tiny.labels(8), batch_size=4, verbose=0)
        finally:
            is_done.set()
        return int(model.steps.numpy())

    def look():
        while not is_done.is_set():
            _, scores = model.attention_maps(np.ones((2, tiny.LATENT_DIM)), [0, 1])
            assert list(scores) == ["attention"]
            np.testing.assert_allclose(scores["attention"].sum((-2, -1)), 1.0, atol=1e-5)
            counts["look"] += 1
        return "right"

    def generate():
        while not is_done.is_set():
            assert model.generate(3).shape == (3, *tiny.SHAPE)
            counts["generate"] += 1
        return "right"

    assert run_in_threads(fit, look, look, generate) == [2, "right", "right", "right"]
    assert min(counts["look"], counts["generate"]) > 2
