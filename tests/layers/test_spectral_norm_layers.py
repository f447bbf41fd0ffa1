"""SNConv2D, SNDense and SNEmbedding: what they share, and what each adds."""

import keras
import numpy as np
import oracles
import pytest
from keras import ops
from layer_checks import check_any_batch, check_layer, needs_cpu_room

from keras_sagan.layers import SNConv2D, SNDense, SNEmbedding

IMAGES = np.random.default_rng(0).normal(size=(2, 9, 9, 4)).astype("float32")
VECTORS = np.random.default_rng(1).normal(size=(3, 5)).astype("float32")
IDS = np.array([0, 3, 6], "int32")
LAYERS = [
    (SNConv2D, {"filters": 6, "kernel_size": 3}, IMAGES, 2),
    (SNDense, {"units": 4}, VECTORS, 2),
    (SNEmbedding, {"input_dim": 7, "output_dim": 4}, IDS, 1),
]
each_layer = pytest.mark.parametrize("cls, arguments, inputs, weights", LAYERS)


def numpy(x):
    return ops.convert_to_numpy(x)


def raw_weight(layer):
    return layer.embeddings if isinstance(layer, SNEmbedding) else layer.kernel


def converge(layer, inputs, calls=1):
    """A hundred power iterations a call."""
    steps, layer.power_iterations = layer.power_iterations, 100
    for _ in range(calls):
        layer(inputs, training=True)
    layer.power_iterations = steps


def plain_outputs(layer, inputs, weight):
    """What the layer's Keras parent makes of a given weight."""
    parent = type(layer).__mro__[3]
    config = {k: v for k, v in layer.get_config().items() if k not in (*_OURS, "resample")}
    plain = parent.from_config(config)
    plain(inputs)
    plain.set_weights([weight, *map(numpy, layer.trainable_weights[1:])])
    return numpy(plain(inputs))


_OURS = ("power_iterations", "epsilon", "equality_constrained")


@pytest.mark.slow
@each_layer
def test_layer_contract(cls, arguments, inputs, weights, tmp_path):
    check_layer(cls, arguments, (inputs,), tmp_path, weights, 1)


@pytest.mark.slow
@each_layer
def test_weight_is_divided_by_the_svd_norm_after_convergence(cls, arguments, inputs, weights):
    layer = cls(**arguments)
    converge(layer, inputs)
    weight = numpy(raw_weight(layer))
    sigma = oracles.spectral_norm(weight)
    assert float(layer.sigma) == pytest.approx(sigma, rel=1e-3)
    expected = plain_outputs(layer, inputs, weight / sigma)
    np.testing.assert_allclose(numpy(layer(inputs)), expected, rtol=2e-3, atol=1e-5)


@each_layer
def test_iterations_of_a_call_are_those_of_as_many_calls(cls, arguments, inputs, weights):
    layers = [cls(**arguments, power_iterations=steps) for steps in (4, 1)]
    for layer in layers:
        layer.build(inputs.shape)
    layers[0].vector_u.assign(np.ones(4 if cls is not SNConv2D else 6) / 3.0)
    layers[1].set_weights(layers[0].get_weights())
    layers[0](inputs, training=True)
    for _ in range(4):
        layers[1](inputs, training=True)
    np.testing.assert_allclose(*[numpy(layer.vector_u) for layer in layers], atol=1e-6)


@each_layer
def test_calls_never_write_the_weight(cls, arguments, inputs, weights):
    layer = cls(**arguments)
    layer.build(inputs.shape)
    before = numpy(raw_weight(layer)).copy()
    for training in (True, False, True):
        layer(inputs, training=training)
    np.testing.assert_array_equal(numpy(raw_weight(layer)), before)


@each_layer
def test_u_moves_in_training_only(cls, arguments, inputs, weights):
    layer = cls(**arguments)
    layer.build(inputs.shape)
    start = np.ones(layer.vector_u.shape) / layer.vector_u.shape[0] ** 0.5
    layer.vector_u.assign(start)
    start = numpy(layer.vector_u).copy()
    layer(inputs)
    layer(inputs, training=False)
    float(layer.sigma)
    np.testing.assert_array_equal(numpy(layer.vector_u), start)
    layer(inputs, training=True)
    assert not np.array_equal(numpy(layer.vector_u), start)


