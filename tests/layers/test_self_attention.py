"""Attention over any number of axes, with heads, other scores and sparse patterns."""

import hashlib

import keras
import numpy as np
import pytest
from gradients import gradients_of
from keras import ops
from layer_checks import ON_JAX, check_layer

from keras_sagan.layers import (
    SelfAttention1D,
    SelfAttention2D,
    SelfAttention3D,
    record_attention_scores,
)
from keras_sagan.ops.attention_patterns import ylg_masks

RNG = np.random.default_rng(0)
SEQUENCE, MAP, VOLUME = (
    RNG.normal(size=(2, *size, 16)).astype("float32") for size in ((6,), (4, 4), (2, 4, 2))
)
YLG = {"pattern": "ylg", "num_heads": 4, "key_reduction": 2}
# The first 16 digits of the SHA-256 of the packed masks, (size, pool_size), from the code of the
# authors of YLG (github.com/giannisdaras/ylg, commit f41c818, ops.get_grid_masks).
MASKS = {
    (8, 1): "214d209d57a861fd",
    (8, 2): "8ef31949ded4d28f",
    (16, 2): "580928988c2e6e22",
    (32, 2): "cd18cbb2565c85de",
    (64, 2): "96bb4b43ff900cba",
}


def numpy(x):
    return ops.convert_to_numpy(x)


def filled(layer, inputs, scale=1.0):
    """The layer, built, with a gamma and large kernels, so that the softmax is not uniform."""
    if not layer.built:
        layer.build(inputs.shape)
    layer.gamma.assign(0.7)
    for weight in layer.trainable_weights[1:]:
        weight.assign(scale * np.random.default_rng(1).normal(size=weight.shape))
    return layer


def oracle(layer, x, masks=None):
    """Outputs and scores by the definition, from the layer's kernels without spectral norm."""
    x = x.astype("float64")
    convs = (layer.query_conv, layer.key_conv or layer.query_conv, layer.value_conv)
    query, key, value = (x @ numpy(c.kernel)[0, 0] for c in convs)
    for axis in range(1, x.ndim - 1):
        key, value = (
            y.reshape(*y.shape[:axis], -1, layer.pool_size, *y.shape[axis + 1 :]).max(axis + 1)
            for y in (key, value)
        )
    query, key, value = (y.reshape(len(x), -1, y.shape[-1]) for y in (query, key, value))
    found, attended = [], []
    heads = (np.split(y, layer.num_heads, axis=-1) for y in (query, key, value))
    for index, (q, k, v) in enumerate(zip(*heads)):
        if layer.scores == "l2":
            distances = ((q[:, :, None] - k[:, None]) ** 2).sum(-1)
            logits = -distances / np.sqrt(q.shape[-1])
        else:
            logits = q @ k.swapaxes(1, 2)
        if layer.scores == "cosine":
            norms = [np.linalg.norm(y, axis=-1) for y in (q, k)]
            logits = logits / (norms[0][:, :, None] * norms[1][:, None]) / 0.1
        if masks is not None:
            logits = np.where(masks[index], logits, -np.inf)
        scores = np.exp(logits - logits.max(-1, keepdims=True))
        found.append(scores / scores.sum(-1, keepdims=True))
        attended.append(found[-1] @ v)
    outputs = np.concatenate(attended, -1) @ numpy(layer.output_conv.kernel)[0, 0]
    return x + 0.7 * outputs.reshape(x.shape), np.stack(found, 1)


def test_cosine_of_a_vector_of_zeros():
    layer = SelfAttention1D(scores="cosine", pool_size=1)
    sequence = np.where(np.arange(SEQUENCE.shape[1])[:, None] < 2, 0, SEQUENCE).astype("float32")
    _, scores = layer(sequence, return_attention_scores=True)
    np.testing.assert_allclose(numpy(scores)[:, :2], 1 / SEQUENCE.shape[1], rtol=1e-6)
    layer.gamma.assign(1.0)
    (gradient,) = gradients_of(lambda x: ops.sum(ops.square(layer(x))), sequence)
    assert np.abs(gradient).max() < 100  # A clipped length has gradients of 1e5.


@pytest.mark.slow
@pytest.mark.parametrize(
    "cls, arguments, inputs",
    [
        (SelfAttention2D, YLG, MAP),
        (SelfAttention1D, {"scores": "cosine", "use_spectral_norm": False}, SEQUENCE),
        (SelfAttention3D, {"num_heads": 2, "scores": "l2"}, VOLUME),
    ][: 1 if ON_JAX else 3],
)
def test_layer_contract(cls, arguments, inputs, tmp_path):
    convs = 3 if arguments.get("scores") == "l2" else 4
    states = convs * arguments.get("use_spectral_norm", True)
    check_layer(cls, arguments, (inputs,), tmp_path, convs + 1, states)


