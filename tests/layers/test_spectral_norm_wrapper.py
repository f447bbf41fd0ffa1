"""SpectralNorm around layers of Keras and of the user's own."""

import functools

import keras
import layer_checks
import numpy as np
import oracles
import pytest
from gradients import gradients_of
from keras import layers, ops

from keras_sagan import SAGAN
from keras_sagan.layers import SNConv2D, SNDense, SNEmbedding, SpectralNorm, spectral_norms
from keras_sagan.layers.spectral_norm import Scope

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(2, 4, 4, 3)).astype("float32")
SEQUENCES = RNG.normal(size=(2, 3, 4)).astype("float32")
VOLUMES = RNG.normal(size=(2, 3, 3, 3, 2)).astype("float32")
VIDEOS = RNG.normal(size=(1, 2, 4, 4, 2)).astype("float32")
IDS = np.array([[0, 3], [2, 1]], "int32")


def cells():
    return layers.RNN(layers.StackedRNNCells([layers.GRUCell(2), layers.LSTMCell(3)]))


# The layer, its inputs, and the axes of the outputs of each of its kernels, by hand.
KINDS = {
    "Dense": (lambda: layers.Dense(5), SEQUENCES, [(1,)]),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3)), SEQUENCES, [(1, 2)]),
    "EinsumDense_in_two": (lambda: layers.EinsumDense("abc,bcd->ad", 5), SEQUENCES, [(2,)]),
    "EinsumDense_ellipsis": (lambda: layers.EinsumDense("...x,yx->...y", 5), SEQUENCES, [(0,)]),
    "Conv1D": (lambda: layers.Conv1D(5, 2), SEQUENCES, [(2,)]),
    "Conv2D_groups": (lambda: layers.Conv2D(6, 3, groups=3), MAPS, [(3,)]),
    "Conv3D": (lambda: layers.Conv3D(4, 2), VOLUMES, [(4,)]),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(5, 2), SEQUENCES, [(1,)]),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(5, 3, 2), MAPS, [(2,)]),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(4, 2), VOLUMES, [(3,)]),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(2), SEQUENCES, [(1, 2)]),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), MAPS, [(2, 3)]),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(5, 2), SEQUENCES, [(1, 2), (2,)]),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(5, 3), MAPS, [(2, 3), (3,)]),
    "Embedding": (lambda: layers.Embedding(4, 3), IDS, [(1,)]),
    "SimpleRNN": (lambda: layers.SimpleRNN(3), SEQUENCES, [(1,), (1,)]),
    "GRU": (lambda: layers.GRU(3), SEQUENCES, [(1,), (1,)]),
    "LSTM": (lambda: layers.LSTM(3), SEQUENCES, [(1,), (1,)]),
    "cells": (cells, SEQUENCES, [(1,)] * 4),
    "Bidirectional": (lambda: layers.Bidirectional(layers.GRU(3)), SEQUENCES, [(1,)] * 4),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(2)), SEQUENCES, [(1,)]),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(3, 2), VIDEOS, [(3,), (3,)]),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2, 3),
        (SEQUENCES, SEQUENCES),
        [(1, 2), (1, 2), (1, 2), (2,)],
    ),
    "GroupQueryAttention": (
        lambda: layers.GroupQueryAttention(3, 4, 2),
        (SEQUENCES, SEQUENCES),
        [(1, 2), (1, 2), (1, 2), (2,)],
    ),
}
IS_TENSORFLOW = keras.backend.backend() == "tensorflow"
SEVERAL = ("Bidirectional", "MultiHeadAttention", "SeparableConv2D")
FEW = ("Dense", "EinsumDense", "Conv2DTranspose", "SeparableConv2D", "GRU", "MultiHeadAttention")


def numpy(x):
    return ops.convert_to_numpy(x)


def as_tuple(inputs):
    return inputs if isinstance(inputs, tuple) else (inputs,)


def build(layer, inputs):
    layer.build(*(x.shape for x in as_tuple(inputs)))
    return layer