def in_stateless_scope(layer, inputs):
    with keras.StatelessScope():
        layer(inputs)


BUILDS = {
    "call": lambda layer, inputs: layer(inputs),
    "symbol": lambda layer, inputs: layer(keras.Input(inputs.shape[1:], dtype=inputs.dtype.name)),
    "lazy_sequential": lambda layer, inputs: keras.Sequential([layer])(inputs),
    "lazy_predict": lambda layer, inputs: keras.Sequential([layer]).predict(inputs, verbose=0),
    "stateless_scope": in_stateless_scope,
}


@pytest.mark.parametrize(
    "index, build",
    [*((0, name) for name in BUILDS), (1, "call"), (2, "call"), (2, "lazy_predict")],
)
def test_sigma_is_that_of_the_svd_from_the_start(index, build):
    cls, arguments, inputs, _ = LAYERS[index]
    layer = cls(**arguments)
    BUILDS[build](layer, inputs)
    weight, u = numpy(raw_weight(layer)), numpy(layer.vector_u)
    sigma = oracles.spectral_norm(weight)
    assert float(layer.sigma) == pytest.approx(sigma, rel=1e-4)
    assert np.linalg.norm(weight.reshape(-1, len(u)) @ u) == pytest.approx(sigma, rel=1e-4)
    assert np.linalg.norm(u) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    "index, policy",
    [
        *((1, policy) for policy in ("mixed_float16", "mixed_bfloat16", "bfloat16", "float16")),
        *((0, "float16"), (2, "bfloat16")),
    ],
)
def test_sigma_is_right_from_the_start_under_any_policy(index, policy):
    cls, arguments, inputs, _ = LAYERS[index]
    kind = "kernel" if cls is not SNEmbedding else "embeddings"
    layer = cls(**arguments, dtype=policy, **{f"{kind}_initializer": "random_normal"})
    layer(inputs)
    weight = numpy(ops.cast(raw_weight(layer), "float32"))
    assert float(layer.sigma) == pytest.approx(oracles.spectral_norm(weight), rel=1e-4)
    assert layer.vector_u.dtype == "float32"


@each_layer
def test_the_same_seed_gives_the_same_start(cls, arguments, inputs, weights):
    starts = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        layer = cls(**arguments)
        layer(inputs)
        starts.append(layer.get_weights())
    for one, other in zip(*starts):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about tf.function")
@pytest.mark.parametrize("is_stateless", [False, True])
def test_sigma_is_right_from_the_start_of_a_layer_built_in_a_program(is_stateless):
    import contextlib

    import tensorflow as tf

    layer = SNConv2D(6, 3)

    @tf.function
    def function(inputs):
        with keras.StatelessScope() if is_stateless else contextlib.nullcontext():
            layer(inputs)

    function(tf.constant(IMAGES))
    sigma = oracles.spectral_norm(numpy(layer.kernel))
    assert float(layer.sigma) == pytest.approx(sigma, rel=1e-4)


def test_given_embeddings_have_their_own_sigma():
    table = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")
    layer = SNEmbedding(7, 4, weights=table)
    assert float(layer.sigma) == pytest.approx(oracles.spectral_norm(table), rel=1e-4)


@each_layer
def test_a_frozen_layer_keeps_u(cls, arguments, inputs, weights):
    layer = cls(**arguments)
    layer.build(inputs.shape)
    raw_weight(layer).assign(np.random.default_rng(2).normal(size=raw_weight(layer).shape))
    layer.trainable = False
    start, expected = layer.get_weights(), numpy(layer(inputs))
    np.testing.assert_array_equal(numpy(layer(inputs, training=True)), expected)
    for old, new in zip(start, layer.get_weights()):
        np.testing.assert_array_equal(old, new)
    layer.trainable = True
    layer(inputs, training=True)
    assert not np.array_equal(numpy(layer.vector_u), start[-1])


@each_layer
def test_training_and_inference_use_the_same_kernel_from_the_same_u(
    cls, arguments, inputs, weights
):
    layer = cls(**arguments)
    inference = numpy(layer(inputs))
    np.testing.assert_array_equal(numpy(layer(inputs, training=True)), inference)


