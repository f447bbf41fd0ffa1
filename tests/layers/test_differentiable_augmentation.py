"""`DifferentiableAugmentation` against the formulas of its paper, image by image in numpy."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny
from gradients import gradients_of
from keras import layers, ops

from keras_sagan import SAGAN, SNConv2D
from keras_sagan.layers import DifferentiableAugmentation
from keras_sagan.training.step import augment

BACKEND = keras.backend.backend()
IMAGES = np.random.default_rng(0).uniform(-1, 1, (16, 16, 9, 3)).astype("float32")
COLUMNS = {"color": 3, "translation": 2, "cutout": 2}
ALL = "color,translation,cutout"


def given(*draws):
    """A `uniform` that gives known draws, one after the other."""
    remaining = list(draws)

    def uniform(columns):
        assert remaining[0].shape[1] == columns
        return ops.convert_to_tensor(remaining.pop(0))

    return uniform


def draws_for(policy, count=16):
    rng = np.random.default_rng(1)
    names = [name for name in policy.split(",") if name]
    return [rng.random((count, COLUMNS[name]), "float32") for name in names]


def numpy(x):
    return ops.convert_to_numpy(x)


# The oracle: one image at a time, in float64


def color(image, brightness, saturation, contrast):
    image = image + (brightness - 0.5)
    gray = image.mean(-1, keepdims=True)
    image = gray + (image - gray) * 2 * saturation
    return image.mean() + (image - image.mean()) * (0.5 + contrast)


def translation(image, *draws):
    moves = []
    for size, draw in zip(image.shape, draws):
        most = int(size * 0.125 + 0.5)
        choices = np.arange(-most, most + 1)
        moves.append(choices[int(draw * len(choices))])
    moved = np.zeros_like(image)
    for y, x in np.ndindex(image.shape[:2]):
        row, column = y + moves[0], x + moves[1]
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            moved[y, x] = image[row, column]
    return moved


def cutout(image, *draws):
    image, boxes = image.copy(), []
    for size, draw in zip(image.shape, draws):
        side = int(size * 0.5 + 0.5)
        centers = np.arange(size + (side % 2 == 0))
        box = np.arange(side) + centers[int(draw * len(centers))] - side // 2
        boxes.append(np.clip(box, 0, size - 1))
    image[np.ix_(*boxes)] = 0
    return image


ORACLES = {"color": color, "translation": translation, "cutout": cutout}


def oracle(images, policy, draws):
    images = images.astype("float64")
    for name, numbers in zip(policy.split(","), draws):
        images = np.stack([ORACLES[name](x, *row) for x, row in zip(images, numbers)])
    return images


@pytest.mark.parametrize(
    "policy, channels", [*((x, 3) for x in (*COLUMNS, ALL)), ("color", 1), ("cutout, color", 1)]
)
def test_oracle(policy, channels):
    images, plain = IMAGES[..., :channels], policy.replace(" ", "")
    draws = draws_for(plain)
    outputs = numpy(DifferentiableAugmentation(policy)(images, given(*draws)))
    np.testing.assert_allclose(outputs, oracle(images, plain, draws), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "shape", [(17, 26, 4), (1, 1, 1), (3, 8, 2), (32, 7, 1)][: 1 if BACKEND == "jax" else 4]
)
def test_every_move_and_box_of_a_shape(shape):
    """Draws over all of [0, 1), with its ends."""
    most = np.nextafter(np.float32(1), np.float32(0))
    numbers = np.append(np.linspace(0, most, 40, dtype="float32")[:-1], most)
    pairs = np.stack([numbers, np.roll(numbers[::-1], 7)], axis=1)
    images = np.random.default_rng(2).uniform(0.5, 1, (len(pairs), *shape)).astype("float32")
    for policy in ("translation", "cutout"):
        outputs = numpy(DifferentiableAugmentation(policy)(images, given(pairs)))
        np.testing.assert_array_equal(outputs, oracle(images, policy, [pairs]))


def test_hand_computed():
    """A move by one row, and a box of 4 x 4 pixels that ends at the border."""
    image = np.arange(1.0, 65.0, dtype="float32").reshape(1, 8, 8, 1)
    draws = np.array([[0.99, 0.5]], "float32")  # Of the moves -1, 0 and 1: 1 and 0.
    moved = numpy(DifferentiableAugmentation("translation")(image, given(draws)))
    np.testing.assert_array_equal(moved[0, :, 0, 0], [9, 17, 25, 33, 41, 49, 57, 0])
    draws = np.array([[0.0, 0.5]], "float32")  # Of the centers 0 to 8: 0 and 4.
    cut = numpy(DifferentiableAugmentation("cutout")(image, given(draws)))
    expected = image.copy()
    expected[0, :2, 2:6] = 0
    np.testing.assert_array_equal(cut, expected)
    white = {"fill": 1.0}
    moved = numpy(DifferentiableAugmentation("translation", **white)(image, given(draws)))
    np.testing.assert_array_equal(moved[0, :, 0, 0], [1, *range(1, 57, 8)])
    cut = numpy(DifferentiableAugmentation("cutout", **white)(image, given(draws)))
    expected[0, :2, 2:6] = 1
    np.testing.assert_array_equal(cut, expected)


def test_flip():
    """It comes first, and half of the draws mirror."""
    draws = np.linspace(0, 0.99, len(IMAGES), dtype="float32")[:, None]
    outputs = numpy(DifferentiableAugmentation("", flip=True)(IMAGES, given(draws)))
    mirrored = np.where(draws[:, :, None, None] < 0.5, IMAGES[:, :, ::-1], IMAGES)
    np.testing.assert_array_equal(outputs, mirrored)
    moves = draws_for("translation")
    both = DifferentiableAugmentation("translation", flip=True)(IMAGES, given(draws, *moves))
    np.testing.assert_array_equal(numpy(both), oracle(mirrored, "translation", moves))


def test_gradients():
    """The changes are affine: by hand, the gradient is a difference of the oracle's outputs."""
    policy, images, rng = ALL, IMAGES[:2, :8], np.random.default_rng(3)
    draws, weights = draws_for(policy, 2), rng.normal(size=images.shape).astype("float32")
    layer = DifferentiableAugmentation(policy)
    (gradient,) = gradients_of(
        lambda x: ops.sum(layer(x, given(*draws)) * ops.convert_to_tensor(weights)), images
    )
    base, expected = oracle(images, policy, draws), np.empty(images.shape)
    for place in np.ndindex(images.shape[1:]):
        changed = images.astype("float64")
        changed[:, *place] += 1.0
        difference = (oracle(changed, policy, draws) - base) * weights
        expected[:, *place] = difference.sum(axis=(1, 2, 3))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5)


