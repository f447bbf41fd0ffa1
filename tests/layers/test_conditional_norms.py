"""Group and layer norm with a condition, and vectors as the condition of all three norms."""

import keras
import numpy as np
import pytest
from gradients import gradients_of
from keras import ops
from layer_checks import check_layer

from keras_sagan.layers import ConditionalBatchNorm, ConditionalGroupNorm, ConditionalLayerNorm

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(3.0, 2.0, (5, 4, 3, 6)).astype("float32")
LABELS = np.array([0, 1, 2, 2, 0], "int32")
VECTORS = RNG.normal(size=(5, 2)).astype("float32")
NORMS = {
    "batch": ConditionalBatchNorm,
    "group": lambda *args, **kwargs: ConditionalGroupNorm(*args, groups=3, **kwargs),
    "layer": ConditionalLayerNorm,
}
AXES = {"batch": (0, 1, 2), "group": (1, 2, 4), "layer": (1, 2, 3)}
every_norm = pytest.mark.parametrize("kind", NORMS)


def numpy(x):
    return ops.convert_to_numpy(x)


def normalized(kind, images, epsilon=1e-5):
    x = images.astype("float64")
    x = x.reshape(*x.shape[:3], 3, 2) if kind == "group" else x
    x = x - x.mean(AXES[kind], keepdims=True)
    return (x / np.sqrt((x**2).mean(AXES[kind], keepdims=True) + epsilon)).reshape(images.shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cls, settings, condition",
    [
        (ConditionalGroupNorm, {"groups": 3, "condition_dim": 2}, VECTORS),
        (ConditionalLayerNorm, {"num_classes": 3}, LABELS),
    ],
)
def test_layer_contract(cls, settings, condition, tmp_path):
    check_layer(cls, settings, (IMAGES, condition), tmp_path, 2, 0)


def test_hand_computed():
    layer = ConditionalGroupNorm(groups=2, epsilon=1e-12, condition_dim=1)
    images = np.array([[1.0, 3.0, 10.0, 14.0]], "float32")  # The groups are (-1, 1) and (-1, 1).
    layer.build(images.shape)
    layer.gamma_kernel.assign([[2.0, 2.0, 2.0, 2.0]])  # gamma = 1 + 0.5 * 2
    layer.beta_kernel.assign([[0.0, 2.0, 4.0, 6.0]])
    outputs = numpy(layer(images, np.array([[0.5]], "float32")))
    np.testing.assert_allclose(outputs, [[-2 + 0, 2 + 1, -2 + 2, 2 + 3]], atol=1e-5)