def svd_norm(kernel, outputs):
    """Of the matrix whose rows are the other axes."""
    rest = [axis for axis in range(kernel.ndim) if axis not in outputs]
    columns = np.prod([kernel.shape[axis] for axis in outputs])
    matrix = kernel.astype("float64").transpose(*rest, *outputs).reshape(-1, columns)
    return np.linalg.svd(matrix, compute_uv=False)[0]


def norms_of(wrapper, outputs):
    kernels = [kernel for kernel, _ in wrapper.normalized_weights()]
    assert len(kernels) == len(outputs)
    return [svd_norm(numpy(kernel), axes) for kernel, axes in zip(kernels, outputs)]


def divided_by_hand(make, inputs, wrapper, outputs):
    """The plain layer with kernels that were divided by their norms."""
    plain = build(make(), inputs)
    values = {id(k): numpy(k) / n for (k, _), n in zip(wrapper.normalized_weights(), outputs)}
    for weight, own in zip(plain.weights, wrapper.layer.weights):
        weight.assign(values.get(id(own), numpy(own)))
    return plain


@pytest.mark.parametrize("name", KINDS if IS_TENSORFLOW else FEW)
def test_sigma_is_that_of_the_svd_over_six_decades(name):
    make, inputs, outputs = KINDS[name]
    wrapper = build(SpectralNorm(make()), inputs)
    norms = norms_of(wrapper, outputs)
    start = [numpy(kernel) for kernel, _ in wrapper.normalized_weights()]
    for scale in (1.0, 1e-3, 1e3):
        for (kernel, *_), value in zip(wrapper.normalized_kernels(), start):
            kernel.assign(scale * value)
        sigmas = [float(x) / scale for x in wrapper.sigma.values()]
        np.testing.assert_allclose(sigmas, norms, rtol=1e-3)
    for (_, found), value, norm in zip(wrapper.normalized_weights(True), start, norms):
        np.testing.assert_allclose(numpy(found), scale * value / (scale * norm), rtol=1e-3)


@pytest.mark.parametrize("name", SEVERAL if IS_TENSORFLOW else SEVERAL[:1])
def test_it_equals_the_plain_layer_of_divided_kernels(name):
    make, inputs, outputs = KINDS[name]
    wrapper = SpectralNorm(make())
    found = numpy(wrapper(*as_tuple(inputs)))
    plain = divided_by_hand(make, inputs, wrapper, norms_of(wrapper, outputs))
    np.testing.assert_allclose(found, numpy(plain(*as_tuple(inputs))), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "ours, plain, inputs",
    [
        (lambda: SNConv2D(5, 3), lambda: layers.Conv2D(5, 3), MAPS),
        (lambda: SNDense(5), lambda: layers.Dense(5), SEQUENCES),
        (lambda: SNEmbedding(4, 3), lambda: layers.Embedding(4, 3), IDS),
    ],
)
def test_it_equals_the_layers_with_an_own_kernel(ours, plain, inputs):
    ours, wrapper = build(ours(), inputs), build(SpectralNorm(plain()), inputs)
    for own, weight in zip(wrapper.layer.weights, ours.weights):
        own.assign(weight)
    start = np.ones(ours.vector_u.shape) / ours.vector_u.shape[0] ** 0.5
    for vector_u in (ours.vector_u, *wrapper.vectors_u):
        vector_u.assign(start)
    for training in (False, True, True, False):
        expected = numpy(ours(inputs, training=training))
        np.testing.assert_allclose(numpy(wrapper(inputs, training=training)), expected, atol=1e-6)
        np.testing.assert_allclose(numpy(wrapper.vectors_u[0]), numpy(ours.vector_u), atol=1e-6)
    assert not np.allclose(numpy(ours.vector_u), start, atol=1e-3)


