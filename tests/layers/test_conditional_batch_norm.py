import zipfile

import h5py
import keras
import numpy as np
import oracles
import pytest
from gradients import gradients_of
from keras import ops
from layer_checks import check_layer

from keras_sagan.layers import ConditionalBatchNorm

IMAGES = np.random.default_rng(0).normal(3.0, 2.0, (6, 4, 5, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 3, 0], "int32")


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.slow
def test_layer_contract(tmp_path):
    check_layer(ConditionalBatchNorm, {"num_classes": 4}, (IMAGES, LABELS), tmp_path, 2, 3)


def test_hand_computed():
    layer = ConditionalBatchNorm(2, epsilon=1e-12)
    images = np.array([1.0, 3.0], "float32").reshape(2, 1, 1, 1)  # mean 2, variance 1
    layer.build(images.shape)
    layer.gamma.assign([[10.0], [20.0]])
    layer.beta.assign([[5.0], [7.0]])
    outputs = numpy(layer(images, np.array([0, 1]), training=True)).ravel()
    np.testing.assert_allclose(outputs, [-10 + 5, 20 + 7], rtol=1e-6)


@pytest.mark.any_backend
def test_new_tables_are_ones_and_zeros():
    layer = ConditionalBatchNorm(4)
    layer(IMAGES, LABELS)
    np.testing.assert_array_equal(numpy(layer.gamma), np.ones((4, 3)))
    np.testing.assert_array_equal(numpy(layer.beta), np.zeros((4, 3)))


@pytest.mark.parametrize("axis", [-1, 3, 1])
def test_oracle(axis):
    layer = ConditionalBatchNorm(4, axis=axis)
    channels = IMAGES.shape[axis]
    layer.build(IMAGES.shape)
    gamma, beta = np.random.normal(size=(2, 4, channels))
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    outputs = np.moveaxis(numpy(layer(IMAGES, LABELS, training=True)), axis, -1)
    expected = oracles.batch_norm(np.moveaxis(IMAGES, axis, -1), gamma, beta, LABELS, 1e-5)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize("labels", [None, np.zeros(6, "int32")])
def test_one_class_is_keras_batch_normalization(labels):
    ours = ConditionalBatchNorm(1, momentum=0.9, epsilon=1e-3)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    ours.build(IMAGES.shape)
    ours.num_updates.assign(9)  # From the tenth update on `momentum` alone rules.
    for training in (True, True, False):
        received = numpy(ours(IMAGES, labels, training=training))
        np.testing.assert_allclose(
            received, numpy(theirs(IMAGES, training=training)), rtol=1e-5, atol=1e-5
        )
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(
            numpy(getattr(ours, name)), numpy(getattr(theirs, name)), rtol=1e-6
        )


def test_large_mean_does_not_cancel():
    images = np.random.normal(1000.0, 1.0, (8, 8, 8, 4)).astype("float32")
    outputs = numpy(ConditionalBatchNorm(1)(images, training=True))
    one, zero, none = np.ones((1, 4)), np.zeros((1, 4)), np.zeros(8, "int32")
    assert np.abs(outputs - oracles.batch_norm(images, one, zero, none, 1e-5)).max() < 1e-3


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="layers keep no state in jax.grad")
def test_gradients_of_gradients():
    """As a penalty takes them; Keras's own layer leaves the mean out of the variance's there."""
    layer = ConditionalBatchNorm(1, epsilon=1e-3)
    layer.build(IMAGES.shape)
    upstream = np.random.default_rng(1).normal(size=IMAGES.shape).astype("float32")

    def plain(x):
        centred = x - ops.mean(x, (0, 1, 2), keepdims=True)
        return centred / ops.sqrt(ops.mean(centred**2, (0, 1, 2), keepdims=True) + 1e-3)

    def penalty(normalize):
        def slope(x):
            return ops.sum(normalize(x) ** 2 * ops.convert_to_tensor(upstream))

        def total(x):
            return ops.sum(gradients_of(slope, x, differentiable=True)[0] ** 4)

        return gradients_of(total, IMAGES)[0]

    ours, expected = penalty(lambda x: layer(x, training=True)), penalty(plain)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_half_precision_has_float32_moments():
    images = np.random.normal(300.0, 100.0, (8, 4, 4, 3)).astype("float32")  # squares overflow
    layer = ConditionalBatchNorm(1, dtype="mixed_float16")
    outputs = numpy(layer(images, training=True)).astype("float32")
    assert np.isfinite(outputs).all()
    assert abs(outputs.std() - 1.0) < 0.01
    expected = images.astype("float16").astype("float64").var(axis=(0, 1, 2))
    np.testing.assert_allclose(numpy(layer.moving_variance), expected, rtol=1e-4)