@each_layer
def test_u_is_shared_by_replicas(cls, arguments, inputs, weights):
    layer = cls(**arguments)
    layer.build(inputs.shape)
    assert layer.vector_u.aggregation == "only_first_replica"
    assert not layer.vector_u.trainable


@pytest.mark.slow
@each_layer
def test_zero_weight_gives_zeros_and_recovers(cls, arguments, inputs, weights):
    kind = "kernel" if cls is not SNEmbedding else "embeddings"
    layer = cls(**arguments, **{f"{kind}_initializer": "zeros"})
    np.testing.assert_array_equal(numpy(layer(inputs, training=True)), 0.0)
    assert float(layer.sigma) == 0.0
    raw_weight(layer).assign(np.random.normal(size=raw_weight(layer).shape))
    converge(layer, inputs, calls=3)
    sigma = oracles.spectral_norm(numpy(raw_weight(layer)))
    assert float(layer.sigma) == pytest.approx(sigma, rel=1e-3)


@pytest.mark.slow
@each_layer
def test_equality_constrained_false_leaves_small_kernels_alone(cls, arguments, inputs, weights):
    layer = cls(**arguments, equality_constrained=False)
    layer(inputs)
    weight = numpy(raw_weight(layer))
    for scale in (0.1, 10.0):
        raw_weight(layer).assign(scale * weight / oracles.spectral_norm(weight))
        converge(layer, inputs)
        expected = numpy(raw_weight(layer)) / max(1.0, scale)
        np.testing.assert_allclose(numpy(layer.normalized_weight()), expected, rtol=2e-3)


@pytest.mark.slow
@each_layer
def test_gradient_through_sigma_equals_finite_differences(cls, arguments, inputs, weights):
    """At convergence d(sigma) = v dW u, so the layer's gradient is the true one of W / sigma(W)."""
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        return check_gradient_without_tape(cls, arguments, inputs)
    layer = cls(**arguments)
    converge(layer, inputs)
    target = np.random.normal(size=layer(inputs).shape).astype("float32")
    weight = raw_weight(layer)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs, training=False) * target)
    gradient = numpy(tf.convert_to_tensor(tape.gradient(loss, weight)))
    compare_with_differences(layer, inputs, target, gradient)


def check_gradient_without_tape(cls, arguments, inputs):
    layer = cls(**arguments)
    converge(layer, inputs)
    target = np.random.normal(size=layer(inputs).shape).astype("float32")
    if keras.backend.backend() == "torch":
        ops.sum(layer(inputs, training=False) * ops.convert_to_tensor(target)).backward()
        gradient = raw_weight(layer).value.grad.cpu().numpy()
    else:
        import jax

        def loss(trainable):
            state = [v.value for v in layer.non_trainable_variables]
            outputs, _ = layer.stateless_call(trainable, state, inputs, training=False)
            return ops.sum(outputs * target)

        gradient = np.asarray(
            jax.jit(jax.grad(loss))([v.value for v in layer.trainable_variables])[0]
        )
    compare_with_differences(layer, inputs, target, gradient)


