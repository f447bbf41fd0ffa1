"""Penalties: values against formulas, finite differences and plain code, and in training."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from gradients import gradients_of
from keras import layers, ops

from keras_sagan import SAGAN
from keras_sagan.callbacks import TrainingCheckpoint
from keras_sagan.data import make_dataset
from keras_sagan.layers import DifferentiableAugmentation
from keras_sagan.penalties import (
    R1,
    R2,
    ConsistencyRegularization,
    GradientPenalty,
    LeCam,
    Penalty,
    get,
)
from keras_sagan.training.step import draw_noise, draw_uniform

BACKEND = keras.backend.backend()
KINDS = (R1, R2, GradientPenalty)
with_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="This is TensorFlow's part.")
# PyTorch runs its steps eagerly in any case.
COMPILED = [{"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}]
COMPILED = {"tensorflow": COMPILED, "jax": [COMPILED[0], {}], "torch": [{}]}[BACKEND]

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


def linear_sagan(loss=None, penalty=None, d_steps=1, slope=0.5, kind=SAGAN, **compiled):
    """A discriminator of one weight per pixel; the loss is 0, so that penalties alone train it."""
    generator = keras.Sequential([keras.Input((1,)), layers.Dense(4, "tanh", dtype="float32")])
    generator.add(layers.Reshape((2, 2, 1)))
    linear = layers.Dense(1, use_bias=False, name="linear")
    discriminator = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), linear])
    model = kind(generator, discriminator, 1, seed=1, d_steps=d_steps)
    linear.kernel.assign(np.full((4, 1), slope))
    zero = lambda fake: 0.0 * ops.mean(fake), lambda real, fake: 0.0 * ops.mean(real)  # noqa: E731
    optimizers = [keras.optimizers.SGD(rate) for rate in (0.0, 0.1)]
    model.compile(*optimizers, loss=loss or zero, penalty=penalty, **compiled)
    return model


def slope(model):
    return ops.convert_to_numpy(model.discriminator.get_layer("linear").kernel)[:, 0]


@pytest.mark.parametrize(
    "kind, factor, compiled",
    [
        *((R1, 1.0, compiled) for compiled in COMPILED),
        *((R2, 1.0, COMPILED[0]), (GradientPenalty, 0.0, COMPILED[0])),
    ],
)
def test_one_step_by_hand(kind, factor, compiled):
    """|w| = 1 at first, so that WGAN-GP leaves it; R1 and R2 multiply it by 1 - 0.1 * weight."""
    model = linear_sagan(penalty=kind(3.0), **compiled)
    logs = model.train_on_batch(REAL, return_dict=True)
    assert logs["d_loss"] == pytest.approx(1.5 * factor, abs=1e-6)
    np.testing.assert_allclose(slope(model), 0.5 * (1.0 - 0.3 * factor), rtol=1e-5)


@pytest.mark.parametrize("compiled", COMPILED)
def test_lazy_penalties(compiled):
    """With `d_steps=2`, each third update of D is the first, the fourth, and so on."""
    model = linear_sagan(penalty=R1(1.0, every=3), d_steps=2, **compiled)
    expected = 0.5
    for step in range(4):
        before = expected
        is_due = [(2 * step + index) % 3 == 0 for index in range(2)]
        expected *= (1.0 - 0.1 * 3.0) ** sum(is_due)
        logs = model.train_on_batch(REAL, return_dict=True)
        np.testing.assert_allclose(slope(model), expected, rtol=1e-5)
        value = 3.0 * 0.5 * 4.0 * before**2 if any(is_due) else 0.0
        model.reset_metrics()
        assert logs["d_loss"] == pytest.approx(value / 2.0, rel=1e-5)  # The mean of two updates.


@pytest.mark.parametrize("compiled", COMPILED[:2])
def test_lazy_penalties_if_a_train_step_takes_two(compiled):
    class Twice(SAGAN):
        def train_step(self, data):
            super().train_step(data)
            return super().train_step(data)

    model = linear_sagan(penalty=R1(1.0, every=3), kind=Twice, **compiled)
    for expected in (0.5 * 0.7, 0.5 * 0.7**2, 0.5 * 0.7**2):
        model.train_on_batch(REAL)
        np.testing.assert_allclose(slope(model), expected, rtol=1e-5)


CALLS = []


class Counted(Penalty):
    """Notes each time that it is computed, not only traced."""

    def __call__(self, judge, real, fake):
        assert judge.logits is None
        logits = judge(*real)
        if BACKEND == "jax":
            import jax

            jax.debug.callback(lambda: CALLS.append(None), ordered=False)
        elif BACKEND == "tensorflow":
            import tensorflow as tf

            tf.py_function(lambda: CALLS.append(None), [], [])
        else:
            CALLS.append(None)
        return ops.mean(logits)


@pytest.mark.parametrize("compiled", COMPILED[:2])
def test_lazy_penalties_are_not_computed_in_between(compiled):
    model = linear_sagan(penalty=Counted(1.0, every=4), **compiled)
    CALLS.clear()
    for _ in range(9):
        model.train_on_batch(REAL)
    assert len(CALLS) == 3


def test_a_due_penalty_counts_as_one_of_each_update():
    """With the state of spectral norms that the loss moves, and a variable that isn't used."""
    weights = []
    for every in (1, 5):
        keras.utils.set_random_seed(0)
        model = tiny.build_small_sagan()
        penalty = R1(2.0 / every, every=every) + GradientPenalty(3.0 / every, every=every)
        model.compile(**tiny.sgd(0.01), penalty=penalty, run_eagerly=BACKEND != "jax")
        model.train_on_batch(tiny.images(4), tiny.labels(4))
        weights.append(tiny.weights(model))
    for expected, found in zip(*weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@with_tensorflow
def test_lazy_penalties_of_large_maps():
    """In a step of over 200 MB, TensorFlow's memory optimizer changes the sums of gradients."""
    generator = [keras.Input((1,)), layers.Dense(2**16, "tanh"), layers.Reshape((64, 64, 16))]
    images, x = 2 * [keras.Input((64, 64, 16))]
    for _ in range(3):
        x = layers.Add()([x, layers.Dense(16, "tanh")(x), layers.Dense(16, "tanh")(x)])
    logits = layers.Dense(1)(layers.GlobalAveragePooling2D()(x))
    model = SAGAN(keras.Sequential(generator), keras.Model(images, logits), 1)
    model.compile(penalty=R1(1.0, every=3), jit_compile=False)
    for _ in range(3):
        real = RNG.uniform(-1, 1, (64, 64, 64, 16)).astype("float32")
        logs = model.train_on_batch(real, return_dict=True)
    assert np.isfinite(list(logs.values())).all()


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch takes one step per execution.")
@pytest.mark.parametrize("compiled", COMPILED[1:])
def test_lazy_penalties_in_several_steps_per_execution(compiled):
    model = linear_sagan(penalty=R1(1.0, every=2), steps_per_execution=3, **compiled)
    model.fit(np.concatenate([REAL] * 6), batch_size=3, verbose=0)
    np.testing.assert_allclose(slope(model), 0.5 * 0.8**3, rtol=1e-5)


@pytest.mark.any_backend
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


def smooth_sagan():
    """With every layer of SAGAN's discriminator, without kinks."""
    networks = tiny.build_small_sagan().generator, tiny.build_discriminator(smooth=True)
    return SAGAN(*networks, tiny.LATENT_DIM, tiny.CLASSES, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", COMPILED[-2 if BACKEND == "tensorflow" else -1 :])
def test_a_few_steps_in_mixed_float16(compiled):
    keras.config.set_dtype_policy("mixed_float16")
    is_small = compiled.get("jit_compile", BACKEND == "jax")  # XLA would take long.
    model = tiny.build_small_sagan() if is_small else smooth_sagan()
    penalty = R1(10.0, every=2) + GradientPenalty(10.0)
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
@with_tensorflow
def test_a_thousand_steps_in_mixed_float16():
    """With Keras's initial scale of 2**15, which falls only in the first steps."""
    keras.config.set_dtype_policy("mixed_float16")
    keras.utils.set_random_seed(0)
    model = smooth_sagan()
    model.compile(loss="relativistic", penalty=R1(1.0, every=4) + R2(1.0) + LeCam(0.1))
    images = [(127.5 * tiny.images(8, seed) + 127.5).astype("uint8") for seed in range(4)]
    dataset = make_dataset(np.concatenate(images), np.tile(tiny.labels(8), 4), 8, seed=0)
    logs = model.fit(dataset, epochs=4, steps_per_epoch=250, verbose=0).history
    assert all(np.isfinite(values).all() for values in logs.values())
    assert all(np.isfinite(x).all() for x in tiny.weights(model))
    for optimizer in (model.g_optimizer, model.d_optimizer):
        assert int(ops.convert_to_numpy(optimizer.inner_optimizer.iterations)) >= 990


@pytest.mark.slow
@with_tensorflow
def test_compiled_steps_equal_eager_ones():
    """Through spectral norm, labels and attention, with drawn points."""
    models = []
    for compiled in COMPILED[::2]:
        keras.utils.set_random_seed(0)
        model = smooth_sagan()
        consistency = ConsistencyRegularization(DifferentiableAugmentation("color"), 0.1, 0.2, 2)
        penalty = R1(2.0, every=2) + GradientPenalty(2.0) + LeCam(1e-3) + consistency
        model.compile(**tiny.sgd(0.001), loss="relativistic_average", penalty=penalty, **compiled)
        for step in range(2):
            model.train_on_batch(tiny.images(4, step), tiny.labels(4, step))
        models.append(tiny.weights(model))
    for expected, found in zip(*models, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.slow
@with_tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_two_replicas_equal_one(jit_compile):
    import tensorflow as tf
    from replicas import two_replicas

    slopes = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        with strategy.scope():
            penalty = [LeCam(0.3, every=2), R1(1.0, every=2)]
            if not jit_compile:  # XLA would take long.
                penalty += [GradientPenalty(1.0, every=3)]
            penalty += [ConsistencyRegularization(DifferentiableAugmentation("color"), 0.1, 0.2)]
            keras.utils.set_random_seed(0)
            slots = {"loss": "relativistic", "penalty": penalty}
            model = linear_sagan(**slots, d_steps=2, slope=0.8, jit_compile=jit_compile)
        dataset = tf.data.Dataset.from_tensors(np.concatenate([REAL, FAKE[:1]])).repeat(4)
        model.fit(dataset, verbose=0)
        slopes.append(slope(model))
    np.testing.assert_allclose(*slopes, rtol=1e-5)
    assert np.abs(slopes[0] - 0.8).max() > 0.05


# Penalties of the logits


def slots_of(model):
    """The variables that `compile` adds to a model, by name."""
    return {x.name: float(ops.convert_to_numpy(x)) for x in model.variables if "slots" in x.path}


def logits_of(images, weights):
    return images.reshape(len(images), -1) @ weights


def fakes_of(model, index=0, count=3):
    latents, _ = draw_noise(model, index, count)
    return ops.convert_to_numpy(model.generator(latents))


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("compiled", COMPILED)
def test_lecam_by_hand(compiled, every):
    """Four updates of a linear discriminator by the penalty alone, in numpy."""
    model = linear_sagan(penalty=LeCam(0.7, decay=0.8, every=every), d_steps=2, **compiled)
    weights, averages = np.full(4, 0.5), {"real": [], "fake": []}
    for _ in range(2):
        losses, fakes = [], [fakes_of(model, index) for index in range(2)]
        for index in range(2):
            images = {"real": REAL.reshape(3, 4), "fake": fakes[index].reshape(3, 4)}
            logits = {name: x @ weights for name, x in images.items()}
            loss, gradient = 0.0, np.zeros(4)
            for name, other in (("real", "fake"), ("fake", "real")):
                past = averages[other]
                if not past:
                    continue
                shares = 0.8 ** np.arange(len(past))[::-1]
                difference = logits[name] - np.average(past, weights=shares)
                weight = 0.7 * every * (index % every == 0)  # Each step has two updates.
                loss += weight * np.mean(difference**2)
                gradient += weight * 2.0 * np.mean(difference[:, None] * images[name], axis=0)
            for name, x in logits.items():
                averages[name].append(x.mean())
            losses.append(loss)
            weights = weights - 0.1 * gradient
        logs = model.train_on_batch(REAL, return_dict=True)
        model.reset_metrics()
        assert logs["d_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        np.testing.assert_allclose(slope(model), weights, rtol=1e-5)
    assert slots_of(model)["average_of_1"] == pytest.approx(1.0 - 0.8**4, rel=1e-6)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("compiled", COMPILED)
def test_consistency_regularization_by_hand(compiled, every):
    """With brightness, a linear discriminator is as far off as the brightness times its slopes."""

    def brighter(images, uniform):
        return images + uniform(1)[:, :, None, None]

    penalty = ConsistencyRegularization(brighter, 2.0, 3.0, every)
    model = linear_sagan(penalty=penalty, **compiled)
    draw = draw_uniform(model, 0, 4, 3)
    added = [ops.convert_to_numpy(draw(1))[:, 0] for _ in range(2)]
    squares = [np.mean(x**2) for x in added]
    factor = every * (2.0 * squares[0] + 3.0 * squares[1])
    logs = model.train_on_batch(REAL, return_dict=True)
    assert logs["d_loss"] == pytest.approx(factor * 2.0**2, rel=1e-5)
    np.testing.assert_allclose(slope(model), 0.5 - 0.1 * factor * 2.0 * 2.0, rtol=1e-5)


def test_consistency_regularization_of_a_network():
    """Against numpy, through `smooth`."""
    layer, draws = DifferentiableAugmentation("color"), RNG.random((2, 3, 3), "float32")
    given = iter(draws)

    def judge(images, labels):
        return smooth(images)

    judge.logits = smooth(REAL), smooth(FAKE)
    pairs = [(ops.convert_to_tensor(x), None) for x in (REAL, FAKE)]
    penalty = ConsistencyRegularization(layer, 2.0, 3.0)
    found = penalty(judge, *pairs, lambda columns: ops.convert_to_tensor(next(given)))
    expected = 0.0
    for weight, images, draw in zip((2.0, 3.0), (REAL, FAKE), draws):
        brightness, saturation, contrast = (x[:, None, None, None] for x in draw.T.astype(float))
        changed = images.astype(float) + brightness - 0.5  # One channel has no saturation.
        mean = changed.mean(axis=(1, 2, 3), keepdims=True)
        changed = mean + (changed - mean) * (0.5 + contrast)
        logits = [np.tanh(x.reshape(3, 4) @ MATRIX) @ VECTOR for x in (images, changed)]
        expected += weight * np.mean((logits[0] - logits[1]) ** 2)
    assert float(ops.convert_to_numpy(found)) == pytest.approx(expected, rel=1e-5)


def test_the_state_of_penalties_is_saved_and_resumed(tmp_path):
    model = linear_sagan("hinge", LeCam(0.5) + R1(1.0, every=3))
    for _ in range(2):
        model.train_on_batch(REAL)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "all.weights.h5")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert slots_of(again) == slots_of(model) and slots_of(model)["average_of_1"] > 0.0
    for each in (model, again):
        each.train_on_batch(REAL)
        each.train_on_batch(REAL)
    np.testing.assert_array_equal(slope(model), slope(again))
    assert slots_of(again) == slots_of(model)
    # Models that aren't compiled, or have no such penalty, have no use for it; and none is needed.
    assert not slots_of(keras.saving.load_model(tmp_path / "model.keras", compile=False))
    plain = linear_sagan("hinge")
    plain.load_weights(tmp_path / "all.weights.h5")
    plain.save_weights(tmp_path / "plain.weights.h5")
    model.load_weights(tmp_path / "plain.weights.h5")
    assert slots_of(model) == slots_of(again)


@pytest.mark.any_backend
def test_each_compile_makes_the_state_anew():
    penalty = LeCam(0.5)
    model, other = linear_sagan("hinge", penalty), linear_sagan("hinge", penalty)
    model.train_on_batch(REAL)
    before = [x.path for x in model.variables]
    assert slots_of(model)["average_of_1"] > 0.0 == slots_of(other)["average_of_1"]
    model.compile(**tiny.sgd(), penalty=penalty)
    assert slots_of(model)["average_of_1"] == 0.0 and [x.path for x in model.variables] == before
    model.compile(**tiny.sgd())
    assert not slots_of(model)


@pytest.mark.slow
def test_a_checkpoint_keeps_the_state(tmp_path):
    """A run of four steps that is resumed after two, and a model that only generates."""

    def fit(steps, checkpoint):
        keras.utils.set_random_seed(0)
        model = linear_sagan("hinge", LeCam(0.5) + R1(1.0, every=3))
        callbacks = [TrainingCheckpoint(tmp_path / checkpoint, monitor="d_loss")]
        images = np.round(127.5 * (1.0 + np.concatenate([REAL] * 2))).astype("uint8")
        data = make_dataset(images, batch_size=3, seed=1)
        model.fit(data, epochs=steps, steps_per_epoch=1, callbacks=callbacks, verbose=0)
        return model

    whole = fit(4, "whole")
    fit(2, "parts")
    parts = fit(4, "parts")
    np.testing.assert_array_equal(slope(whole), slope(parts))
    assert slots_of(whole) == slots_of(parts)
    alone = SAGAN(whole.generator, whole.discriminator, 1, seed=1)
    assert TrainingCheckpoint(tmp_path / "whole").restore_best(alone) > 0


@pytest.mark.any_backend
def test_configuration_of_penalties_of_the_logits():
    layer = DifferentiableAugmentation("cutout", flip=True)
    for penalty in (LeCam(0.5, 0.25, every=2), ConsistencyRegularization(layer, 1.0, 2.0, 3)):
        config = keras.saving.serialize_keras_object(penalty)
        again = keras.saving.deserialize_keras_object(config)
        assert type(again) is type(penalty) and again.get_config() == penalty.get_config()
    assert repr(LeCam(0.5)) == "LeCam(weight=0.5, every=1, decay=0.99)"


@pytest.mark.any_backend
def test_bad_arguments_of_penalties_of_the_logits():
    for weight in (-1.0, "1", None, float("nan"), True):
        with pytest.raises(ValueError, match="`weight` must .*Received: weight="):
            LeCam(weight)
        for name in ("real_weight", "fake_weight"):
            with pytest.raises(ValueError, match=f"`{name}` must .*Received: {name}="):
                ConsistencyRegularization(lambda x, uniform: x, **{name: weight})
    for decay in (-0.1, 1.0, None, "0.9"):
        with pytest.raises(ValueError, match="`decay` must .*Received: decay="):
            LeCam(1.0, decay)
    for make in (lambda **x: LeCam(1.0, **x), lambda **x: ConsistencyRegularization(larger, **x)):
        with pytest.raises(ValueError, match="`every` must .*Received: every=0"):
            make(every=0)
    with pytest.raises(ValueError, match="`augmentation` must be a function"):
        ConsistencyRegularization("flip")
    with pytest.raises(ValueError, match="`augmentation` of a penalty must have a fixed"):
        ConsistencyRegularization(DifferentiableAugmentation(probability="adaptive"))


def larger(images, uniform):
    return ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))


def flat(images, uniform):
    return ops.reshape(images, (3, 4))


@pytest.mark.parametrize(
    "changed, compiled", [(flat, COMPILED[0]), *((larger, x) for x in COMPILED[-2:])]
)
def test_an_augmentation_that_changes_the_shape_is_refused(changed, compiled):
    message = r"`augmentation` must return images of the shape.*from images of shape \(\w+, 2, 2, 1"
    for slots in ({"augmentation": changed}, {"penalty": ConsistencyRegularization(changed)}):
        model = linear_sagan("hinge", slots.get("penalty"), **compiled)
        model.compile(**tiny.sgd(), **slots, **compiled)
        with pytest.raises(ValueError, match=message):
            model.train_on_batch(REAL)


# Accuracy under relativistic losses


@pytest.mark.any_backend
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


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", KINDS)
def test_configuration(kind):
    penalty = kind(np.float32(0.5), every=np.int64(4))
    assert penalty.get_config() == {"weight": 0.5, "every": 4}
    config = keras.saving.serialize_keras_object(penalty)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is kind and again.get_config() == penalty.get_config()
    assert repr(again) == f"{kind.__name__}(weight=0.5, every=4)"


@pytest.mark.any_backend
@pytest.mark.parametrize("penalty", [R1(5.0), R1(5.0, every=2) + GradientPenalty(1.0)])
def test_a_saved_model_keeps_its_penalty(penalty, tmp_path):
    model = linear_sagan("hinge", penalty)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert list(map(repr, get(loaded.penalty))) == list(map(repr, get(penalty)))
    model.train_on_batch(REAL)
    loaded.train_on_batch(REAL)
    np.testing.assert_allclose(slope(model), slope(loaded), rtol=1e-6)


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments(kind):
    for weight in (-1.0, "1", None, float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match="`weight` must .*Received: weight="):
            kind(weight)
    for every in (0, -2, 1.5, "2", None, True, 2**31):
        with pytest.raises(ValueError, match="`every` must .*Received: every="):
            kind(1.0, every=every)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "penalty", [3, "R1", [], [R1(1.0), 2], R1, [None], {}, lambda judge, real: 0.0]
)
def test_what_is_no_penalty(penalty):
    with pytest.raises(ValueError, match="`penalty` must be a function.*Received: penalty="):
        get(penalty)
    with pytest.raises(ValueError, match="`penalty` must be a function.*Received: penalty="):
        linear_sagan(penalty=penalty)


@pytest.mark.any_backend
def test_adding_what_is_no_penalty():
    for add in (lambda: R1(1.0) + 2, lambda: 2 + R1(1.0)):
        with pytest.raises(ValueError, match="`penalty` must be a function"):
            add()