def test_statistics_move_in_training_only():
    layer = ConditionalBatchNorm(4)
    layer(IMAGES, LABELS)
    np.testing.assert_array_equal(numpy(layer.moving_mean), 0.0)
    layer(IMAGES, LABELS, training=True)
    np.testing.assert_allclose(numpy(layer.moving_mean), IMAGES.mean(axis=(0, 1, 2)), rtol=1e-5)
    moved = layer.get_weights()
    layer.trainable = False
    layer(1.0 + IMAGES, LABELS, training=True)
    for old, new in zip(moved, layer.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_momentum_of_one_keeps_the_statistics():
    layer = ConditionalBatchNorm(4, momentum=1)
    layer.build(IMAGES.shape)
    start = layer.get_weights()
    layer(IMAGES, LABELS, training=True)
    for old, new in zip(start, layer.get_weights()):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("momentum", [0.0, 0.75, 0.9, 0.999])
def test_the_first_batches_count_alike(momentum):
    """By hand: the share of batch n is 1, 1/2, 1/3, …, 1/10, 1/10, …, and never too small."""
    rng = np.random.default_rng(0)
    batches = rng.normal(rng.normal(size=(30, 1, 1)), 2.0, (30, 8, 3)).astype("float32")
    layer = ConditionalBatchNorm(1, momentum=momentum)
    mean, variance = np.zeros(3), np.ones(3)
    for index, batch in enumerate(batches):
        layer(batch, training=True)
        share = max(1.0 - momentum, 1.0 / min(index + 1, 10))
        mean = (1.0 - share) * mean + share * batch.mean(0, dtype="float64")
        variance = (1.0 - share) * variance + share * batch.var(0, dtype="float64")
        np.testing.assert_allclose(numpy(layer.moving_mean), mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(numpy(layer.moving_variance), variance, rtol=1e-4)
        if index == 9 and momentum >= 0.9:
            np.testing.assert_allclose(mean, batches[:10].mean((0, 1)), rtol=1e-5)


def test_empty_batch_leaves_the_statistics():
    layer = ConditionalBatchNorm(4)
    for _ in range(2):  # Neither at the start nor later.
        before = [numpy(w).copy() for w in layer.weights]
        assert tuple(layer(IMAGES[:0], LABELS[:0], training=True).shape) == (0, 4, 5, 3)
        for old, new in zip(before, layer.weights):
            np.testing.assert_array_equal(old, numpy(new))
        layer(IMAGES, LABELS, training=True)
    assert int(numpy(layer.num_updates)) == 2


def norm_network():
    inputs, labels = keras.Input(IMAGES.shape[1:]), keras.Input((), dtype="int32")
    return keras.Model([inputs, labels], ConditionalBatchNorm(4, name="norm")(inputs, labels))


def test_files_without_the_count_are_settled(tmp_path):
    """As this package wrote them before the layer had `num_updates`."""
    network = norm_network()
    network([IMAGES, LABELS], training=True)
    expected = numpy(network([IMAGES, LABELS]))
    network.save(tmp_path / "new.keras")
    network.save_weights(tmp_path / "new.weights.h5")
    new = keras.saving.load_model(tmp_path / "new.keras").get_layer("norm")
    assert int(numpy(new.num_updates)) == 1
    remove_count(tmp_path / "new.weights.h5", tmp_path / "old.weights.h5")
    with zipfile.ZipFile(tmp_path / "new.keras") as file:
        file.extractall(tmp_path)
    remove_count(tmp_path / "model.weights.h5", tmp_path / "model.weights.h5")
    with zipfile.ZipFile(tmp_path / "old.keras", "w") as file:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            file.write(tmp_path / name, name)
    restored = norm_network()
    restored.load_weights(tmp_path / "old.weights.h5")
    for old in (keras.saving.load_model(tmp_path / "old.keras"), restored):
        np.testing.assert_array_equal(numpy(old([IMAGES, LABELS])), expected)
        old([1.0 + IMAGES, LABELS], training=True)
        mean = IMAGES.mean(axis=(0, 1, 2))
        received = numpy(old.get_layer("norm").moving_mean)
        np.testing.assert_allclose(received, mean + 0.001, rtol=1e-6)


def remove_count(path, target):
    """Copies a file of weights without the last weight of the norm."""
    with h5py.File(path) as file, h5py.File(target.with_suffix(".part"), "w") as other:
        for name in file:
            file.copy(name, other)
        del other["layers/conditional_batch_norm/vars/4"]
    target.with_suffix(".part").rename(target)


MASK = np.random.default_rng(1).random((6, 4, 5)) < 0.4


@pytest.mark.parametrize("axis, dtype", [(-1, "bool"), (1, "float32")])
def test_masked_moments_are_those_of_keras_batch_normalization(axis, dtype):
    ours = ConditionalBatchNorm(1, axis=axis, momentum=0.9, epsilon=1e-3)
    theirs = keras.layers.BatchNormalization(axis, momentum=0.9, epsilon=1e-3)
    ours.build(IMAGES.shape)
    ours.num_updates.assign(9)
    for mask, training in ((MASK, True), (~MASK, True), (np.ones_like(MASK), True), (MASK, False)):
        arguments = {"mask": ops.convert_to_tensor(mask.astype(dtype)), "training": training}
        received = numpy(ours(IMAGES, **arguments))
        np.testing.assert_allclose(received, numpy(theirs(IMAGES, **arguments)), atol=1e-4)
    for name in ("moving_mean", "moving_variance"):
        pair = (numpy(getattr(layer, name)) for layer in (ours, theirs))
        np.testing.assert_allclose(*pair, rtol=1e-5)


@pytest.mark.parametrize("num_classes", [1, 4])
def test_a_mask_that_comes_with_the_images(num_classes):
    """As `Masking` and `Embedding(mask_zero=True)` send it on."""
    steps = np.where(MASK[0, :, :, None], IMAGES[0], 0.0)
    inputs, labels = keras.Input((5, 3)), keras.Input((), dtype="int32")
    layer = ConditionalBatchNorm(num_classes)
    masked = keras.layers.Masking()(inputs)
    outputs = layer(masked, labels) if num_classes > 1 else layer(masked)
    model = keras.Model([inputs, labels], outputs)
    received = numpy(model([steps, np.arange(4)], training=True))
    chosen = steps[MASK[0]].astype("float64")
    np.testing.assert_allclose(numpy(layer.moving_mean), chosen.mean(0), rtol=1e-4)
    np.testing.assert_allclose(numpy(layer.moving_variance), chosen.var(0), rtol=1e-4)
    expected = (steps - chosen.mean(0)) / np.sqrt(chosen.var(0) + 1e-5)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def test_what_is_masked_may_be_nan_and_all_may_be_masked():
    layer, images = ConditionalBatchNorm(1), np.where(MASK[..., None], IMAGES, np.nan)
    outputs = numpy(layer(images, training=True, mask=ops.convert_to_tensor(MASK)))
    assert np.isfinite(outputs[MASK]).all()
    moved = layer.get_weights()
    assert all(np.isfinite(weight).all() for weight in moved)
    layer(IMAGES, training=True, mask=ops.zeros(MASK.shape, "bool"))
    for old, new in zip(moved, layer.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_a_mask_of_another_rank():
    for mask in (np.ones(6, "bool"), np.ones(IMAGES.shape, "bool")):
        with pytest.raises(
            ValueError, match="`mask` must have the shape of `images` without the la"
        ):
            ConditionalBatchNorm(1)(IMAGES, training=True, mask=ops.convert_to_tensor(mask))


@pytest.mark.any_backend
def test_mask_is_untouched():
    layer = ConditionalBatchNorm(4)
    mask = np.ones((6, 4), "bool")
    assert layer.supports_masking and layer.compute_mask(IMAGES, mask) is mask


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_integer_labels_of_any_width(dtype):
    layer = ConditionalBatchNorm(4)
    layer.build(IMAGES.shape)
    layer.gamma.assign(np.arange(12.0).reshape(4, 3))
    received = numpy(layer(IMAGES, LABELS.astype(dtype)))
    np.testing.assert_array_equal(received, numpy(layer(IMAGES, LABELS)))


def test_rank_two():
    assert tuple(ConditionalBatchNorm(4)(IMAGES[:, 0, 0], LABELS, training=True).shape) == (6, 3)


def test_symbolic_shapes_are_checked():
    layer = ConditionalBatchNorm(4)
    with pytest.raises(ValueError, match="`labels` must be integer"):
        layer(keras.Input((4, 4, 3)), keras.Input(()))
    with pytest.raises(ValueError, match="`labels` must have shape"):
        layer(keras.Input((4, 4, 3)), keras.Input((4,), dtype="int32"))
    with pytest.raises(ValueError, match="channels .* must be known"):
        ConditionalBatchNorm(4)(keras.Input((4, 4, None)), keras.Input((), dtype="int32"))


@pytest.mark.parametrize(
    "labels, message",
    [
        (None, "`labels` must be given, as num_classes=4. Received: labels=None"),
        (np.array([0, 1, 2, 3, 4, 0]), r"must lie in \[0, 4\).*Received: labels with 4"),
        (np.array([0, 1, 2, 3, -1, 0]), r"must lie in \[0, 4\).*Received: labels with -1"),
        (np.eye(4)[LABELS], "integer class ids, not probabilities or one-hot"),
        (LABELS[:, None], r"shape \(batch,\)"),
        (LABELS.astype("float32"), "integer"),
        (LABELS[:1], r"`labels` must have shape \(6,\).*Received: labels of shape \(1,\)"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        ConditionalBatchNorm(4)(IMAGES, labels)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_classes": 0}, "`num_classes` must be a positive integer. Received: num_classes=0"),
        ({"num_classes": 2.0}, "`num_classes` must be a positive integer. Received: num_classes=2"),
        ({"num_classes": 2, "momentum": 1.1}, "`momentum` must lie in .*Received: momentum=1.1"),
        ({"num_classes": 2, "epsilon": 0.0}, "`epsilon` must be positive. Received: epsilon=0.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConditionalBatchNorm(**arguments)


def test_synchronized_on_one_device_equals_unsynchronised():
    expected = numpy(ConditionalBatchNorm(4)(IMAGES, LABELS, training=True))
    layer = ConditionalBatchNorm(4, synchronized=True)
    received = numpy(layer(IMAGES, LABELS, training=True))
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("axis", [0, 4, -4, -5, 99])
def test_an_axis_that_the_images_do_not_have(axis):
    layer = ConditionalBatchNorm(2, axis=axis)
    with pytest.raises(ValueError, match=f"`axis` must be .*rank 4.*Received: axis={axis} for"):
        layer.build((2, 4, 4, 3))


@pytest.mark.any_backend
@pytest.mark.parametrize("axis", [1, 3, -1, -3])
def test_an_axis_that_they_have(axis):
    layer = ConditionalBatchNorm(2, axis=np.int64(axis))
    layer.build((2, 4, 5, 6))
    assert layer.gamma.shape == (2, (2, 4, 5, 6)[axis])


@pytest.mark.any_backend
def test_images_and_labels_in_one_list():
    layer = ConditionalBatchNorm(3)
    with pytest.raises(ValueError, match=r"two arguments: `layer\(images, labels\)`"):
        layer([np.ones((2, 4, 4, 3), "float32"), np.array([0, 1])])
