"""The probability of `DifferentiableAugmentation`, fixed and adaptive, against plain numpy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sagan import SAGAN
from keras_sagan.layers import DifferentiableAugmentation
from keras_sagan.losses import AdversarialLoss, hinge_discriminator_loss, hinge_generator_loss
from keras_sagan.training.step import augment

BACKEND = keras.backend.backend()
# PyTorch runs its steps eagerly in any case.
COMPILED = [{"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True}]
COMPILED = {"tensorflow": COMPILED, "jax": [COMPILED[0], {}], "torch": [{}]}[BACKEND]
IMAGES = np.random.default_rng(0).uniform(0.1, 1, (400, 4, 4, 1)).astype("float32")


def adaptive(target=0.6, speed=100):
    return DifferentiableAugmentation("cutout", probability="adaptive", target=target, speed=speed)


def mean_sagan(augmentation, loss="hinge", rate=0.0, **compiled):
    """The logit of an image is its mean; the generator gives images of -0.5."""
    keras.utils.set_random_seed(1)
    generator = keras.Sequential([keras.Input((1,)), layers.Dense(16, kernel_initializer="zeros")])
    generator.add(layers.Reshape((4, 4, 1)))
    generator.layers[0].bias.assign(np.full(16, -0.5))
    discriminator = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten()])
    discriminator.add(layers.Dense(1, use_bias=False, dtype="float32"))
    discriminator.layers[-1].kernel.assign(np.full((16, 1), 1.0 / 16.0))
    compiled = {"d_steps": 1, **compiled}
    model = SAGAN(generator, discriminator, 1, seed=1, d_steps=compiled.pop("d_steps"))
    optimizers = [keras.optimizers.SGD(rate) for _ in range(2)]
    model.compile(*optimizers, loss=loss, augmentation=augmentation, **compiled)
    return model


def probability(model):
    (found,) = [x for x in model.variables if x.name == "augmentation_probability"]
    return float(ops.convert_to_numpy(found))


def numpy(x):
    return ops.convert_to_numpy(x)


# A fixed probability


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_images_that_are_changed(share):
    layer = DifferentiableAugmentation("color", probability=share)
    is_changed = np.any(numpy(layer(IMAGES, training=True)) != IMAGES, axis=(1, 2, 3))
    assert is_changed.mean() == pytest.approx(share, abs=0.08)
    if share == 0.0:
        assert not is_changed.any()


def test_the_changes_are_those_of_the_same_draws():
    """The draws that choose the images come last."""
    draws = np.random.default_rng(1).random((2, 400, 1), "float32")

    def outputs(share):
        remaining = iter(draws)
        layer = DifferentiableAugmentation("", flip=True, probability=share)
        return numpy(layer(IMAGES, lambda columns: ops.convert_to_tensor(next(remaining))))

    expected = np.where(draws[1][:, :, None, None] < 0.25, outputs(1.0), IMAGES)
    np.testing.assert_array_equal(outputs(0.25), expected)


# An adaptive one


def mixed(count, share):
    """Images of which a share has a logit above 0."""
    signs = np.where(np.arange(count) < round(share * count), 1.0, -1.0)
    return (0.5 * signs[:, None, None, None] * np.ones((1, 4, 4, 1))).astype("float32")


@pytest.mark.parametrize("compiled", COMPILED[BACKEND == "jax" :])  # Eager steps take long there.
def test_it_moves_by_the_sign_of_the_logits_once_in_four_updates(compiled):
    """With 10 images in a batch and a speed of 400 images, by 0.1."""
    model = mean_sagan(adaptive(speed=400), **compiled)
    found = []
    for share in [0.7] * 4 + [0.9] * 4 + [0.9, 0.7, 0.7, 0.9] + [0.7] * 4:
        model.train_on_batch(mixed(10, share))
        found.append(probability(model))
    # The mean signs are 0.4, 0.8, 0.6 and 0.4: a mean of 0.6 is on the target.
    expected = [0.0, 0.1, 0.1, 0.0]
    before = [0.0, *expected[:-1]]
    values = [x for pair in zip(before, expected) for x in [pair[0]] * 3 + [pair[1]]]
    np.testing.assert_allclose(found, values, atol=1e-6)


def test_two_updates_in_a_step_both_count():
    model = mean_sagan(adaptive(speed=400), d_steps=2)
    for expected in (0.0, 0.1, 0.1, 0.2):
        model.train_on_batch(mixed(10, 1.0))
        assert probability(model) == pytest.approx(expected)


def test_an_image_counts_once_if_it_has_a_map_of_logits():
    model = mean_sagan(adaptive(speed=400))
    patches = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(1, 1)])
    patches.layers[0].kernel.assign(np.ones((1, 1, 1, 1)))
    model = SAGAN(model.generator, patches, 1, seed=1, d_steps=1)
    optimizers = [keras.optimizers.SGD(0.0) for _ in range(2)]
    model.compile(*optimizers, augmentation=adaptive(speed=400))
    for expected in [0.0] * 3 + [0.1]:
        model.train_on_batch(mixed(10, 1.0))
        assert probability(model) == pytest.approx(expected)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "loss, logit, rises",
    [
        ("hinge", 0.1, True),
        ("hinge", -0.1, False),
        ("least_squares", 0.4, False),
        ("least_squares", 0.6, True),
        ("relativistic", -0.4, True),
        ("relativistic_average", -0.6, False),
    ],
)
def test_the_threshold_is_that_of_the_loss(loss, logit, rises):
    """Fake logits are -0.5."""
    model = mean_sagan(adaptive(), loss=loss, run_eagerly=True)
    for _ in range(4):
        model.train_on_batch(np.full((5, 4, 4, 1), logit, "float32"))
    assert probability(model) == pytest.approx(0.2 if rises else 0.0)


def test_it_is_in_the_logs_and_changes_that_share_of_images():
    model = mean_sagan(adaptive(speed=100), jit_compile=BACKEND == "jax")
    history = model.fit(IMAGES[:60], epochs=3, batch_size=15, shuffle=False, verbose=0).history
    # Cut images still have positive means.
    assert history["augmentation_probability"] == pytest.approx([0.6, 1.0, 1.0])
    model.fit(-IMAGES[:60], batch_size=15, verbose=0)
    assert probability(model) == pytest.approx(0.4)
    ones = ops.convert_to_tensor(np.ones((400, 4, 4, 1), "float32"))
    for index in range(2):
        images, _ = augment(model, index, 0, (ones, None))
        share = np.any(numpy(images) != 1.0, axis=(1, 2, 3)).mean()
        assert share == pytest.approx(0.4, abs=0.1)
    plain = mean_sagan(None, run_eagerly=BACKEND != "jax")
    assert "augmentation_probability" not in plain.fit(IMAGES[:32], verbose=0).history


def test_a_saved_run_resumes_between_two_changes(tmp_path):
    model = mean_sagan(adaptive(), rate=0.1)
    for _ in range(6):
        model.train_on_batch(IMAGES[:8])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert probability(again) == probability(model) > 0.0
    for each in (model, again):
        for _ in range(3):
            each.train_on_batch(IMAGES[:8])
    assert probability(again) == probability(model)
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    assert again.augmentation.get_config() == model.augmentation.get_config()


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="This is TensorFlow's part.")
def test_two_replicas_have_one_probability_and_distinct_draws():
    """The mean sign of one replica is below the target, that of the other one above."""
    import tensorflow as tf
    from replicas import two_replicas

    found = []
    images = np.concatenate([mixed(6, 0.5), mixed(6, 1.0)])
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        with strategy.scope():
            layer = adaptive(target=0.4, speed=40)
            model = mean_sagan(layer, "relativistic", rate=0.01, jit_compile=False)
        data = tf.data.Dataset.from_tensors(images).repeat(8)
        history = model.fit(data, epochs=2, steps_per_epoch=4, verbose=0).history
        variables = [numpy(x) for x in model.variables]
        found.append((history["augmentation_probability"], variables))
        for variable in model.variables:
            copies = getattr(variable.value, "values", [variable.value])
            np.testing.assert_array_equal(copies[0], copies[-1])
    assert found[0][0][0] > 0.0 and found[1][0] == pytest.approx(found[0][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_skipped_update_leaves_it():
    """Its logits overflowed."""
    model, is_eager = mean_sagan(adaptive()), BACKEND != "jax"
    scaled = [keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0)) for _ in range(2)]
    slots = {"loss": "non_saturating", "augmentation": adaptive()}
    model.compile(*scaled, **slots, run_eagerly=is_eager)
    images = np.full((5, 4, 4, 1), 0.5, "float32")
    for step in range(5):
        model.discriminator.layers[-1].kernel.assign(np.full((16, 1), np.nan if step == 1 else 0.1))
        model.train_on_batch(images)
    assert probability(model) == pytest.approx(0.2)


# Bad input


@pytest.mark.any_backend
@pytest.mark.parametrize("loss", ["wasserstein", None])
def test_a_loss_without_a_threshold_is_refused(loss):
    loss = loss or AdversarialLoss(hinge_generator_loss, hinge_discriminator_loss, None)
    with pytest.raises(ValueError, match="needs a loss with a threshold.*Received: loss with"):
        mean_sagan(adaptive(), loss)


@pytest.mark.any_backend
def test_it_is_refused_outside_of_compile():
    message = "`probability` must be a number unless.*SAGAN.compile"
    with pytest.raises(ValueError, match=message):
        adaptive()(IMAGES, training=True)
    with pytest.raises(ValueError, match=message):
        adaptive()(IMAGES, lambda columns: None)
    np.testing.assert_array_equal(adaptive()(IMAGES), IMAGES)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"probability": 1.5}, r'`probability` must be a number in \[0, 1\] or "adaptive".*=1.5'),
        ({"probability": -0.1}, "`probability` must be a number"),
        ({"probability": "0.5"}, "`probability` must be a number"),
        ({"probability": None}, "`probability` must be a number"),
        ({"target": 1.5}, "`target` must lie in"),
        ({"speed": 0}, "`speed` must be a positive integer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DifferentiableAugmentation(**arguments)


@pytest.mark.any_backend
def test_half_precision_images_are_augmented_in_float32():
    """Those of a generator that ends in half precision."""
    seen = []

    def note(images, uniform):
        seen.append(keras.backend.standardize_dtype(images.dtype))
        return images

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = mean_sagan(note, run_eagerly=True)
    model.train_on_batch(IMAGES[:4])
    assert keras.backend.standardize_dtype(model.generator.outputs[0].dtype) == "bfloat16"
    assert set(seen) == {"float32"}