# As a layer


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_it_keeps_the_dtype_of_its_inputs_and_computes_in_float32(dtype):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer, draws = DifferentiableAugmentation(), draws_for(ALL)
    images = ops.cast(IMAGES, dtype)
    outputs = layer(images, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    wide = layer(ops.cast(images, "float32"), given(*draws))
    narrow = ops.cast(layer(images, given(*draws)), "float32")
    np.testing.assert_array_equal(narrow, ops.cast(ops.cast(wide, dtype), "float32"))


def test_no_images():
    images = ops.zeros((0, 8, 8, 3))
    assert DifferentiableAugmentation(ALL)(images, training=True).shape == images.shape


@pytest.mark.parametrize("jit_compile", [False, True] if BACKEND == "tensorflow" else [False])
def test_in_a_discriminator(jit_compile):
    """Each image has its own draws, new ones at each call, and only in training."""
    layer = DifferentiableAugmentation("cutout")
    model = keras.Sequential([keras.Input((8, 8, 3)), layer, SNConv2D(4, 3), layers.Flatten()])
    model.add(layers.Dense(1))
    model.compile("sgd", "mse", jit_compile=jit_compile or BACKEND == "jax")
    images = np.full((32, 8, 8, 3), -1.0, "float32")
    before = numpy(layer.seed_generator.state)
    history = model.fit(images, np.ones((32, 1)), batch_size=16, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert not np.array_equal(before, numpy(layer.seed_generator.state))
    np.testing.assert_array_equal(layer(images), images)
    np.testing.assert_array_equal(layer(images, training=False), images)
    one, other = (numpy(layer(images, training=True)) for _ in range(2))
    assert set(np.unique(one)) == {-1.0, 0.0}
    assert len(np.unique(one, axis=0)) > 8 and not np.array_equal(one, other)


def test_config_and_file(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, DifferentiableAugmentation("cutout", True, name="one")(inputs))
    model.save(tmp_path / "model.keras")
    layer = keras.saving.load_model(tmp_path / "model.keras").get_layer("one")
    assert layer.get_config() == model.get_layer("one").get_config()
    assert (layer.policy, layer.flip) == ("cutout", True)
    assert layer(IMAGES, training=True).shape == IMAGES.shape


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"policy": "colour"}, "names among color, translation, cutout(.|\n)*policy='colour'"),
        ({"policy": "color,"}, "names among color, translation, cutout"),
        ({"policy": ""}, "names among(.|\n)*flip=False"),
        ({"policy": None}, "`policy` must be a string"),
        ({"flip": 1}, "`flip` must be True or False"),
        ({"fill": 255}, "`fill` must lie in .-1, 1."),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DifferentiableAugmentation(**arguments)