def compare_with_differences(layer, inputs, target, gradient):
    weight = numpy(raw_weight(layer)).astype("float64")
    target = target.astype("float64")
    bias = numpy(layer.bias) if getattr(layer, "bias", None) is not None else None

    def loss(w):
        normalized = w / oracles.spectral_norm(w)
        if isinstance(layer, SNEmbedding):
            return np.sum(normalized[inputs] * target)
        if isinstance(layer, SNDense):
            return np.sum((inputs @ normalized + bias) * target)
        patches = np.lib.stride_tricks.sliding_window_view(inputs, (3, 3), axis=(1, 2))
        return np.sum((np.einsum("bhwcij,ijco->bhwo", patches, normalized) + bias) * target)

    differences = np.zeros_like(weight)
    step = 1e-6
    for index in np.ndindex(weight.shape):
        moved = weight.copy()
        moved[index] += step
        upper = loss(moved)
        moved[index] -= 2 * step
        differences[index] = (upper - loss(moved)) / (2 * step)
    np.testing.assert_allclose(gradient, differences, rtol=1e-3, atol=1e-3 * np.abs(gradient).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, scale",  # Of sigma, which has no gradient below 1 in `max(1, sigma)`.
    [
        ({"strides": 2, "padding": "same"}, 1.0),
        ({"groups": 2, "dilation_rate": 2}, 1.0),
        ({"padding": "same", "resample": "up"}, 1.0),
        ({"padding": "same", "resample": "down", "equality_constrained": False}, 10.0),
        ({"equality_constrained": False, "use_bias": False}, 0.1),
    ],
)
def test_gradient_of_convolutions_of_any_kind_equals_finite_differences(arguments, scale):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("needs a gradient tape")
    import tensorflow as tf

    layer = SNConv2D(4, 3, dtype="float64", **arguments)
    outputs = layer(IMAGES)
    layer.kernel.assign(scale * layer.kernel / oracles.spectral_norm(numpy(layer.kernel)))
    converge(layer, IMAGES)
    target = np.random.normal(size=outputs.shape)

    def loss(kernel):
        layer.kernel.assign(kernel)
        return float(ops.sum(layer(IMAGES) * target))

    with tf.GradientTape() as tape:
        gradient = tape.gradient(ops.sum(layer(IMAGES) * target), [layer.kernel.value])[0].numpy()
    kernel, step = numpy(layer.kernel).copy(), 1e-5 * scale
    for index in np.random.default_rng(0).integers(kernel.shape, size=(6, 4)):
        moved = np.zeros_like(kernel)
        moved[tuple(index)] = step
        difference = (loss(kernel + moved) - loss(kernel - moved)) / (2 * step)
        allowed = 1e-3 * np.abs(gradient).max()
        assert gradient[tuple(index)] == pytest.approx(difference, rel=1e-3, abs=allowed)


@pytest.mark.any_backend
@each_layer
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_power_iterations_must_be_a_positive_integer(cls, arguments, inputs, weights, value):
    with pytest.raises(ValueError, match=f"`power_iterations` must.*Received: .*={value}"):
        cls(**arguments, power_iterations=value)


@pytest.mark.any_backend
@each_layer
def test_epsilon_must_be_positive(cls, arguments, inputs, weights):
    with pytest.raises(ValueError, match="`epsilon` must be positive. Received: epsilon=0"):
        cls(**arguments, epsilon=0)


@pytest.mark.any_backend
@each_layer
def test_quantize_is_refused(cls, arguments, inputs, weights):
    layer = cls(**arguments)
    layer.build(inputs.shape)
    with pytest.raises(ValueError, match="can't be quantized"):
        layer.quantize("int8")


@pytest.mark.any_backend
@each_layer
def test_lora_is_refused(cls, arguments, inputs, weights):
    for layer in (cls(**arguments), cls(**arguments, lora_rank=2)):
        with pytest.raises(ValueError, match=f"{cls.__name__} can't be adapted by LoRA.*Received"):
            layer.build(inputs.shape)
            layer.enable_lora(2)


@needs_cpu_room
@each_layer
def test_empty_batch(cls, arguments, inputs, weights):
    layer = cls(**arguments)
    full = layer(inputs)
    assert tuple(layer(inputs[:0], training=True).shape) == (0, *full.shape[1:])
    assert np.isfinite(numpy(layer.vector_u)).all()


EMPTY = [
    {"strides": 2},
    {"groups": 2, "dilation_rate": 2},
    {"padding": "same", "resample": "up"},
    {"padding": "same", "resample": "down"},
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", EMPTY)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_convolution_of_any_kind_takes_a_batch_that_turns_out_empty(arguments, jit_compile):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends know the size of a batch when they compile")
    if jit_compile and "dilation_rate" in arguments:
        pytest.skip("TensorFlow can't compile a dilated convolution for a batch of any size")
    layer = SNConv2D(8, 3, **arguments)
    check_any_batch(layer, (IMAGES,), jit_compile, (0,) if jit_compile else (0, 1, 2))


