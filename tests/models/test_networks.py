"""Generator, discriminator and their blocks: sizes, shapes, values, precision, files."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sagan import SelfAttention2D, build_discriminator, build_generator
from keras_sagan.layers import ConditionalBatchNorm, SNConv2D, SNDense, SNEmbedding
from keras_sagan.models import IMAGE_SIZES, blocks

SIZES = (32, 64, 128, 256)
OTHER_SIZES = (8, 16, 512, 1024)


def numpy(x):
    return ops.convert_to_numpy(x)


def count(network):
    return sum(math.prod(w.shape) for w in network.trainable_weights)


def latents_of(batch, dim=128):
    return np.random.default_rng(0).normal(size=(batch, dim)).astype("float32")


def images_of(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


# Trainable parameters at 128 px: the authors' code and its variants.
@pytest.mark.slow
@pytest.mark.parametrize(
    "base_filters, resolutions, num_classes, of_generator, of_discriminator",
    [
        (64, (32,), 1000, 42_078_852, 39_463_618),
        (64, (64,), None, 32_171_268, 38_424_258),
        (32, (32,), 1000, 13_514_052, 10_124_642),
    ],
)
def test_parameter_counts(
    base_filters, resolutions, num_classes, of_generator, of_discriminator, monkeypatch
):
    def zeros(initializer, shape, dtype=None, **kwargs):  # Drawing millions takes seconds.
        return ops.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)
    arguments = {
        "base_filters": base_filters,
        "attention_resolutions": resolutions,
        "num_classes": num_classes,
    }
    assert count(build_generator(128, **arguments)) == of_generator
    assert count(build_discriminator(128, **arguments)) == of_discriminator


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, channels, num_classes", zip(SIZES, (1, 3, 1, 3), (None, 5, None, 5))
)
def test_shapes(size, channels, num_classes):
    arguments = {"base_filters": 8, "channels": channels, "num_classes": num_classes}
    arguments["attention_resolutions"] = (16,)
    generator = build_generator(size, latent_dim=6, **arguments)
    discriminator = build_discriminator(size, **arguments)
    assert generator.output_shape == (None, size, size, channels)
    assert discriminator.output_shape == (None, 1)
    labels = [] if num_classes is None else [np.array([4])]
    latents = latents_of(1, 6)
    images = generator([latents, *labels] if labels else latents)
    assert images.shape == (1, size, size, channels)
    logits = discriminator([numpy(images), *labels] if labels else images)
    assert logits.shape == (1, 1) and np.isfinite(numpy(logits)).all()
    assert np.abs(numpy(images)).max() <= 1.0 and np.abs(numpy(images)).std() > 0
    assert [x.shape[1:] for x in generator.inputs] == [(6,), ()][: 1 + len(labels)]
    # Every convolution, dense layer and embedding is normalised.
    kinds = (layers.Conv2D, layers.Dense, layers.Embedding)
    ours = (SNConv2D, SNDense, SNEmbedding)
    for network in (generator, discriminator):
        found = [x for x in network._flatten_layers() if isinstance(x, kinds)]
        assert found and all(isinstance(x, ours) for x in found)


@pytest.mark.slow
@pytest.mark.parametrize("size", OTHER_SIZES)
def test_every_other_power_of_two(size):
    """The map sizes of both networks, with attention where the examples put it."""
    assert size in IMAGE_SIZES and len(IMAGE_SIZES) == len(SIZES + OTHER_SIZES)
    attention = (min(32, size // 2),)
    generator = build_generator(size, 8, 4, attention_resolutions=attention)
    discriminator = build_discriminator(size, 8, attention_resolutions=attention)
    assert generator.output_shape == (None, size, size, 3)
    assert attention_sizes(generator) == attention_sizes(discriminator)
    assert attention_sizes(generator) == [f"attention_{attention[0]}"]
    assert discriminator.get_layer("last_relu").output.shape[1] == (8 if size == 16 else 4)
    if size <= 16:
        assert discriminator(generator(latents_of(2, 4))).shape == (2, 1)


GENERATOR_MAPS = {size: [4 * 2**i for i in range(int(math.log2(size)) - 1)] for size in SIZES}
DISCRIMINATOR_MAPS = {32: [8, 16], 64: [4, 8, 16, 32], 128: [4, 8, 16, 32, 64]}
DISCRIMINATOR_MAPS[256] = [4, 8, 16, 32, 64, 128]


def attention_sizes(network):
    return [x.name for x in network.layers if isinstance(x, SelfAttention2D)]


@pytest.mark.slow
@pytest.mark.parametrize("mask", [1, 2, 4, 7])
def test_any_set_of_attention_resolutions(mask):
    for build, maps in (
        (build_generator, GENERATOR_MAPS[32][:3]),
        (build_discriminator, DISCRIMINATOR_MAPS[64][:3]),
    ):
        chosen = [x for i, x in enumerate(maps) if mask >> i & 1]
        is_up = build is build_generator
        network = build(32 if is_up else 64, 8, attention_resolutions=chosen)
        names = [f"attention_{x}" for x in sorted(chosen, reverse=not is_up)]
        assert attention_sizes(network) == names
        for name in names:
            assert network.get_layer(name).output.shape[1:3] == 2 * (int(name.split("_")[1]),)


@pytest.mark.slow
@pytest.mark.parametrize("size", [128, 256])
def test_all_attention_resolutions_of_large_images(size):
    generator = build_generator(size, 8, attention_resolutions=GENERATOR_MAPS[size])
    assert attention_sizes(generator) == [f"attention_{x}" for x in GENERATOR_MAPS[size]]
    discriminator = build_discriminator(size, 8, attention_resolutions=DISCRIMINATOR_MAPS[size])
    expected = [f"attention_{x}" for x in DISCRIMINATOR_MAPS[size][::-1]]
    assert attention_sizes(discriminator) == expected


def test_widths_are_those_of_the_sheet():
    discriminator = build_discriminator(128, 8, attention_resolutions=())
    widths = [discriminator.get_layer(f"block_{i}_sum").output.shape[1:] for i in range(1, 7)]
    assert widths == [(64, 64, 8), (32, 32, 16), (16, 16, 32), (8, 8, 64), (4, 4, 128), (4, 4, 128)]
    generator = build_generator(128, 8, attention_resolutions=())
    widths = [generator.get_layer(f"block_{4 * 2**i}_sum").output.shape[1:] for i in range(1, 6)]
    assert widths == [(8, 8, 128), (16, 16, 64), (32, 32, 32), (64, 64, 16), (128, 128, 8)]
    assert generator.get_layer("start_map").output.shape[1:] == (4, 4, 128)


# Values


@pytest.fixture(scope="module")
def conditional():
    arguments = {"num_classes": 5, "attention_resolutions": (16,)}
    return build_generator(32, 4, 6, **arguments), build_discriminator(32, 4, **arguments)


def part(network, name):
    return keras.Model(network.inputs, network.get_layer(name).output)


def test_features_are_summed_and_projected(conditional):
    _, discriminator = conditional
    images, labels = images_of(5, 32, 32, 3), np.array([0, 3, 1, 4, 3])
    maps = numpy(part(discriminator, "last_relu")([images, labels])).astype("float64")
    assert maps.shape == (5, 8, 8, 8) and maps.min() >= 0
    features = maps.sum(axis=(1, 2))
    dense = discriminator.get_layer("logits")
    dense.bias.assign([0.5])
    table = numpy(discriminator.get_layer("label_embedding").normalized_weight())
    expected = features @ numpy(dense.normalized_weight()) + 0.5
    expected += (features * table[labels]).sum(1, keepdims=True)
    received = numpy(discriminator([images, labels]))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    dense.bias.assign([0.0])
    mean = maps.mean(axis=(1, 2)) @ numpy(dense.normalized_weight())
    assert np.abs(mean - expected).max() > 0.1  # The test tells a sum from a mean.


def test_labels_change_images_only_through_the_tables(conditional):
    generator, _ = conditional
    latents = np.repeat(latents_of(1, 6), 2, axis=0)
    images = numpy(generator([latents, np.array([0, 1])]))
    np.testing.assert_allclose(images[0], images[1], atol=1e-6)  # Equal rows at the start.
    norm = generator.get_layer("block_8_norm_1")
    table = numpy(norm.gamma).copy()
    norm.gamma.assign(table * np.array([[1.0], [3.0], [1.0], [1.0], [1.0]]))
    images = numpy(generator([latents, np.array([0, 1])]))
    norm.gamma.assign(table)
    assert np.abs(images[0] - images[1]).max() > 1e-3


def test_images_end_in_tanh(conditional):
    generator, _ = conditional
    inputs = [30.0 * latents_of(3, 6), np.array([0, 1, 2])]
    before = numpy(part(generator, "last_conv")(inputs))
    np.testing.assert_allclose(numpy(generator(inputs)), np.tanh(before), atol=1e-6)
    assert np.abs(before).max() > 1.0


def test_up_block_against_the_text_book():
    x = keras.Input((4, 4, 6))
    y = blocks.up_block(x, None, 5, *plain_parts(), name="block")
    block = keras.Model(x, y)
    randomize(block)
    images = images_of(2, 4, 4, 6)
    up = layers.UpSampling2D()
    h = ops.relu(block.get_layer("block_norm_1")(images))
    h = block.get_layer("block_conv_1")(up(h))
    h = ops.relu(block.get_layer("block_norm_2")(h))
    h = block.get_layer("block_conv_2")(h)
    expected = h + block.get_layer("block_shortcut")(up(images))
    np.testing.assert_allclose(numpy(block(images)), numpy(expected), rtol=1e-5)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("downsample", [True, False])
@pytest.mark.parametrize(("filters", "slope"), [(5, 0.0), (6, 0.0), (6, 0.2)])
def test_down_block_against_the_text_book(filters, slope, downsample, first):
    def relu(x):
        return ops.maximum(x, slope * x)

    x = keras.Input((4, 4, 6))
    y = blocks.down_block(x, filters, plain_parts()[0], downsample, first, "block", slope)
    block = keras.Model(x, y)
    randomize(block)
    images = images_of(2, 4, 4, 6)
    h = images if first else relu(images)
    h = block.get_layer("block_conv_2")(relu(block.get_layer("block_conv_1")(h)))
    shortcut = images
    if downsample or filters != 6:
        shortcut = block.get_layer("block_shortcut")(images)
    else:
        assert len(block.trainable_weights) == 4
    expected = h + shortcut
    if downsample:
        expected = numpy(expected).reshape(2, 2, 2, 2, 2, filters).mean(axis=(2, 4))
    assert block.output_shape[1:] == expected.shape[1:]
    np.testing.assert_allclose(numpy(block(images)), numpy(expected), rtol=1e-5)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_only_a_leaky_discriminator_survives_negative_features(slope):
    discriminator = build_discriminator(
        32, 8, attention_resolutions=(), use_spectral_norm=False, negative_slope=slope
    )
    last = [layer for layer in discriminator.layers if layer.name.endswith("_conv_2")][-1]
    last.bias.assign(ops.full(last.bias.shape, -100.0))  # As after a bad update.
    logits = numpy(discriminator(images_of(2, 32, 32, 3)))
    assert (np.ptp(logits) > 0.0) == (slope > 0.0)


class TwoSteps(layers.Layer):
    """A resampling convolution in two steps, with weights under the same names."""

    def __init__(self, config):
        super().__init__(name=config["name"])
        self.resample = config["resample"]
        self.conv = SNConv2D.from_config({**config, "resample": None})

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x, training=False):
        if self.resample == "up":
            return self.conv(ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2), training=training)
        return ops.average_pool(self.conv(x, training=training), 2, 2)


def textbook(network):
    """The network with every resampling step by itself, and the same weights."""

    def clone(layer):
        config = layer.get_config()
        if config.get("resample") is None:
            return type(layer).from_config(config)
        return TwoSteps(config)

    copy = keras.models.clone_model(network, clone_function=clone)
    copy.set_weights(network.get_weights())
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1], ids=["generator", "discriminator"])
def test_networks_equal_their_textbook_form(conditional, index, monkeypatch):
    """With softplus: whether a ReLU of an input near 0 is on depends on how a CPU rounds."""
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setattr(keras.layers.ReLU, "call", lambda self, x: keras.ops.softplus(x))
    network = conditional[index]
    fused = [x for x in network.layers if getattr(x, "resample", None)]
    assert len(fused) == (6 if index == 0 else 4)
    expected = textbook(network)
    assert [w.shape for w in expected.weights] == [w.shape for w in network.weights]
    x = latents_of(3, 6) if index == 0 else images_of(3, 32, 32, 3)
    results = []
    for model in (network, expected):
        inputs = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = model([inputs, tf.constant([0, 4, 1])], training=True)
            loss = tf.reduce_mean(tf.square(outputs - 0.5))
        gradients = tape.gradient(loss, [inputs, *model.trainable_variables])
        results.append([outputs, *map(tf.convert_to_tensor, gradients)])
        model.set_weights(network.get_weights())
    assert len(results[0]) == len(results[1]) > 20
    for received, wanted in zip(*results):
        scale = max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(received / scale, wanted / scale, rtol=0, atol=1e-5)


def plain_parts():
    convolution, _, _ = blocks.normalized_layers(False, None)
    return convolution, blocks.batch_norm(None, None)


def randomize(block):
    rng = np.random.default_rng(1)
    block.set_weights([rng.uniform(0.1, 1.0, w.shape) for w in block.weights])


# Settings


def test_settings_reach_the_layers():
    generator = build_generator(
        32,
        8,
        num_classes=5,
        attention_resolutions=(16,),
        spectral_norm={"epsilon": 1e-8, "equality_constrained": False},
        attention={"pool_size": 1, "value_reduction": 4},
        batch_norm={"epsilon": 1e-3},
    )
    convolution = generator.get_layer("last_conv")
    assert (convolution.epsilon, convolution.equality_constrained) == (1e-8, False)
    attention = generator.get_layer("attention_16")
    assert (attention.pool_size, attention.value_reduction) == (1, 4)
    norm, last = generator.get_layer("block_8_norm_1"), generator.get_layer("last_norm")
    assert (norm.epsilon, norm.momentum, norm.num_classes) == (1e-3, 0.999, 5)
    assert (last.epsilon, last.momentum, last.num_classes) == (1e-3, 0.9999, 1)


def test_defaults_are_the_official_ones():
    generator = build_generator(32, 8, attention_resolutions=(16,))
    norm = generator.get_layer("block_8_norm_1")
    assert isinstance(norm, ConditionalBatchNorm)
    assert (norm.epsilon, norm.momentum) == (1e-5, 0.999)
    attention = generator.get_layer("attention_16")
    assert (attention.key_reduction, attention.value_reduction, attention.pool_size) == (8, 2, 2)
    convolution = generator.get_layer("last_conv")
    assert (convolution.power_iterations, convolution.epsilon) == (1, 1e-12)
    assert convolution.equality_constrained and convolution.use_bias
    assert isinstance(convolution.kernel_initializer, keras.initializers.GlorotUniform)


def test_without_spectral_norm():
    arguments = {"num_classes": 5, "attention_resolutions": (16,), "use_spectral_norm": False}
    for network in (build_generator(32, 8, **arguments), build_discriminator(32, 8, **arguments)):
        assert not [w for w in network.weights if "vector_u" in w.path]
        assert attention_sizes(network) == ["attention_16"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_images_and_logits_are_float32_under_mixed_policies(policy, conditional):
    keras.config.set_dtype_policy(policy)
    arguments = {"num_classes": 5, "attention_resolutions": (16,)}
    generator = build_generator(32, 4, 6, **arguments)
    discriminator = build_discriminator(32, 4, **arguments)
    assert generator.get_layer("last_conv").compute_dtype == policy.removeprefix("mixed_")
    for network, reference in zip((generator, discriminator), conditional):
        assert {w.dtype for w in network.weights if w.name != "num_updates"} == {"float32"}
        network.set_weights(reference.get_weights())
    labels = np.array([1, 2])
    images = generator([latents_of(2, 6), labels])
    expected = conditional[0]([latents_of(2, 6), labels])
    assert keras.backend.standardize_dtype(images.dtype) == "float32"
    atol = 0.03 if policy == "mixed_float16" else 0.1  # Of 2: eight bits, over many layers.
    np.testing.assert_allclose(numpy(images), numpy(expected), atol=atol)
    logits = discriminator([numpy(images), labels])
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert generator.output.dtype == discriminator.output.dtype == "float32"
    # What is summed over the map, and sigma of kernels that compute in half precision.
    assert discriminator.get_layer("last_relu").output.dtype == "float32"
    for network, reference in zip((generator, discriminator), conditional):
        name = "last_conv" if network is generator else "logits"
        sigma = network.get_layer(name).sigma
        assert keras.backend.standardize_dtype(sigma.dtype) == "float32"
        np.testing.assert_allclose(numpy(sigma), numpy(reference.get_layer(name).sigma), rtol=1e-6)


@pytest.mark.parametrize("index", [0, 1], ids=["generator", "discriminator"])
def test_file_round_trip(conditional, index, tmp_path):
    network = conditional[index]
    inputs = latents_of(2, 6) if index == 0 else images_of(2, 32, 32, 3)
    inputs = [inputs, np.array([1, 4])]
    network.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(numpy(again(inputs)), numpy(network(inputs)))
    assert again.name == ("generator", "discriminator")[index]
    for old, new in zip(network.weights, again.weights):
        assert old.path == new.path
        np.testing.assert_array_equal(numpy(old), numpy(new))


# Bad input

BUILDERS = pytest.mark.parametrize("build", [build_generator, build_discriminator])


@BUILDERS
@pytest.mark.parametrize("size", [48, 0, 4, 2048, "32", (32, 32), [32], None])
def test_image_size_that_is_not_offered(build, size):
    with pytest.raises(
        ValueError, match=r"`image_size` must be one of \(8, 16, 32, .*, 1024\).*Rece"
    ):
        build(size)


@BUILDERS
@pytest.mark.parametrize("name", ["base_filters", "num_classes", "channels"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "8"])
def test_numbers_that_are_not_positive_integers(build, name, value):
    expected = "a positive integer( or None)?"
    with pytest.raises(ValueError, match=f"`{name}` must be {expected}. Received: {name}="):
        build(32, **{name: value})


@pytest.mark.parametrize("slope", [-0.1, 1.0, "0.2", None])
def test_slopes_of_relus(slope):
    with pytest.raises(ValueError, match="`negative_slope` must .*Received: negative_slope="):
        build_discriminator(32, negative_slope=slope)


def test_latent_dim():
    with pytest.raises(ValueError, match="`latent_dim` must be a positive integer. Received"):
        build_generator(32, latent_dim=0)


@BUILDERS
@pytest.mark.parametrize("resolutions", [16, None, "16"])
def test_resolutions_that_are_no_list(build, resolutions):
    with pytest.raises(ValueError, match="`attention_resolutions` must be a list or tuple.*Receiv"):
        build(32, 8, attention_resolutions=resolutions)


@BUILDERS
@pytest.mark.parametrize("resolutions", [(12,), (16, 64), ("16",)])
def test_resolutions_that_the_network_lacks(build, resolutions):
    with pytest.raises(ValueError, match="`attention_resolutions` must be among .*8, 16.*Received"):
        build(32, 8, attention_resolutions=resolutions)


def test_too_few_channels_for_the_attention():
    with pytest.raises(ValueError, match="`base_filters` must .*key_reduction=8.*Received: 4"):
        build_discriminator(32, 2, attention_resolutions=(16,))


@pytest.mark.slow
def test_a_batch_that_turns_out_empty_in_a_graph():
    import tensorflow as tf

    generator = build_generator(8, 8, 16, 10, attention_resolutions=(4,))
    discriminator = build_discriminator(8, 8, 10, attention_resolutions=(4,))
    signature = [tf.TensorSpec((None, 16)), tf.TensorSpec((None,), "int32")]

    @tf.function(input_signature=signature)
    def logits(latents, labels):
        images = generator([latents, labels], training=True)
        return discriminator([images, labels], training=True)

    for count in (0, 2):
        outputs = logits(tf.ones((count, 16)), tf.zeros(count, "int32"))
        assert tuple(outputs.shape) == (count, 1)
    for weight in generator.weights + discriminator.weights:
        assert np.isfinite(numpy(weight)).all(), weight.path


@pytest.mark.parametrize("use_spectral_norm", [True, False])
def test_networks_are_channels_last_whatever_keras_prefers(use_spectral_norm):
    settings = {"base_filters": 4, "attention_resolutions": (8,)}
    settings["use_spectral_norm"] = use_spectral_norm
    keras.config.set_image_data_format("channels_first")
    try:
        networks = build_generator(16, **settings), build_discriminator(16, **settings)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert networks[0].output_shape == (None, 16, 16, 3)
    assert networks[1].input_shape == (None, 16, 16, 3)
    expected = build_generator(16, **settings), build_discriminator(16, **settings)
    assert list(map(count, networks)) == list(map(count, expected))