@pytest.mark.parametrize(
    "cls, arguments, inputs",
    [
        (SelfAttention1D, {"num_heads": 2, "scores": "l2"}, SEQUENCE),
        (SelfAttention3D, {"key_reduction": 4, "num_heads": 4}, VOLUME),
        (SelfAttention2D, {"num_heads": 2, "scores": "cosine"}, MAP),
    ][: 2 if ON_JAX else 3],
)
def test_oracle(cls, arguments, inputs):
    layer = cls(use_spectral_norm=False, **arguments)
    np.testing.assert_array_equal(numpy(layer(inputs)), inputs)  # A new layer is the identity.
    expected, expected_scores = oracle(filled(layer, inputs, 0.5), inputs)
    outputs, scores = layer(inputs, return_attention_scores=True)
    np.testing.assert_allclose(numpy(scores), expected_scores, atol=1e-5)
    np.testing.assert_allclose(numpy(outputs), expected, atol=1e-4)
    layer.query_chunk_size = 5
    np.testing.assert_allclose(numpy(layer(inputs)), expected, atol=1e-4)
    symbolic = layer(keras.Input(inputs.shape[1:]), return_attention_scores=True)[1]
    assert symbolic.shape[1:] == expected_scores.shape[1:]


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_volumes_in_other_precisions(dtype):
    layer = filled(SelfAttention3D(use_spectral_norm=False, dtype=dtype), VOLUME, 0.5)
    outputs = numpy(layer(VOLUME.astype(dtype)))
    # JAX and torch round float64 to float32.
    exact = 1e-10 if keras.backend.backend() == "tensorflow" else 1e-5
    atol = exact if dtype == "float64" else 0.05
    np.testing.assert_allclose(outputs, oracle(layer, VOLUME)[0], atol=atol)


@pytest.mark.any_backend
def test_one_plane_of_a_volume_and_one_row_of_a_map():
    plane = filled(SelfAttention2D(pool_size=1), MAP)
    volume = SelfAttention3D(pool_size=1)
    volume.build((None, 1, 4, 4, 16))
    volume.set_weights(plane.get_weights())
    received = numpy(volume(MAP[:, None]))[:, 0]
    np.testing.assert_allclose(received, numpy(plane(MAP)), atol=1e-5)
    line = SelfAttention1D(pool_size=1)
    line.build(SEQUENCE.shape)
    line.set_weights(plane.get_weights())
    expected = numpy(plane(SEQUENCE[:, None]))[:, 0]
    np.testing.assert_allclose(numpy(line(SEQUENCE)), expected, atol=1e-5)


def test_channels_first():
    first = SelfAttention3D(data_format="channels_first", num_heads=2)
    assert first(keras.Input((16, 2, 4, 2))).shape == (None, 16, 2, 4, 2)
    if keras.backend.backend() == "tensorflow":
        return  # Its CPU kernels have no channels_first.
    last = filled(SelfAttention3D(num_heads=2), VOLUME)
    first.set_weights(last.get_weights())
    received = np.moveaxis(numpy(first(np.moveaxis(VOLUME, -1, 1))), 1, -1)
    np.testing.assert_allclose(received, numpy(last(VOLUME)), atol=1e-5)


@pytest.mark.any_backend
def test_the_length_may_be_dynamic():
    inputs = keras.Input((None, 16))
    model = keras.Model(inputs, SelfAttention1D(num_heads=2)(inputs))
    filled(model.layers[-1], SEQUENCE)
    for length in (4, 6):
        expected = numpy(model.layers[-1](SEQUENCE[:, :length]))
        received = model.predict(SEQUENCE[:, :length], verbose=0)
        np.testing.assert_allclose(received, expected, atol=1e-5)


def test_recordings_average_the_heads():
    inputs = keras.Input((6, 16))
    model = keras.Model(inputs, SelfAttention1D(num_heads=2, name="look")(inputs))
    with record_attention_scores(model) as records:
        model(SEQUENCE)
    _, scores = model.layers[-1](SEQUENCE, return_attention_scores=True)
    assert tuple(scores.shape) == (2, 2, 6, 3)
    np.testing.assert_allclose(numpy(records["look"]), numpy(scores).mean(1), rtol=1e-6)


def slopes(scores):
    """The largest change of the outputs relative to tiny changes of four sequences.

    Kim et al. (2021, theorem 3.1) prove that dot products have no bound by such a sequence: large,
    but zero at one location.
    """
    rng = np.random.default_rng(0)
    layer = SelfAttention1D(2, 2, pool_size=1, scores=scores)
    layer.build((None, 6, 4))
    layer.gamma.assign(1.0)
    for weight in layer.trainable_weights[1:]:
        weight.assign(rng.normal(size=weight.shape))
    layer(np.zeros((1, 6, 4)), training=True)
    x, step = rng.normal(size=24), 1e-3 * np.eye(24)
    x[:4] = 0.0
    for scale in (0.1, 1.0, 10.0, 100.0):
        moved = np.concatenate([scale * x + step, scale * x - step]).reshape(48, 6, 4)
        outputs = numpy(layer(moved.astype("float32"))).reshape(2, 24, 24).astype("float64")
        yield np.linalg.norm((outputs[0] - outputs[1]) / 2e-3, 2)