@pytest.mark.any_backend
def test_arguments_come_in_the_order_of_keras():
    import inspect

    for cls, *_ in LAYERS:
        ours = list(inspect.signature(cls).parameters)
        parents = list(inspect.signature(cls.__mro__[3]).parameters)
        shared = [name for name in parents if "lora" not in name and "quantization" not in name]
        extra = ["resample"] if cls is SNConv2D else []
        assert ours == [*shared[:-1], *_OURS, *extra, "kwargs"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"strides": 2},
        {"padding": "same", "strides": (2, 2)},
        {"dilation_rate": 2},
        {"groups": 4, "padding": "same", "dilation_rate": 2},
        {"activation": "relu", "use_bias": False},
    ],
)
def test_convolutions_of_any_kind_equal_conv2d_with_the_normalised_kernel(arguments):
    layer = SNConv2D(8, 3, bias_initializer="random_normal", **arguments)
    outputs = numpy(layer(IMAGES))
    expected = plain_outputs(layer, IMAGES, numpy(layer.normalized_weight()))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert layer.compute_output_shape(IMAGES.shape) == outputs.shape
    assert layer.vector_u.shape == (8,)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "resample, kernel_size, padding",
    [
        *(("up", 3, "same"), ("up", 3, "valid"), ("down", 3, "same"), ("down", 3, "valid")),
        *(("up", 1, "same"), ("down", 1, "same")),
        ("up", 11, "valid"),  # It fits only into the doubled map.
    ],
)
def test_resampling_convolution_equals_two_layers_with_its_weights(resample, kernel_size, padding):
    arguments = {"kernel_size": kernel_size, "padding": padding, "bias_initializer": "normal"}
    fused = SNConv2D(6, **arguments, resample=resample)
    outputs = numpy(fused(IMAGES))
    assert fused.compute_output_shape(IMAGES.shape) == outputs.shape
    plain = SNConv2D(6, **arguments)
    plain.build((None, None, None, IMAGES.shape[-1]))
    assert [w.shape for w in plain.weights] == [w.shape for w in fused.weights]
    plain.set_weights(fused.get_weights())
    assert float(plain.sigma) == float(fused.sigma)
    if resample == "up":
        expected = plain(keras.layers.UpSampling2D()(IMAGES))
    else:
        expected = keras.layers.AveragePooling2D(2)(plain(IMAGES))
    np.testing.assert_allclose(outputs, numpy(expected), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_resampling_layer_contract(tmp_path):
    arguments = {"filters": 6, "kernel_size": 3, "padding": "same", "resample": "down"}
    check_layer(SNConv2D, arguments, (IMAGES,), tmp_path, 2, 1)
    layer = SNConv2D(**arguments, activation="relu")
    assert numpy(layer(IMAGES)).min() == 0.0
    assert tuple(layer(IMAGES[:0]).shape) == (0, *layer(IMAGES).shape[1:])


@pytest.mark.any_backend
@pytest.mark.parametrize("resample, size", [("up", (18, 14)), ("down", (4, 3))])
def test_resampling_channels_first_symbolically(resample, size):
    layer = SNConv2D(6, 3, padding="same", data_format="channels_first", resample=resample)
    assert layer.compute_output_shape((2, 4, 9, 7)) == (2, 6, *size)
    assert layer(keras.Input((4, 9, 7))).shape == (None, 6, *size)
    unknown = (2, 6, 2 * 9, None) if resample == "up" else (2, 6, 4, None)
    assert layer.compute_output_shape((2, 4, 9, None)) == unknown


@pytest.mark.any_backend
@pytest.mark.parametrize("value", ["UP", True, 2, "none"])
def test_unknown_resample(value):
    with pytest.raises(ValueError, match=f'`resample` must be None, "up" or.*Received.*{value}'):
        SNConv2D(4, 3, resample=value)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "arguments",
    [{"strides": 2}, {"dilation_rate": 2}, {"groups": 2}, {"kernel_size": 2}],
    ids=lambda x: [*x][0],
)
def test_resample_with_what_it_has_no_form_for(arguments):
    with pytest.raises(ValueError, match="`resample` needs `strides`.*Received: resample='up'"):
        SNConv2D(**{"filters": 4, "kernel_size": 3, "resample": "up", **arguments})


