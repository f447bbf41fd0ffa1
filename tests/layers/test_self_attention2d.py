import threading

import keras
import numpy as np
import oracles
import pytest
from keras import ops
from layer_checks import check_any_batch, check_layer, needs_cpu_room

from keras_sagan.layers import SelfAttention2D, SNConv2D
from keras_sagan.layers.self_attention import record_attention_scores

IMAGES = np.random.default_rng(0).normal(size=(2, 6, 4, 16)).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.slow
def test_layer_contract(tmp_path):
    check_layer(SelfAttention2D, {}, (IMAGES,), tmp_path, 5, 4)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_new_layer_is_the_identity_to_the_bit(policy):
    layer = SelfAttention2D(dtype=policy)
    images = ops.cast(IMAGES, layer.compute_dtype)
    for training in (True, False):
        outputs = layer(images, training=training)
        assert outputs.dtype == images.dtype
        np.testing.assert_array_equal(*[numpy(ops.cast(x, "float32")) for x in (outputs, images)])


@pytest.mark.parametrize(
    "arguments, use_spectral_norm",
    [
        ({}, False),
        ({"pool_size": 1, "value_reduction": 8}, True),
        ({"key_reduction": 4, "value_reduction": 1, "pool_size": 2}, True),
    ],
)
def test_oracle(arguments, use_spectral_norm):
    layer = SelfAttention2D(use_spectral_norm=use_spectral_norm, **arguments)
    layer.build(IMAGES.shape)
    layer.gamma.assign(0.7)
    convs = (layer.query_conv, layer.key_conv, layer.value_conv, layer.output_conv)
    for conv in convs:  # large kernels, so that the softmax is far from uniform
        conv.kernel.assign(np.random.normal(size=conv.kernel.shape))
    outputs, scores = layer(IMAGES, return_attention_scores=True)
    kernels = [numpy(c.normalized_weight() if use_spectral_norm else c.kernel) for c in convs]
    expected, expected_scores = oracles.self_attention(IMAGES, kernels, 0.7, layer.pool_size)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(numpy(outputs) / scale, expected / scale, atol=1e-5)
    np.testing.assert_allclose(numpy(scores), expected_scores, atol=1e-5)
    np.testing.assert_allclose(numpy(scores).sum(-1), 1.0, rtol=1e-5)


@pytest.mark.any_backend
def test_parameter_count_is_the_sheets():
    for channels in (64, 128, 256):
        layer = SelfAttention2D()
        layer.build((None, 8, 8, channels))
        count = sum(int(np.prod(w.shape)) for w in layer.trainable_weights)
        assert count == 1.25 * channels**2 + 1


@pytest.mark.any_backend
def test_kernels_differ_and_have_no_bias():
    layer = SelfAttention2D(key_reduction=2)
    layer.build(IMAGES.shape)
    kernels = [numpy(c.kernel) for c in (layer.query_conv, layer.key_conv, layer.value_conv)]
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])
    assert not layer.query_conv.use_bias and isinstance(layer.query_conv, SNConv2D)


def test_scores_in_a_functional_model():
    inputs = keras.Input((6, 4, 16))
    outputs, scores = SelfAttention2D()(inputs, return_attention_scores=True)
    assert outputs.shape == (None, 6, 4, 16) and scores.shape == (None, 24, 6)
    assert scores.dtype == "float32"
    model = keras.Model(inputs, [outputs, scores])
    assert [tuple(x.shape) for x in model(IMAGES)] == [(2, 6, 4, 16), (2, 24, 6)]