@pytest.mark.any_backend
def test_l2_has_bounded_slopes_where_those_of_dot_products_grow():
    dot, l2 = (list(slopes(scores)) for scores in ("dot", "l2"))
    assert max(l2) < 4
    assert dot[2] > 20 * dot[1] and dot[3] > 20 * dot[2]


@pytest.mark.any_backend
@pytest.mark.parametrize("size, pool_size", MASKS)
def test_masks_are_those_of_the_authors(size, pool_size):
    masks = numpy(ylg_masks(size, pool_size, 8))
    assert masks.shape == (8, size**2, (size // pool_size) ** 2)
    digest = hashlib.sha256(np.packbits(masks).tobytes()).hexdigest()[:16]
    assert digest == MASKS[size, pool_size]


def test_masks_by_hand():
    right_block, right_ends, left_block, left_ends = numpy(ylg_masks(2, 1, 4)).astype(int).tolist()
    assert right_block == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert right_ends == [[1, 0, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    assert left_block == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert left_ends == [[1, 1, 0, 1], [0, 1, 0, 1], [0, 1, 1, 1], [0, 1, 0, 1]]


def test_a_layer_with_masks():
    layer = SelfAttention2D(use_spectral_norm=False, **YLG)
    layer = filled(layer, MAP, 0.5)
    outputs, scores = layer(MAP, return_attention_scores=True)
    expected, expected_scores = oracle(layer, MAP, numpy(ylg_masks(4, 2, 4)))
    np.testing.assert_allclose(numpy(scores), expected_scores, atol=1e-5)
    np.testing.assert_allclose(numpy(outputs), expected, atol=1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "cls, arguments, shape, match",
    [
        (SelfAttention1D, {}, (2, 4, 4, 16), "`inputs` must be sequences of rank 3"),
        (SelfAttention3D, {}, (2, 4, 4, 16), "`inputs` must be volumes of rank 5"),
        (SelfAttention1D, {}, (2, 5, 16), "`pool_size` must divide the length of"),
        (SelfAttention3D, {}, (2, 4, 4, 5, 16), "`pool_size` must divide the depth, height and"),
        (SelfAttention1D, {"num_heads": 3}, (2, 4, 16), "`num_heads` must divide the channels"),
        (SelfAttention2D, {"scores": "l1"}, None, '`scores` must be "dot", "l2" or "cosine"'),
        (SelfAttention2D, {"pattern": "ltr"}, None, '`pattern` must be "dense" or "ylg"'),
        (SelfAttention1D, {"pattern": "ylg"}, None, '`pattern` must be "dense" in SelfAttention1D'),
        (SelfAttention2D, {"pattern": "ylg"}, None, "`num_heads` must be a multiple of 4"),
        (SelfAttention2D, {**YLG, "query_chunk_size": 4}, None, "`query_chunk_size` must be None"),
        (SelfAttention2D, YLG, (2, 4, 2, 16), "`inputs` must be square maps of known size"),
        (SelfAttention2D, YLG, (2, None, None, 16), "`inputs` must be square maps of known size"),
    ],
)
def test_what_is_refused(cls, arguments, shape, match):
    with pytest.raises(ValueError, match=f"(?s){match}.*Received"):
        cls(**arguments)(keras.Input(shape[1:]))


@pytest.mark.parametrize("num_heads", [1, 2])
def test_flash_attention_where_widths_and_precision_allow(num_heads, monkeypatch):
    calls, function = [], ops.dot_product_attention
    monkeypatch.setattr(
        ops, "dot_product_attention", lambda *x, **y: [calls.append(1), function(*x, **y)][1]
    )
    settings = {"value_reduction": 4, "num_heads": num_heads, "dtype": "mixed_bfloat16"}
    has_kernels = keras.backend.backend() in ("jax", "torch")
    for key_reduction, is_flash in ((4, has_kernels), (2, False)):
        layer = filled(SelfAttention2D(key_reduction=key_reduction, **settings), MAP)
        expected = layer(MAP, return_attention_scores=True)[0]
        assert not calls
        found = keras.Sequential([layer]).predict(MAP, verbose=0)
        assert bool(calls) == is_flash
        calls.clear()
        found, expected = (numpy(ops.cast(x, "float32")) for x in (found, expected))
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.03)


@pytest.mark.parametrize("training", [False, True])
def test_half_precision_has_gradients_of_gradients(training, monkeypatch):
    if training:  # Flash attention, which doesn't have them, is only for inference.
        monkeypatch.delattr(ops, "dot_product_attention")
    layer = filled(SelfAttention2D(4, 4, dtype="mixed_bfloat16"), MAP, 0.3)

    def squares(x, function):
        return ops.sum(ops.square(ops.cast(function(x), "float32")))

    def penalty(x):
        def loss(x):
            return squares(x, lambda x: layer(x, training=training))

        return squares(x, lambda x: gradients_of(loss, x, differentiable=True)[0])

    (gradient,) = gradients_of(penalty, MAP)
    assert np.isfinite(gradient).all() and gradient.any()