@pytest.mark.parametrize("arguments", [{"strides": 2}, {"resample": "up"}, {"resample": "down"}])
def test_channels_first_equals_channels_last(arguments):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's CPU kernels have no channels_first")
    formats = ("channels_last", "channels_first")
    last, first = (SNConv2D(6, 3, padding="same", data_format=x, **arguments) for x in formats)
    expected = numpy(last(IMAGES))
    first.build((None, 4, 9, 9))
    first.set_weights(last.get_weights())
    received = numpy(first(IMAGES.transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.any_backend
def test_channels_first_symbolically():
    layer = SNConv2D(6, 3, data_format="channels_first", strides=2, padding="same")
    assert layer(keras.Input((4, 9, 9))).shape == (None, 6, 5, 5)
    assert layer.kernel.shape == (3, 3, 4, 6)


def test_dense_keeps_inner_axes_and_activation():
    layer = SNDense(3, activation="relu")
    outputs = numpy(layer(IMAGES))
    assert outputs.shape == (2, 9, 9, 3) and outputs.min() == 0.0


def test_embedding_of_any_rank_and_its_errors():
    layer = SNEmbedding(7, 4)
    rows = numpy(layer(IDS))
    for dtype in ("uint8", "int8", "int16", "int64"):
        np.testing.assert_array_equal(numpy(layer(IDS.astype(dtype))), rows)
    assert tuple(layer(np.zeros((2, 3), "int32")).shape) == (2, 3, 4)
    with pytest.raises(ValueError, match=r"`inputs` must lie in \[0, 7\).*Received: inputs with 7"):
        layer(np.array([0, 7]))
    for bad in (np.array([0.0, 7.0]), np.array([-1.0]), np.array([np.nan]), np.array([1e12])):
        with pytest.raises(
            ValueError, match=r"`inputs` must lie in \[0, 7\).*Received: inputs with"
        ):
            layer(bad)
    given = np.eye(7, 4, dtype="float32") * 3.0
    layer = SNEmbedding(7, 4, weights=given)
    np.testing.assert_array_equal(numpy(layer.embeddings), given)
    np.testing.assert_allclose(numpy(layer(np.arange(7))), np.eye(7, 4), atol=1e-6)


@pytest.mark.parametrize(
    "dtype, policy",
    [
        *((dtype, "float32") for dtype in ("float16", "float32", "float64", "bool")),
        *(("float32", "mixed_bfloat16"), ("float64", "mixed_float16")),
    ],
)
def test_embedding_takes_the_ids_that_keras_takes(dtype, policy):
    ids = np.array([[0.0, 1.0], [1.5, 0.9]] if dtype == "bool" else [[0, 6], [1.5, 300.0]], dtype)
    ours, theirs = SNEmbedding(400, 2, dtype=policy), keras.layers.Embedding(400, 2, dtype=policy)
    ours.build()
    theirs.build()
    theirs.embeddings.assign(ours.normalized_weight(dtype="float32"))
    for call in (lambda layer: layer(ids), lambda layer: keras.Sequential([layer])(ids)):
        np.testing.assert_array_equal(
            *(numpy(ops.cast(call(x), "float32")) for x in (ours, theirs))
        )


@pytest.mark.any_backend
def test_a_dense_layer_passes_masks_on():
    mask = np.ones((2, 9), "bool")
    assert SNDense(3).compute_mask(VECTORS, mask) is mask


def test_regularizer_sees_the_raw_kernel():
    layer = SNDense(4, kernel_regularizer=keras.regularizers.L2(1.0))
    layer(VECTORS)
    expected = np.sum(np.square(numpy(layer.kernel)))
    assert float(layer.losses[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.any_backend
def test_a_file_that_has_an_algorithm_is_read():
    """An argument of old versions, which chose between forms of the same sums."""
    config = {**SNConv2D(4, 3).get_config(), "algorithm": "winograd"}
    assert SNConv2D.from_config(config).get_config() == SNConv2D(4, 3).get_config() | {
        "name": config["name"]
    }
    with pytest.raises((TypeError, ValueError), match="algorithm"):
        SNConv2D(4, 3, algorithm="direct")