def test_a_value_by_hand():
    wrapper = SpectralNorm(layers.Dense(2, use_bias=False, kernel_initializer="ones"))
    np.testing.assert_allclose(numpy(wrapper(np.ones((1, 8), "float32"))), [[2.0, 2.0]], rtol=1e-6)
    assert float(wrapper.sigma["kernel"]) == pytest.approx(4.0)  # sqrt(8 * 2)
    wrapper.layer.kernel.assign(np.zeros((8, 2)))
    assert not np.any(numpy(wrapper(np.ones((1, 8), "float32"), training=True)))
    assert np.linalg.norm(numpy(wrapper.vectors_u[0])) == pytest.approx(1.0)


def test_calls_never_write_the_kernels_and_move_the_vectors_in_training_only():
    wrapper = build(SpectralNorm(layers.GRU(3)), SEQUENCES)
    kernels = [numpy(x).copy() for x in wrapper.layer.weights]
    for vector_u in wrapper.vectors_u:
        vector_u.assign(np.eye(9)[0])
    before = [numpy(x).copy() for x in wrapper.vectors_u]
    wrapper(SEQUENCES)
    for frozen in (wrapper, wrapper.layer):
        frozen.trainable = False
        wrapper(SEQUENCES, training=True)
        wrapper.trainable = wrapper.layer.trainable = True
    assert all(np.array_equal(a, numpy(b)) for a, b in zip(before, wrapper.vectors_u))
    wrapper(SEQUENCES, training=True)
    assert not any(np.array_equal(a, numpy(b)) for a, b in zip(before, wrapper.vectors_u))
    assert all(np.array_equal(a, numpy(b)) for a, b in zip(kernels, wrapper.layer.weights))


def gradient_of_wrapper(wrapper, kernel, weights):
    def loss(value):
        with Scope([(kernel, value)]):
            ((_, normalized),) = wrapper.normalized_weights()
            return ops.sum(normalized * ops.convert_to_tensor(weights))

    return gradients_of(loss, numpy(kernel))[0]


def gradient_by_differences(kernel, weights, norm_of, step=1e-5):
    found = np.zeros(kernel.shape)
    for index in np.ndindex(*kernel.shape):
        shift = np.zeros(kernel.shape)
        shift[index] = step
        high, low = (np.sum(weights * k / norm_of(k)) for k in (kernel + shift, kernel - shift))
        found[index] = (high - low) / (2 * step)
    return found


def check_gradient(wrapper, inputs, norm_of):
    kernel = build(wrapper, inputs).normalized_kernels()[0][0]
    weights = RNG.normal(size=kernel.shape).astype("float32")
    expected = gradient_by_differences(numpy(kernel).astype("float64"), weights, norm_of)
    error = gradient_of_wrapper(wrapper, kernel, weights) - expected
    assert np.abs(error).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["Dense", "EinsumDense", "Conv2DTranspose", "DepthwiseConv2D"])
def test_gradients_are_those_of_finite_differences(name):
    make, inputs, (outputs,) = KINDS[name]
    wrapper = SpectralNorm(make(), power_iterations=3)
    check_gradient(wrapper, inputs, functools.partial(svd_norm, outputs=outputs))


# The exact norm of a convolution