@pytest.mark.parametrize("images", [IMAGES[0], (IMAGES * 100).astype("uint8")])
def test_bad_images(images):
    layer = DifferentiableAugmentation()
    with pytest.raises(ValueError, match="`images` must be floats of shape"):
        layer(images, training=True)
    with pytest.raises(ValueError, match="`images` must be floats of shape"):
        layer(ops.convert_to_tensor(images), given(*draws_for(ALL)))


# In SAGAN


def test_a_saved_run_ends_as_one_that_was_not_saved(tmp_path):
    """In `SAGAN.compile`, where it adds no state, and as a layer, with a seed generator."""
    layer, images = DifferentiableAugmentation("cutout", name="inner"), tiny.images(8)
    inputs, head = keras.Input(tiny.SHAPE), layers.Dense(1)
    generator = [keras.Input((1,)), layers.Dense(128, "tanh"), layers.Reshape(tiny.SHAPE)]
    discriminator = keras.Model(inputs, head(layers.Flatten()(layer(inputs))))
    model = SAGAN(keras.Sequential(generator), discriminator, 1, seed=7)
    model.compile(**tiny.sgd(), augmentation=DifferentiableAugmentation("cutout"))
    before = [x.path for x in model.variables], numpy(layer.seed_generator.state)
    model.train_on_batch(images)
    assert [x.path for x in model.variables] == before[0]
    assert not np.array_equal(numpy(layer.seed_generator.state), before[1])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.augmentation.get_config() == model.augmentation.get_config()
    for each in (model, again):
        each.train_on_batch(images)
    assert int(numpy(again.steps)) == 2
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))


def test_each_pass_has_its_own_draws():
    """Real (0) and fake (1) images of two updates, in two steps; a step always has the same."""
    model, images, labels = tiny.build_small_sagan(), ops.ones((8, *tiny.SHAPE)), ops.arange(8)
    model.compile(augmentation=DifferentiableAugmentation("color"))

    def augmented(step):
        model.steps.assign(step)
        pairs = [augment(model, *place, (images, labels)) for place in np.ndindex(2, 2)]
        assert all(pair[1] is labels for pair in pairs)
        return np.concatenate([numpy(pair[0]) for pair in pairs])

    first, second = augmented(0), augmented(1)
    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 2 * 4 * 8
    np.testing.assert_array_equal(augmented(0), first)