def test_map_size_may_be_dynamic():
    inputs = keras.Input((None, None, 16))
    outputs, scores = SelfAttention2D()(inputs, return_attention_scores=True)
    assert outputs.shape == (None, None, None, 16) and scores.shape == (None, None, None)
    model = keras.Model(inputs, [outputs, scores])
    for height, width in ((4, 6), (8, 2)):
        images = np.random.normal(size=(3, height, width, 16)).astype("float32")
        received = model.predict(images, verbose=0)
        np.testing.assert_array_equal(received[0], images)
        assert received[1].shape == (3, height * width, height * width // 4)


def test_odd_maps_are_refused_where_the_size_was_unknown():
    inputs = keras.Input((None, None, 16))
    model = keras.Model(inputs, SelfAttention2D()(inputs))
    with pytest.raises(
        ValueError, match=r"`pool_size` must divide .*Received: pool_size=2 for inputs"
    ):
        model(np.zeros((1, 5, 4, 16), "float32"))


@pytest.mark.slow
def test_in_a_sequential_model():
    model = keras.Sequential([keras.Input((6, 4, 3)), SNConv2D(16, 1), SelfAttention2D()])
    model.compile("adam", "mse", jit_compile=keras.backend.backend() == "jax")
    model.fit(IMAGES[..., :3], IMAGES, verbose=0)
    assert float(model.layers[-1].gamma.value) != 0.0


def test_u_moves_in_training_only():
    layer = SelfAttention2D()
    layer.build(IMAGES.shape)
    before = [numpy(w).copy() for w in layer.non_trainable_weights]
    layer(IMAGES)
    for old, new in zip(before, layer.non_trainable_weights):
        np.testing.assert_array_equal(old, numpy(new))
    layer(IMAGES, training=True)
    assert any(
        not np.array_equal(old, numpy(new)) for old, new in zip(before, layer.non_trainable_weights)
    )


def test_scores_are_float32_under_mixed_precision():
    layer = SelfAttention2D(dtype="mixed_bfloat16")
    outputs, scores = layer(IMAGES, return_attention_scores=True)
    assert keras.backend.standardize_dtype(scores.dtype) == "float32"
    np.testing.assert_allclose(numpy(scores).sum(-1), 1.0, rtol=1e-6)


@pytest.mark.any_backend
def test_channels_first_symbolically():
    layer = SelfAttention2D(data_format="channels_first")
    outputs, scores = layer(keras.Input((16, 6, 4)), return_attention_scores=True)
    assert outputs.shape == (None, 16, 6, 4) and scores.shape == (None, 24, 6)
    assert layer.compute_output_shape((2, 16, 6, 4)) == (2, 16, 6, 4)


def test_channels_first_equals_channels_last():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's CPU kernels have no channels_first")
    last, first = SelfAttention2D(), SelfAttention2D(data_format="channels_first")
    last(IMAGES), first(IMAGES.transpose(0, 3, 1, 2))
    first.set_weights(last.get_weights())
    for layer in (last, first):
        layer.gamma.assign(1.0)
    received = numpy(first(IMAGES.transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(received, numpy(last(IMAGES)), atol=1e-5)


@needs_cpu_room
def test_empty_batch():
    layer = SelfAttention2D()
    outputs, scores = layer(IMAGES[:0], return_attention_scores=True)
    assert tuple(outputs.shape) == (0, 6, 4, 16) and tuple(scores.shape) == (0, 24, 6)
    assert tuple(layer(IMAGES[:0], training=True).shape) == (0, 6, 4, 16)
    layer.query_chunk_size = 5
    assert tuple(layer(IMAGES[:0], training=True).shape) == (0, 6, 4, 16)


@pytest.mark.slow
@pytest.mark.parametrize("use_spectral_norm, query_chunk_size", [(True, None), (False, 5)])
def test_a_batch_of_a_map_of_any_size_may_turn_out_empty(use_spectral_norm, query_chunk_size):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends know all sizes when they compile")
    layer = SelfAttention2D(use_spectral_norm=use_spectral_norm, query_chunk_size=query_chunk_size)
    check_any_batch(layer, (IMAGES,), jit_compile=False, free_axes=(0, 1, 2))


@pytest.mark.any_backend
def test_mask_is_untouched():
    mask = np.ones((2, 6), "bool")
    layer = SelfAttention2D()
    assert layer.supports_masking and layer.compute_mask(IMAGES, mask) is mask


@pytest.mark.parametrize("is_before", [True, False])
def test_a_frozen_layer_keeps_its_state(is_before):
    layer = SelfAttention2D(trainable=not is_before)
    layer.build(IMAGES.shape)
    if not is_before:
        layer.trainable = False
    for conv in (layer.query_conv, layer.key_conv, layer.value_conv, layer.output_conv):
        conv.kernel.assign(np.random.default_rng(2).normal(size=conv.kernel.shape))
    start = layer.get_weights()
    layer(IMAGES, training=True)
    for old, new in zip(start, layer.get_weights()):
        np.testing.assert_array_equal(old, new)
    layer.trainable = True
    layer(IMAGES, training=True)
    moved = [not np.array_equal(*pair) for pair in zip(start, layer.get_weights())]
    assert sum(moved) == 4


def test_recording_gives_the_scores_on_their_grid():
    inputs = keras.Input((6, 4, 16))
    model = keras.Model(inputs, SelfAttention2D(name="look")(inputs))
    with record_attention_scores(model) as records:
        model(IMAGES)
    _, scores = model.get_layer("look")(IMAGES, return_attention_scores=True)
    assert list(records) == ["look"]
    np.testing.assert_array_equal(numpy(records["look"]), numpy(scores).reshape(2, 6, 4, 3, 2))
    model(IMAGES[:1])
    assert len(records["look"]) == 2  # nothing is recorded outside


class ThreeLooks(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.looks = [SelfAttention2D(name="look") for _ in range(3)]

    def call(self, inputs):
        for look in self.looks:
            inputs = look(inputs)
        return inputs


@pytest.mark.any_backend
def test_equal_names_are_all_recorded():
    inputs = keras.Input((6, 4, 16))
    inner = keras.Model(inputs, SelfAttention2D(name="look")(inputs), name="inner")
    model = keras.Model(inputs, inner(ThreeLooks()(inputs)), name="outer")
    with record_attention_scores(model) as records:
        model(IMAGES)
    assert set(records) == {"look", "outer/look", "outer/look_1", "inner/look"}
    np.testing.assert_array_equal(numpy(records["inner/look"]), scores_of(inner, IMAGES))


class Pause(keras.layers.Layer):
    """Passes its inputs through after a function was called."""

    function = staticmethod(lambda: None)

    def call(self, inputs):
        self.function()
        return inputs


@pytest.fixture
def looking():
    """A model that pauses before its attention, the pause, and a model around it."""
    pause, inputs = Pause(), keras.Input((6, 4, 16))
    model = keras.Model(inputs, SelfAttention2D(name="look")(pause(inputs)))
    around = keras.Model(inputs, SelfAttention2D(name="other")(model(inputs)))
    return model, pause, around


def scores_of(model, images):
    _, scores = model.get_layer("look")(images, return_attention_scores=True)
    return numpy(scores).reshape(-1, 6, 4, 3, 2)


def test_recordings_in_two_threads_have_their_own_calls(looking):
    model, pause, _ = looking
    expected = [scores_of(model, scale * IMAGES) for scale in (1.0, 2.0, 3.0)]
    barrier = threading.Barrier(3)
    pause.function = lambda: barrier.wait(timeout=60)  # All recordings have begun.
    received = {}

    def record(index):
        with record_attention_scores(model) as records:
            model((1.0 + index) * IMAGES)
        received[index] = {name: numpy(scores) for name, scores in records.items()}

    threads = [threading.Thread(target=record, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, scores in enumerate(expected):
        assert list(received[index]) == ["look"]
        np.testing.assert_allclose(received[index]["look"], scores, rtol=1e-5)


def test_a_recording_leaves_calls_in_other_threads_alone(looking):
    model, _, _ = looking
    with record_attention_scores(model) as records:
        model(IMAGES)
        thread = threading.Thread(target=model, args=(2.0 * IMAGES,))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(numpy(records["look"]), scores_of(model, IMAGES))


def test_recordings_of_one_layer_that_overlap(looking):
    model, _, around = looking
    first, second = record_attention_scores(model), record_attention_scores(around)
    received = [first.__enter__(), second.__enter__()]
    model(IMAGES)
    for records in received:
        np.testing.assert_array_equal(numpy(records["look"]), scores_of(model, IMAGES))
    first.__exit__(None, None, None)  # It began first, and ends first.
    around(2.0 * IMAGES)
    second.__exit__(None, None, None)
    model(3.0 * IMAGES)
    assert [sorted(records) for records in received] == [["look"], ["look", "other"]]
    for scale, records in zip((1.0, 2.0), received):
        np.testing.assert_array_equal(numpy(records["look"]), scores_of(model, scale * IMAGES))


def test_a_recording_ends_with_an_error(looking):
    model, _, _ = looking
    with pytest.raises(KeyError):
        with record_attention_scores(model) as records:
            raise KeyError
    model(IMAGES)
    assert records == {}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about tf.function")
def test_a_program_made_during_a_recording_is_not_part_of_it(looking):
    import tensorflow as tf

    model, _, _ = looking
    program = tf.function(model)
    with record_attention_scores(model) as records:
        model(IMAGES)
        program(tf.constant(2.0 * IMAGES))
    np.testing.assert_array_equal(numpy(records["look"]), scores_of(model, IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize("query_chunk_size, training", [(1, True), (5, False), (1000, True)])
def test_blocks_of_queries_give_the_same(query_chunk_size, training):
    whole = SelfAttention2D(query_chunk_size=None)
    chunked = SelfAttention2D(query_chunk_size=query_chunk_size)
    for layer in (whole, chunked):
        layer.build(IMAGES.shape)
    whole.gamma.assign(0.7)
    chunked.set_weights(whole.get_weights())
    received = numpy(chunked(IMAGES, training=training))
    np.testing.assert_allclose(received, numpy(whole(IMAGES, training=training)), atol=1e-5)
    _, scores = chunked(IMAGES, return_attention_scores=True)
    assert tuple(scores.shape) == (2, 24, 6)


@pytest.mark.slow
def test_blocks_of_queries_train_on_maps_of_any_size():
    policy = "float32" if keras.backend.backend() == "jax" else "mixed_float16"
    inputs = keras.Input((None, None, 16))
    layer = SelfAttention2D(query_chunk_size=5, dtype=policy)
    model = keras.Model(inputs, layer(inputs))
    # Without it JAX compiles each operation.
    model.compile("adam", "mse", jit_compile=keras.backend.backend() == "jax")
    for height, width in ((4, 6), (8, 2)):
        images = np.random.normal(size=(3, height, width, 16)).astype("float32")
        assert np.isfinite(model.train_on_batch(images, 2 * images))
    assert float(layer.gamma.value) != 0.0


def test_recording_with_blocks_gives_all_scores():
    inputs = keras.Input((6, 4, 16))
    model = keras.Model(inputs, SelfAttention2D(query_chunk_size=5, name="look")(inputs))
    with record_attention_scores(model) as records:
        model(IMAGES)
    assert tuple(records["look"].shape) == (2, 6, 4, 3, 2)


@pytest.mark.any_backend
def test_the_chunk_size_is_in_the_config():
    assert SelfAttention2D().get_config()["query_chunk_size"] == "auto"
    for size in (None, 7, "auto"):
        layer = SelfAttention2D(query_chunk_size=size)
        assert SelfAttention2D.from_config(layer.get_config()).query_chunk_size == size


@pytest.mark.any_backend
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "x", [4]])
def test_bad_chunk_sizes(value):
    with pytest.raises(ValueError, match="`query_chunk_size` must be a positive integer, None or"):
        SelfAttention2D(query_chunk_size=value)


@pytest.mark.any_backend
@pytest.mark.parametrize("channels, name", [(7, "key_reduction"), (1, "key_reduction")])
def test_too_few_channels(channels, name):
    with pytest.raises(ValueError, match=f"at least {name}=8 channels.*with {channels} channels"):
        SelfAttention2D()(np.zeros((1, 4, 4, channels), "float32"))
    with pytest.raises(ValueError, match="at least value_reduction=16 channels"):
        SelfAttention2D(1, 16)(np.zeros((1, 4, 4, channels), "float32"))


@pytest.mark.any_backend
@pytest.mark.parametrize("shape", [(1, 5, 4, 16), (1, 4, 5, 16)])
def test_odd_maps_with_pooling(shape):
    with pytest.raises(
        ValueError, match=r"`pool_size` must divide .*Received: pool_size=2 for inputs"
    ):
        SelfAttention2D()(np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match="`pool_size` must divide the height and width"):
        SelfAttention2D()(keras.Input(shape[1:]))
    assert SelfAttention2D(pool_size=1)(np.zeros(shape, "float32")).shape == shape


@pytest.mark.any_backend
def test_rank_and_unknown_channels():
    with pytest.raises(ValueError, match="`inputs` must be feature maps of rank 4"):
        SelfAttention2D()(np.zeros((2, 8, 16), "float32"))
    with pytest.raises(ValueError, match="channels of `inputs` must be known"):
        SelfAttention2D()(keras.Input((4, 4, None)))


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["key_reduction", "value_reduction", "pool_size"])
@pytest.mark.parametrize("value", [0, -2, 1.5, True])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer.*{name}={value}"):
        SelfAttention2D(**{name: value})


@pytest.mark.any_backend
def test_bad_data_format_power_iterations_and_epsilon():
    with pytest.raises(ValueError, match="`data_format` must be.*Received: data_format='NHWC'"):
        SelfAttention2D(data_format="NHWC")
    with pytest.raises(ValueError, match="`power_iterations` must be a positive integer"):
        SelfAttention2D(power_iterations=0)
    with pytest.raises(ValueError, match="`epsilon` must be positive. Received: epsilon=0"):
        SelfAttention2D(epsilon=0)
