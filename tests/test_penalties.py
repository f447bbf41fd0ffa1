"""Penalties: values against formulas, finite differences and plain code, and in training."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from gradients import gradients_of
from keras import layers, ops

from keras_sagan import SAGAN
from keras_sagan.penalties import R1, R2, GradientPenalty, get

BACKEND = keras.backend.backend()
KINDS = (R1, R2, GradientPenalty)
with_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="This is TensorFlow's part.")
COMPILED = [{"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}]
if BACKEND != "tensorflow":
    COMPILED = [{"run_eagerly": True}, {}]

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.uniform(-1, 1, (2, 3, 2, 2, 1)).astype("float32")
MATRIX, VECTOR = RNG.normal(size=(4, 5)), RNG.normal(size=5)
POINTS = RNG.uniform(size=(3, 1)).astype("float32")
BETWEEN = REAL + POINTS[:, :, None, None] * (FAKE - REAL)


def smooth(images, labels=None):
    """The logits of a network with one hidden layer."""
    flat = ops.reshape(images, (-1, 4))
    hidden = ops.tanh(ops.matmul(flat, MATRIX.astype("float32")))
    return ops.matmul(hidden, VECTOR.astype("float32"))


def squared_norms(images):
    """Those of the gradient of `smooth`, by central differences in float64."""
    flat, step, columns = images.reshape(-1, 4).astype("float64"), 1e-6, []
    for shift in step * np.eye(4):
        ends = [np.tanh((flat + s * shift) @ MATRIX) @ VECTOR for s in (1, -1)]
        columns.append((ends[0] - ends[1]) / (2 * step))
    return np.sum(np.square(columns), axis=0)


def value(penalty, judge=smooth, real=REAL, fake=FAKE):
    pairs = [(ops.convert_to_tensor(x), None) for x in (real, fake)]
    draws = [lambda columns: ops.convert_to_tensor(POINTS)]
    draws = draws if isinstance(penalty, GradientPenalty) else []
    return float(ops.convert_to_numpy(penalty(judge, *pairs, *draws)))


# Values


@pytest.mark.parametrize(
    "kind, expected",
    [(R1, 3.0 * 25.0 / 2.0), (R2, 3.0 * 25.0 / 2.0), (GradientPenalty, 3.0 * 16.0)],
)
def test_of_a_linear_discriminator(kind, expected):
    """Its gradient is (3, 4, 0, 0) everywhere, of length 5."""
    slope = np.array([3.0, 4.0, 0.0, 0.0], "float32")
    linear = lambda x, labels: ops.matmul(ops.reshape(x, (-1, 4)), slope)  # noqa: E731
    assert value(kind(3.0), linear) == pytest.approx(expected, rel=1e-6)
    assert value(kind(0.0), linear) == 0.0


def test_against_finite_differences():
    found = [value(kind(10.0)) for kind in KINDS]
    real, fake, between = map(squared_norms, (REAL, FAKE, BETWEEN))
    expected = [5 * real.mean(), 5 * fake.mean(), 10 * np.mean((np.sqrt(between) - 1) ** 2)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_against_plain_code():
    found = [value(kind(10.0)) for kind in KINDS]
    lengths = []
    for images in (REAL, FAKE, BETWEEN):
        (gradient,) = gradients_of(lambda x: ops.sum(smooth(x)), images)
        lengths.append(np.linalg.norm(gradient.reshape(3, -1), axis=1))
    squares = np.square(lengths).mean(axis=1)
    expected = [5 * squares[0], 5 * squares[1], 10 * np.mean((lengths[2] - 1) ** 2)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_each_judges_its_images_with_their_labels():
    seen = []

    def judge(images, labels):
        seen.append((images, labels))
        return smooth(images)

    for penalty in (R1(1.0), R2(1.0)):
        penalty(judge, (ops.convert_to_tensor(REAL), "a"), (ops.convert_to_tensor(FAKE), "b"))
    pairs = (ops.convert_to_tensor(REAL), "a"), (ops.convert_to_tensor(FAKE), "b")
    GradientPenalty(1.0)(judge, *pairs, lambda columns: ops.convert_to_tensor(POINTS))
    assert [labels for _, labels in seen] == ["a", "b", "a"]


def test_a_gradient_of_zero_is_differentiable():
    """A root of 0 would have an infinite gradient."""

    def penalty(scale):
        judge = lambda x, labels: scale * ops.sum(ops.square(x), axis=(1, 2, 3))  # noqa: E731
        images = ops.zeros((2, 2, 2, 1)), None
        return GradientPenalty(10.0)(judge, images, images, lambda columns: ops.zeros((2, columns)))

    assert np.isfinite(gradients_of(penalty, np.float32(1.0))[0])


# In training


def linear_sagan(loss=None, penalty=None, d_steps=1, slope=0.5, **compiled):
    """A discriminator of one weight per pixel; the loss is 0, so that penalties alone train it."""
    generator = keras.Sequential([keras.Input((1,)), layers.Dense(4, "tanh", dtype="float32")])
    generator.add(layers.Reshape((2, 2, 1)))
    linear = layers.Dense(1, use_bias=False, name="linear")
    discriminator = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), linear])
    model = SAGAN(generator, discriminator, 1, seed=1, d_steps=d_steps)
    linear.kernel.assign(np.full((4, 1), slope))
    zero = lambda fake: 0.0 * ops.mean(fake), lambda real, fake: 0.0 * ops.mean(real)  # noqa: E731
    optimizers = [keras.optimizers.SGD(rate) for rate in (0.0, 0.1)]
    model.compile(*optimizers, loss=loss or zero, penalty=penalty, **compiled)
    return model


def slope(model):
    return ops.convert_to_numpy(model.discriminator.get_layer("linear").kernel)[:, 0]


@pytest.mark.parametrize("kind, factor", [(R1, 1.0), (R2, 1.0), (GradientPenalty, 0.0)])
@pytest.mark.parametrize("compiled", COMPILED)
def test_one_step_by_hand(kind, factor, compiled):
    """|w| = 1 at first, so that WGAN-GP leaves it; R1 and R2 multiply it by 1 - 0.1 * weight."""
    model = linear_sagan(penalty=kind(3.0), **compiled)
    logs = model.train_on_batch(REAL, return_dict=True)
    assert logs["d_loss"] == pytest.approx(1.5 * factor, abs=1e-6)
    np.testing.assert_allclose(slope(model), 0.5 * (1.0 - 0.3 * factor), rtol=1e-5)


def test_several_penalties():
    both = [R1(1.0) + R2(2.0), [R1(1.0), R2(2.0)], (lambda *x: R1(1.0)(*x)) + R2(2.0)]
    slopes = []
    for penalty in both:
        model = linear_sagan(penalty=penalty, run_eagerly=True)
        model.train_on_batch(REAL)
        slopes.append(slope(model))
    np.testing.assert_allclose(slopes, np.full((3, 4), 0.5 * 0.7), rtol=1e-5)


def test_draws_are_those_of_the_seed_and_the_step():
    def draws(steps):
        found = []

        def penalty(judge, real, fake, uniform):
            found.append(ops.convert_to_numpy(uniform(2)))
            return ops.mean(judge(*real))

        model = linear_sagan(penalty=[penalty, penalty], d_steps=2, run_eagerly=True)
        for _ in range(steps):
            model.train_on_batch(REAL)
        return np.stack(found)

    found = draws(2)
    assert found.shape == (8, 3, 2) and len(np.unique(found)) == found.size
    assert 0.0 <= found.min() and found.max() < 1.0
    np.testing.assert_array_equal(found[:4], draws(1))


def test_squares_beyond_float16():
    """The square of the gradient, 360,000, would overflow."""
    keras.config.set_dtype_policy("mixed_float16")
    model = linear_sagan(penalty=R1(2e-6), slope=300.0, run_eagerly=True)
    before = slope(model)
    logs = model.train_on_batch(REAL, return_dict=True)
    assert logs["d_loss"] == pytest.approx(1e-6 * 360_000.0, rel=1e-3)
    assert np.isfinite(slope(model)).all() and np.all(slope(model) <= before)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", COMPILED[BACKEND == "jax" :])  # Eager steps take long there.
def test_a_few_steps_in_mixed_float16(compiled):
    keras.config.set_dtype_policy("mixed_float16")
    model = tiny.build_sagan(smooth=True)  # XLA lacks a second gradient of max pooling there.
    penalty = R1(10.0) + R2(10.0) + GradientPenalty(10.0)
    # Keras's initial scale of 2**15 takes steps to come down, with and without a penalty.
    sgd, scaled = keras.optimizers.SGD, keras.optimizers.LossScaleOptimizer
    optimizers = [scaled(sgd(1e-3), initial_scale=64.0) for _ in range(2)]
    model.compile(*optimizers, loss="relativistic", penalty=penalty, **compiled)
    images, labels = tiny.images(4), tiny.labels(4)
    before = ops.convert_to_numpy(model.discriminator.trainable_variables[0]).copy()
    logs = [model.train_on_batch(images, labels, return_dict=True) for _ in range(3)]
    assert all(np.isfinite(list(x.values())).all() for x in logs)
    after = ops.convert_to_numpy(model.discriminator.trainable_variables[0])
    assert np.isfinite(after).all() and not np.array_equal(before, after)


@pytest.mark.slow
def test_compiled_steps_equal_eager_ones():
    """Through spectral norm, attention and labels, with drawn points."""
    models = []
    for compiled in COMPILED:
        keras.utils.set_random_seed(0)
        model = tiny.build_sagan(smooth=True, d_steps=2)
        penalty = R1(2.0) + R2(2.0) + GradientPenalty(2.0)
        model.compile(**tiny.sgd(0.001), loss="relativistic_average", penalty=penalty, **compiled)
        for step in range(3):
            model.train_on_batch(tiny.images(4, step), tiny.labels(4, step))
        models.append(tiny.weights(model))
    for weights in models[1:]:
        for expected, found in zip(models[0], weights, strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.slow
@with_tensorflow
def test_two_replicas_equal_one():
    import tensorflow as tf
    from replicas import two_replicas

    slopes = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        with strategy.scope():
            penalty = R1(1.0) + GradientPenalty(1.0)
            keras.utils.set_random_seed(0)
            model = linear_sagan(loss="relativistic", penalty=penalty, slope=0.8)
        dataset = tf.data.Dataset.from_tensors(np.concatenate([REAL, FAKE[:1]])).repeat(4)
        model.fit(dataset, verbose=0)
        slopes.append(slope(model))
    np.testing.assert_allclose(*slopes, rtol=1e-5)
    assert np.abs(slopes[0] - 0.8).max() > 0.05


# Accuracy under relativistic losses


@pytest.mark.parametrize("name", ["relativistic", "relativistic_average"])
def test_accuracy_compares_with_the_other_kind(name):
    """Bright real images have high logits, all far above any fixed threshold."""
    model = linear_sagan(loss=name, slope=1.0, run_eagerly=True)
    bright = np.full((4, 2, 2, 1), 1.0, "float32")
    logs = model.test_on_batch(bright, return_dict=True)
    assert logs["real_accuracy"] == 1.0 and logs["fake_accuracy"] == 1.0
    logs = model.test_on_batch(-bright, return_dict=True)
    assert logs["real_accuracy"] == 0.0 and logs["fake_accuracy"] == 0.0


# Configuration


@pytest.mark.parametrize("kind", KINDS)
def test_configuration(kind):
    penalty = kind(np.float32(0.5))
    assert penalty.get_config() == {"weight": 0.5}
    config = keras.saving.serialize_keras_object(penalty)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is kind and again.get_config() == penalty.get_config()
    assert repr(again) == f"{kind.__name__}(weight=0.5)"


@pytest.mark.parametrize("penalty", [R1(5.0), R1(5.0) + GradientPenalty(1.0)])
def test_a_saved_model_keeps_its_penalty(penalty, tmp_path):
    model = linear_sagan("hinge", penalty)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert list(map(repr, get(loaded.penalty))) == list(map(repr, get(penalty)))
    model.train_on_batch(REAL)
    loaded.train_on_batch(REAL)
    np.testing.assert_allclose(slope(model), slope(loaded), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments(kind):
    for weight in (-1.0, "1", None, float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match="`weight` must .*Received: weight="):
            kind(weight)


@pytest.mark.parametrize("penalty", [3, "R1", [], [R1(1.0), 2], R1, [None], {}])
def test_what_is_no_penalty(penalty):
    with pytest.raises(ValueError, match="`penalty` must be a function.*Received: penalty="):
        get(penalty)
    with pytest.raises(ValueError, match="`penalty` must be a function.*Received: penalty="):
        linear_sagan(penalty=penalty)


def test_adding_what_is_no_penalty():
    for add in (lambda: R1(1.0) + 2, lambda: 2 + R1(1.0)):
        with pytest.raises(ValueError, match="`penalty` must be a function"):
            add()