@every_norm
def test_vectors(kind):
    layer = NORMS[kind](condition_dim=2)
    plain = numpy(layer(IMAGES, VECTORS, training=True))
    np.testing.assert_allclose(plain, normalized(kind, IMAGES), atol=1e-5)
    kernels = RNG.normal(size=(2, 2, 6))
    layer.gamma_kernel.assign(kernels[0])
    layer.beta_kernel.assign(kernels[1])
    gamma, beta = ((VECTORS @ kernel)[:, None, None] for kernel in kernels)
    expected = normalized(kind, IMAGES) * (1.0 + gamma) + beta
    received = numpy(layer(IMAGES, labels=VECTORS, training=True))
    np.testing.assert_allclose(received, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_labels(kind):
    layer = NORMS[kind](3)
    layer.build(IMAGES.shape)
    gamma, beta = RNG.normal(size=(2, 3, 6))
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    gamma, beta = (table[LABELS][:, None, None] for table in (gamma, beta))
    expected = normalized(kind, IMAGES) * gamma + beta
    for dtype in ("int32", "uint8"):
        received = numpy(layer(IMAGES, LABELS.astype(dtype)))
        np.testing.assert_allclose(received, expected, atol=1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize("groups, axis", [(2, -1), (3, 1), (-1, -2)])
def test_one_class_is_keras_group_normalization(groups, axis):
    images = np.moveaxis(IMAGES, 3, axis)
    ours = ConditionalGroupNorm(1, groups, axis, epsilon=1e-3)
    theirs = keras.layers.GroupNormalization(groups, axis % 4)
    np.testing.assert_allclose(numpy(ours(images)), numpy(theirs(images)), atol=1e-5)
    assert ours.get_config()["groups"] == groups


@pytest.mark.any_backend
@pytest.mark.parametrize("images, axes", [(IMAGES, [1, 2, 3]), (IMAGES[:, 0, 0], -1)])
def test_one_class_is_keras_layer_normalization(images, axes):
    ours = ConditionalLayerNorm(1, epsilon=1e-3)
    theirs = keras.layers.LayerNormalization(axes)
    np.testing.assert_allclose(numpy(ours(images)), numpy(theirs(images)), atol=1e-5)


def test_maps_of_unknown_size_and_masks():
    images, vectors = keras.Input((None, None, 6)), keras.Input((2,))
    masked = keras.layers.Masking()(images)
    outputs = NORMS["group"](condition_dim=2)(masked, vectors)
    assert getattr(outputs, "_keras_mask", None) is not None  # It reaches the next layer.
    model = keras.Model([images, vectors], outputs)
    received = model.predict([IMAGES, VECTORS], verbose=0)
    np.testing.assert_allclose(received, normalized("group", IMAGES), atol=1e-5)


@every_norm
def test_gradients_reach_the_vectors_after_the_first_step(kind):
    layer = NORMS[kind](condition_dim=2)
    layer.build(IMAGES.shape)
    target = RNG.normal(size=IMAGES.shape).astype("float32")
    state = [x.value for x in layer.non_trainable_variables]

    def loss(gamma_kernel, beta_kernel, vectors):
        outputs, _ = layer.stateless_call(
            [gamma_kernel, beta_kernel], state, IMAGES, vectors, training=True
        )
        return ops.sum(outputs * ops.convert_to_tensor(target))

    kernels = [numpy(x) for x in layer.trainable_variables]
    *gradients, of_vectors = gradients_of(loss, *kernels, VECTORS)
    for gradient, factor in zip(gradients, (normalized(kind, IMAGES), 1.0)):
        expected = np.einsum("nd,nhwc->dc", VECTORS, factor * target)
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)
    assert not of_vectors.any()
    kernels = [kernel - 0.1 * gradient for kernel, gradient in zip(kernels, gradients)]
    assert np.abs(gradients_of(loss, *kernels, VECTORS)[-1]).min() > 1e-3


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_half_precision_and_large_means(kind):
    images = RNG.normal(300.0, 100.0, IMAGES.shape).astype("float16")  # Squares overflow.
    outputs = numpy(NORMS[kind](1, dtype="mixed_float16")(images)).astype("float32")
    np.testing.assert_allclose(outputs, normalized(kind, images), atol=3e-3)
    images = 1000.0 + IMAGES
    received = numpy(NORMS[kind](1)(images))
    np.testing.assert_allclose(received, normalized(kind, images), atol=1e-3)


@pytest.mark.any_backend
def test_configurations():
    config = ConditionalBatchNorm(3).get_config()
    assert config["num_classes"] == 3 and "condition_dim" not in config  # As in older files.
    for norm in NORMS.values():
        config = norm(condition_dim=2, axis=1).get_config()
        assert (config["num_classes"], config["condition_dim"], config["axis"]) == (None, 2, 1)


@pytest.mark.any_backend
@every_norm
@pytest.mark.parametrize(
    "vectors, message",
    [
        (None, "`labels` must be given, as condition_dim=2. Received: labels=None"),
        (LABELS, r"float vectors of shape \(batch, 2\).*Received: .*dtype int32 and shape \(5,\)"),
        (VECTORS.astype("int32"), "float vectors .*Received: labels of dtype int32"),
        (IMAGES[:, 0, 0], r"float vectors .*condition_dim=2. Received: .*shape \(5, 6\)"),
        (VECTORS[:, 0], r"float vectors .*Received: .*shape \(5,\)"),
        (VECTORS[:1], r"must have shape \(5, 2\): one vector per image. .* of shape \(1, 2\)"),
        (keras.KerasTensor((None, 3)), r"float vectors .*Received: .*shape \(None, 3\)"),
    ],
)
def test_bad_vectors(kind, vectors, message):
    images = keras.KerasTensor(IMAGES.shape) if isinstance(vectors, keras.KerasTensor) else IMAGES
    with pytest.raises(ValueError, match=message):
        NORMS[kind](condition_dim=2)(images, vectors)


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", ["group", "layer"])
@pytest.mark.parametrize(
    "labels, message",
    [
        (None, "`labels` must be given, as num_classes=3. Received: labels=None"),
        (VECTORS, "integer class ids"),
        (LABELS + 1, r"must lie in \[0, 3\)"),
        (LABELS[:1], r"`labels` must have shape \(5,\): one integer class id per image"),
    ],
)
def test_bad_labels(kind, labels, message):
    with pytest.raises(ValueError, match=message):
        NORMS[kind](3)(IMAGES, labels)


@pytest.mark.any_backend
@every_norm
@pytest.mark.parametrize("arguments", [{}, {"num_classes": 2, "condition_dim": 3}])
def test_one_kind_of_condition(kind, arguments):
    with pytest.raises(ValueError, match="`num_classes` or `condition_dim` must be given, and not"):
        NORMS[kind](**arguments)


@pytest.mark.any_backend
@pytest.mark.parametrize("groups", [4, 12])
def test_groups_that_do_not_divide_the_channels(groups):
    message = f"`groups` must divide the channels of `images`.*Received: groups={groups} for"
    with pytest.raises(ValueError, match=message):
        ConditionalGroupNorm(1, groups)(IMAGES)


@pytest.mark.any_backend
@pytest.mark.parametrize("groups", [0, -2, 2.0])
def test_groups_that_are_no_number(groups):
    message = f"`groups` must be a positive integer or -1. Received: groups={groups}"
    with pytest.raises(ValueError, match=message):
        ConditionalGroupNorm(1, groups)


@pytest.mark.any_backend
def test_kernels_that_are_too_large():
    with pytest.raises(ValueError, match="`condition_dim` must make a weight of at most"):
        ConditionalLayerNorm(condition_dim=2**30)(IMAGES, VECTORS)