def convolution_matrix(kernel, sizes, padding):
    """The dense matrix of a convolution, entry by entry."""
    *taps, channels, filters = kernel.shape
    pads = [{"same": (k - 1) // 2, "valid": 0, "causal": k - 1}[padding] for k in taps]
    results = [n - k + 1 if padding == "valid" else n for n, k in zip(sizes, taps)]
    matrix = np.zeros((*results, filters, *sizes, channels))
    for place in np.ndindex(*results):
        for tap in np.ndindex(*taps):
            source = tuple(p + t - pad for p, t, pad in zip(place, tap, pads))
            if all(0 <= s < n for s, n in zip(source, sizes)):
                matrix[(*place, slice(None), *source)] += kernel[tap].T
    return matrix.reshape(np.prod(results) * filters, -1)


def operator_norm(kernel, sizes, padding):
    matrix = convolution_matrix(kernel, sizes, padding)
    return np.linalg.svd(matrix, compute_uv=False)[0]


CONVOLUTIONS = [
    (layers.Conv1D, 3, "same", (7, 2)),
    (layers.Conv1D, 2, "valid", (6, 3)),
    (layers.Conv1D, 3, "causal", (5, 2)),
    (layers.Conv2D, 3, "same", (5, 4, 2)),
    (layers.Conv2D, (2, 3), "same", (4, 5, 2)),
    (layers.Conv2D, 3, "valid", (5, 6, 2)),
    (layers.Conv3D, 3, "same", (3, 3, 3, 2)),
]


@pytest.mark.parametrize(
    "cls, size, padding, shape", CONVOLUTIONS if IS_TENSORFLOW else CONVOLUTIONS[2::2]
)
def test_the_operator_norm_is_that_of_the_dense_matrix(cls, size, padding, shape):
    layer = cls(3, size, padding=padding)
    wrapper = SpectralNorm(layer, norm="operator")
    wrapper.build((None, *shape))
    kernel, sizes = numpy(layer.kernel), shape[:-1]
    for scale in (1.0, 1e-3, 1e3):
        layer.kernel.assign(scale * kernel)
        expected = operator_norm(scale * kernel, sizes, padding)
        assert float(wrapper.sigma["kernel"]) == pytest.approx(expected, rel=1e-3)
    ((_, found),) = wrapper.normalized_weights(training=True)
    assert operator_norm(numpy(found), sizes, padding) == pytest.approx(1.0, rel=1e-3)
    assert wrapper.vectors_u[0].shape == (1, *shape)


@pytest.mark.any_backend
def test_the_operator_norm_converges_from_anywhere():
    layer = layers.Conv2D(3, 3, padding="same")
    wrapper = build(SpectralNorm(layer, power_iterations=100, norm="operator"), MAPS)
    (vector_u,) = wrapper.vectors_u
    vector_u.assign(np.ones(vector_u.shape) / 48**0.5)
    wrapper.normalized_weights(training=True)
    expected = operator_norm(numpy(layer.kernel), (4, 4), "same")
    assert float(wrapper.sigma["kernel"]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_gradients_through_the_operator_norm(padding):
    layer = layers.Conv2D(2, 2, padding=padding)
    wrapper = SpectralNorm(layer, power_iterations=3, norm="operator")
    norm = functools.partial(operator_norm, sizes=(3, 4), padding=padding)
    check_gradient(wrapper, MAPS[:, :3], norm)


def test_the_operator_norm_of_channels_first_and_of_a_dense_layer():
    layer = layers.Conv2D(2, 3, data_format="channels_first")
    wrapper = SpectralNorm(layer, norm="operator")
    wrapper.build((None, 3, 4, 5))
    expected = operator_norm(numpy(layer.kernel), (4, 5), "valid")
    assert float(wrapper.sigma["kernel"]) == pytest.approx(expected, rel=1e-3)
    dense = build(SpectralNorm(layers.Dense(5), norm="operator"), SEQUENCES)
    exact = oracles.spectral_norm(numpy(dense.layer.kernel))
    assert float(dense.sigma["kernel"]) == pytest.approx(exact, rel=1e-3)


def test_the_operator_norm_holds_for_maps_of_one_size():
    conv = layers.Conv2D(2, 3)
    conv.build((None, 6, 6, 3))
    wrapper = build(SpectralNorm(conv, norm="operator"), MAPS)  # Of 4 x 4, unlike the layer.
    expected = operator_norm(numpy(conv.kernel), (4, 4), "valid")
    assert float(wrapper.sigma["kernel"]) == pytest.approx(expected, rel=1e-3)
    assert wrapper.get_build_config() == {"input_shape": MAPS.shape}
    for shape in ((1, 6, 6, 3), (1, 4, 5, 3)):
        with pytest.raises(ValueError, match=rf"built for, \(4, 4\). .* shape \(1, {shape[1]}, "):
            wrapper(np.ones(shape, "float32"))
    with pytest.raises(ValueError, match="of the size that the wrapper was built for"):
        wrapper(keras.Input((None, None, 3)))


# What layers do besides, and what Keras asks of a layer


def test_states_of_a_stateful_layer_come_out_as_without_the_wrapper():
    make = functools.partial(layers.GRU, 3, stateful=True, return_state=True)
    wrapper = SpectralNorm(make())
    wrapper(SEQUENCES)
    plain = divided_by_hand(make, SEQUENCES, wrapper, norms_of(wrapper, [(1,)] * 2))
    plain(SEQUENCES)
    for found, expected in zip(wrapper(SEQUENCES), plain(SEQUENCES)):
        np.testing.assert_allclose(numpy(found), numpy(expected), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        numpy(wrapper.layer.states[0]), numpy(plain.states[0]), rtol=1e-3, atol=1e-4
    )
    state = np.ones((2, 3), "float32")
    found = wrapper(SEQUENCES, initial_state=[ops.convert_to_tensor(state)])[0]
    expected = plain(SEQUENCES, initial_state=[ops.convert_to_tensor(state)])[0]
    np.testing.assert_allclose(numpy(found), numpy(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.any_backend
def test_arguments_and_masks_pass_through():
    wrapper = SpectralNorm(layers.MultiHeadAttention(2, 3))
    mask = np.array([[[True, True, False]] * 3] * 2)
    _, scores = wrapper(
        SEQUENCES, SEQUENCES, attention_mask=mask, return_attention_scores=True, training=True
    )
    assert tuple(scores.shape) == (2, 2, 3, 3)
    assert not np.any(numpy(scores)[..., 2])
    ids = keras.Input((2,), dtype="int32")
    embedded = SpectralNorm(layers.Embedding(4, 3, mask_zero=True))(ids)
    model = keras.Model(ids, SpectralNorm(layers.LSTM(3, return_sequences=True))(embedded))
    found = numpy(model(np.array([[1, 2, 0]] * 2)[:, 1:], training=True))
    np.testing.assert_array_equal(found[:, 0], found[:, 1])  # The masked step repeats the last.


class Block(layers.Layer):
    """A layer that assigns, draws random numbers and adds a loss."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm = (
            layers.Dense(3, activity_regularizer="l2"),
            layers.BatchNormalization(),
        )
        self.dropout = layers.Dropout(0.5, seed=1)

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.norm.build((*input_shape[:-1], 3))
        self.table = self.add_weight(name="table", shape=(3, 2))

    def call(self, inputs, training=False):
        self.add_loss(ops.sum(self.table))
        return ops.matmul(self.dropout(self.norm(self.dense(inputs))), self.table)


def test_a_layer_of_the_users_own():
    make, inputs = Block, SEQUENCES[:, 0]
    wrapper = SpectralNorm(make(), kernels=["dense.kernel", "table"])
    wrapper.build(inputs.shape)
    norms = norms_of(wrapper, [(1,), (1,)])
    plain = divided_by_hand(make, inputs, wrapper, norms)
    for _ in range(2):
        found, expected = wrapper(inputs, training=True), plain(inputs, training=True)
        np.testing.assert_allclose(numpy(found), numpy(expected), rtol=1e-3, atol=1e-4)
    for own, weight in zip(wrapper.layer.norm.weights, plain.norm.weights):
        np.testing.assert_allclose(numpy(own), numpy(weight), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(
        numpy(wrapper.layer.dropout.seed_generator.state), numpy(plain.dropout.seed_generator.state)
    )
    losses, expected = (sorted(float(x) for x in layer.losses) for layer in (wrapper, plain))
    np.testing.assert_allclose(losses, expected, rtol=1e-3, atol=1e-5)


def test_losses_count_once_in_a_stateless_call():
    wrapper = SpectralNorm(Block())
    inputs = SEQUENCES[:, 0]
    wrapper(inputs)
    values = [
        [numpy(x) for x in y]
        for y in (wrapper.trainable_variables, wrapper.non_trainable_variables)
    ]
    *_, losses = wrapper.stateless_call(*values, inputs, training=True, return_losses=True)
    assert len(losses) == len(wrapper.losses) == 2


@pytest.mark.any_backend
def test_it_lists_in_spectral_norms():
    inputs = keras.Input((3, 4))
    rnn = SpectralNorm(layers.GRU(3, name="gru"), name="sn")
    x = layers.Dense(2, name="head")(rnn(inputs))
    model = keras.Model(inputs, x)
    norms = spectral_norms(model)
    assert list(norms) == ["sn/gru/gru_cell", "sn/gru/gru_cell/recurrent_kernel"]
    np.testing.assert_allclose(list(norms.values()), norms_of(rnn, [(1,)] * 2), rtol=1e-3)
    assert set(spectral_norms(model, normalized_only=False)) == {*norms, "head"}
    conv = SpectralNorm(layers.Conv2D(2, 3, name="conv"), norm="operator", name="exact")
    model = keras.Sequential([keras.Input((4, 4, 1)), conv])
    exact = operator_norm(numpy(conv.layer.kernel), (4, 4), "valid")
    assert spectral_norms(model)["exact/conv"] == pytest.approx(exact, rel=1e-3)


def wrapped(dtype=None):
    return SpectralNorm(layers.DepthwiseConv2D(3, depth_multiplier=2, dtype=dtype))


@pytest.mark.slow
def test_layer_contract(tmp_path):
    layer = wrapped()
    outputs = layer(MAPS)
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (2, 1)
    config = layer.get_config()
    assert SpectralNorm.from_config({**config}).get_config() == config
    layer_checks.check_symbolic(layer, (MAPS,), outputs)
    layer_checks.check_stateless(layer, (MAPS,))
    layer_checks.check_file(layer, (MAPS,), tmp_path)
    for policy in layer_checks.HALF_POLICIES:
        layer_checks.check_policy(wrapped, {}, (MAPS,), policy)
    if layer_checks.resampling.cpu is not None:
        layer_checks.check_any_batch(layer, (MAPS,), jit_compile=False)
    layer_checks.check_training(wrapped, {}, (MAPS,), layer_checks.ON_JAX)


class Outer(layers.Layer):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)


def test_half_precision_divides_in_float32():
    dense = layers.Dense(8, use_bias=False, dtype="mixed_bfloat16")
    wrapper = SpectralNorm(dense)
    found = Outer(wrapper, dtype="mixed_bfloat16")(np.eye(32, dtype="float32"))
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    expected = numpy(dense.kernel) / svd_norm(numpy(dense.kernel), (1,))
    error = numpy(ops.cast(found, "float32")) / expected - 1.0
    # The error of one rounding: a kernel rounded before the division too would have twice that.
    assert np.abs(error).max() < 1.001 * 2**-8


class ConvGRUCell(layers.Layer):
    """As in keras#19527: the convolutions of the input and of the state, here of one gate."""

    def __init__(self, wrap=lambda conv: conv):
        super().__init__()
        self.state_size = self.output_size = 2
        self.input_conv = wrap(layers.Conv2D(4, 3, padding="same"))
        self.state_conv = wrap(layers.Conv2D(4, 3, padding="same"))

    def build(self, shape):
        self.sizes = shape[1:-1]
        self.input_conv.build(shape)
        self.state_conv.build((*shape[:-1], 2))

    def get_initial_state(self, batch_size):
        return [ops.zeros((batch_size, *self.sizes, 2))]

    def call(self, inputs, states, training=False):
        gates = self.input_conv(inputs) + self.state_conv(states[0])
        gate, candidate = ops.split(gates, 2, axis=-1)
        gate = ops.sigmoid(gate)
        state = gate * states[0] + (1.0 - gate) * ops.tanh(candidate)
        return state, [state]


class ConvGRU(layers.RNN):
    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        return (sequences_shape[0], *sequences_shape[2:-1], 2)


class Video(keras.Model):
    def __init__(self, is_inside=False):
        super().__init__()
        rnn = ConvGRU(ConvGRUCell(SpectralNorm) if is_inside else ConvGRUCell())
        self.rnn = rnn if is_inside else SpectralNorm(rnn)
        self.flatten, self.head = layers.Flatten(), SpectralNorm(layers.Dense(1))

    def call(self, inputs, training=False):
        return self.head(self.flatten(self.rnn(inputs)))


@pytest.mark.slow
@pytest.mark.parametrize("is_inside", [False, True][: 1 if layer_checks.ON_JAX else 2])
def test_a_convolutional_gru_trains_and_is_saved(is_inside, tmp_path):
    """JAX can't run layers with a state in a cell, such as a batch norm, as their values leak."""
    model = Video(is_inside)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(VIDEOS, np.ones((1, 1)), verbose=0)
    weights = model.trainable_weights
    before = [numpy(x).copy() for x in weights]
    assert np.isfinite(model.fit(VIDEOS, np.ones((1, 1)), verbose=0).history["loss"]).all()
    assert not any(np.array_equal(a, numpy(b)) for a, b in zip(before, weights))
    assert len(spectral_norms(model)) == 3
    model.save_weights(tmp_path / "video.weights.h5")
    again = Video(is_inside)
    again(VIDEOS)
    again.load_weights(tmp_path / "video.weights.h5")
    assert len(model.weights) == 9
    for a, b in zip(model.weights, again.weights):
        np.testing.assert_array_equal(numpy(a), numpy(b))


@pytest.mark.slow
def test_attention_and_rnn_survive_a_file(tmp_path):
    inputs = keras.Input((3, 4))
    x = SpectralNorm(layers.MultiHeadAttention(2, 3))(inputs, inputs)
    x = SpectralNorm(layers.Bidirectional(layers.GRU(3)), kernels=["forward_layer.cell.kernel"])(x)
    model = keras.Model(inputs, x)
    model(SEQUENCES, training=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(again(SEQUENCES)), numpy(model(SEQUENCES)))
    for a, b in zip(model.weights, again.weights):
        np.testing.assert_array_equal(numpy(a), numpy(b))


def networks():
    """A generator whose wrapped part has a batch norm, and a discriminator."""
    latents, images = keras.Input((3,)), keras.Input((8, 8, 1))
    parts = [layers.Conv2DTranspose(1, 3, 2, "same"), layers.BatchNormalization(momentum=0.5)]
    x = layers.Reshape((4, 4, 1))(SpectralNorm(layers.Dense(16))(latents))
    x = layers.Activation("tanh")(SpectralNorm(keras.Sequential(parts))(x))
    logits = layers.Flatten()(SpectralNorm(layers.Conv2D(2, 3, 2))(images))
    logits = SpectralNorm(layers.Dense(1), name="head")(logits)
    return keras.Model(latents, x), keras.Model(images, logits)


@pytest.mark.slow
def test_it_trains_in_a_sagan():
    model = SAGAN(*networks(), latent_dim=3, seed=1, ema_momentum=0.5)
    model.compile("sgd", "sgd", jit_compile=layer_checks.ON_JAX)
    vectors = [x for x in model.variables if x.name.startswith("vector_u") and x.shape[0] > 1]
    assert len(vectors) == 3  # Of D's convolution, and of G's first layer and of its average.
    for vector_u in vectors:
        vector_u.assign(np.ones(vector_u.shape) / vector_u.shape[0] ** 0.5)
    before = [numpy(x).copy() for x in model.variables]
    model.fit(RNG.uniform(-1, 1, (4, 8, 8, 1)).astype("float32"), batch_size=2, verbose=0)
    moved = {x.path for x, old in zip(model.variables, before) if not np.array_equal(numpy(x), old)}
    wanted = {x.path for x in model.weights if x.name in ("kernel", "moving_mean")}
    assert wanted | {x.path for x in vectors} <= moved
    assert all(np.isfinite(numpy(x)).all() for x in model.weights)


# Bad input


class Unbuilt(layers.Layer):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.any_backend
@pytest.mark.filterwarnings("ignore:`build")
@pytest.mark.parametrize(
    "make, settings, shape, match",
    [
        (lambda: "dense", {}, None, "`layer` must be a Keras layer. Received: layer='dense'"),
        (layers.ReLU, {}, (2, 3), r"`layer` must have kernels .* Received: layer=ReLU"),
        (Unbuilt, {}, (2, 3), r"`layer` must have kernels that `build` creates.*layer=Unbuilt"),
        (lambda: layers.Dense(2), {"kernels": ["cernel"]}, (2, 3), "`kernels` .*'cernel' is None"),
        (lambda: layers.Dense(2), {"kernels": ["bias"]}, (2, 3), "`kernels` must name variables"),
        (lambda: layers.Dense(2), {"kernels": ["a.b"]}, (2, 3), "`kernels` must name variables"),
        (lambda: layers.Dense(2), {"kernels": "kernel"}, None, "`kernels` must be a list"),
        (lambda: layers.Dense(2), {"kernels": [1]}, None, "`kernels` must be a list of names"),
        (lambda: layers.Dense(2), {"norm": "l2"}, None, "`norm` must be"),
        (lambda: SNDense(2), {}, None, "must not be spectrally normalized already"),
        (lambda: SpectralNorm(layers.Dense(2)), {}, None, "must not be spectrally normalized"),
        (
            lambda: layers.SpectralNormalization(layers.Dense(2)),
            {},
            None,
            "must not be spectrally normalized already. Received: layer=SpectralNormalization",
        ),
        (
            lambda: layers.TimeDistributed(SNConv2D(2, 1)),
            {},
            None,
            r"normalized already. Received: layer=TimeDistributed\(.* with SNConv2D\(",
        ),
        (lambda: layers.Conv2D(2, 3, 2), {"norm": "operator"}, (2, 4, 4, 3), "needs Dense, Conv1D"),
        (lambda: layers.Conv2DTranspose(2, 3), {"norm": "operator"}, (2, 4, 4, 3), "needs Dense"),
        (
            lambda: layers.Conv2D(2, 3),
            {"norm": "operator"},
            (None, None, 4, 3),
            r"whose size is known.*Received: inputs of shape \(None, None, 4, 3\)",
        ),
    ],
)
def test_errors_are_named(make, settings, shape, match):
    with pytest.raises(ValueError, match=match):
        SpectralNorm(make(), **settings).build(shape)


@pytest.mark.any_backend
def test_maps_of_the_wrong_rank():
    for wrapper in (SpectralNorm(layers.Conv2D(2, 3)), SpectralNorm(layers.GRU(2))):
        with pytest.raises(ValueError, match=f"'{wrapper.name}' is incompatible.*|rank|ndim"):
            wrapper(np.ones((2, 3), "float32"))


@pytest.mark.any_backend
def test_quantized_and_adapted_layers_are_refused():
    wrapper = build(SpectralNorm(layers.Dense(2)), SEQUENCES)
    with pytest.raises(ValueError, match="can't be quantized"):
        wrapper.quantize("int8")
    wrapper.layer.enable_lora(1)
    with pytest.raises(ValueError, match="can't be quantized or adapted by LoRA"):
        wrapper(SEQUENCES)
    changed = layers.Dense(2)
    changed.build((None, 3))
    changed.quantize("int8")
    for layer in (changed, layers.TimeDistributed(changed), layers.Dense(2, lora_rank=1)):
        with pytest.raises(ValueError, match="must not be quantized or adapted by LoRA.*Received"):
            SpectralNorm(layer).build((2, 4, 3))


@pytest.mark.any_backend
def test_a_subclass_may_override_call():
    class Twice(SpectralNorm):
        def call(self, x, training=False):
            return 2 * super().call(x, training=training)

    inputs = np.ones((1, 3), "float32")
    layer = Twice(layers.Dense(2, use_bias=False))
    outputs = ops.convert_to_numpy(layer(inputs))
    ((_, kernel),) = layer.normalized_weights()
    np.testing.assert_allclose(outputs, 2 * inputs @ ops.convert_to_numpy(kernel), rtol=1e-5)
