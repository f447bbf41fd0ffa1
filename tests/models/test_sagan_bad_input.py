"""What doesn't fit is refused by name, with what was expected and received, and trains nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_networks as tiny
from keras import layers

from keras_sagan import SAGAN, losses
from keras_sagan.layers import DifferentiableAugmentation

IMAGES, LABELS = tiny.images(4), tiny.labels(4)
OUTSIDE = r"`labels` must lie in \[0, 5\).*Received: labels with"


@pytest.fixture(scope="module")
def conditional():
    model = tiny.build_sagan(ema_momentum=0.5)
    model.compile(**tiny.sgd(), run_eagerly=True)  # What is refused is never traced.
    return model


@pytest.fixture(scope="module")
def unconditional():
    model = tiny.build_sagan(num_classes=None)
    model.compile(**tiny.sgd(), run_eagerly=True)
    return model


def refuses(model, match, *args, **kwargs):
    before = tiny.weights(model)
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=f"(?s){match}"):
            method(*args, verbose=0, **kwargs)
    if isinstance(args[0], np.ndarray) and not kwargs:
        for method in (model.train_on_batch, model.test_on_batch):
            with pytest.raises(ValueError, match=f"(?s){match}"):
                method(*args)
    for old, new in zip(before, tiny.weights(model)):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "labels, match",
    [
        (LABELS * 0 + 5, OUTSIDE + " 5"),
        (LABELS * 0 - 1, OUTSIDE + " -1"),
        (LABELS.astype("float32"), "`labels` must be integer class ids.*Received: .*float32"),
        (np.eye(5, dtype="float32")[LABELS], "`labels` must be integer.*one-hot.*Received"),
        (np.eye(5, dtype="int32")[LABELS], r"`labels` must have shape \(batch,\).*Received.*5\)"),
        (LABELS[:, None], r"`labels` must have shape \(batch,\).*Received.*1\)"),
        (LABELS > 2, "`labels` must be integer class ids.*Received: .*bool"),
        (LABELS.astype(str), "`y` must be .*integer class ids. Received: y=an array of strings"),
    ],
    ids="too large/negative/float/one-hot/integer one-hot/rank 2/bool/strings".split("/"),
)
def test_labels(conditional, labels, match):
    refuses(conditional, match, IMAGES, labels)


def test_labels_of_a_generator(conditional):
    with pytest.raises(ValueError, match="`labels` must be .*Received: labels=an array of strings"):
        conditional.fit(((IMAGES, LABELS.astype(str)) for _ in range(2)), verbose=0)


@pytest.mark.parametrize("kind", ["array", "dataset", "tuple"])
def test_missing_labels(conditional, kind):
    dataset = tf.data.Dataset.from_tensor_slices(IMAGES).batch(2)
    data = {"array": IMAGES, "dataset": dataset, "tuple": dataset.map(lambda x: (x,))}[kind]
    refuses(conditional, "`labels` must be given, as .*num_classes=5.*Received: images alone", data)


def test_superfluous_labels(unconditional):
    refuses(unconditional, "`labels` must not be given, as .*num_classes=None.*Rec", IMAGES, LABELS)


def one_infinite(images):
    return np.where(np.arange(4)[:, None, None, None] == 2, np.inf, images)


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda x: x * 127.5 + 127.5, r"Float `images` must lie in \[-1, 1\].*uint8.*Received"),
        (lambda x: x + 0.1, r"Float `images` must lie in \[-1, 1\].*Received: images between"),
        (lambda x: x * np.nan, r"`images` must be finite. Received: .*NaN.*\[0, 1, 2, 3\]"),
        (one_infinite, r"`images` must be finite. Received: .*infinite.* at \[[0-3]\] of"),
        (lambda x: x.astype("int32"), "`images` must be uint8 .* or float .*Received: .*int32"),
        (lambda x: x > 0, "`images` must be uint8 .* or float .*Received: .*bool"),
        (lambda x: x[..., :1], r"`images` must have shape \(batch, 8, 8, 2\).*Received.*8, 1\)"),
        (lambda x: x[:, :4], r"`images` must have shape \(batch, 8, 8, 2\).*Received.*4, 8, 2\)"),
        (lambda x: x[..., 0], r"`images` must have shape \(batch, height.*Received.*8, 8\)"),
    ],
    ids="[0, 255] / beyond / NaN / infinite / integer / bool / channels / size / rank".split(" / "),
)
def test_images(conditional, change, match):
    refuses(conditional, match, change(IMAGES), LABELS)


def test_nan_in_a_later_batch(conditional):
    images = np.concatenate([IMAGES, one_infinite(IMAGES)])
    with pytest.raises(ValueError, match=r"`images` must be finite.* at \[2\] of a batch"):
        conditional.fit(images, np.tile(LABELS, 2), batch_size=4, shuffle=False, verbose=0)


@pytest.mark.parametrize("name", ["class_weight", "sample_weight"])
def test_weights_of_a_batch(conditional, name):
    value = {0: 1.0} if name == "class_weight" else np.ones(4)
    with pytest.raises(ValueError, match=f"`{name}`.*no meaning for a GAN.*Received: 3 parts"):
        conditional.train_on_batch(IMAGES, LABELS, **{name: value})


def test_nan_in_a_data_set_with_several_steps_per_execution():
    model = tiny.build_small_sagan(num_classes=None)
    model.compile(**tiny.sgd(), steps_per_execution=2)
    data = tf.data.Dataset.from_tensor_slices(IMAGES * np.nan).batch(2)
    refuses(model, "`images` must be finite. Received", data)


def test_float_images_may_touch_the_bounds(unconditional):
    images = np.sign(IMAGES)
    assert set(np.unique(images)) == {-1.0, 1.0}
    unconditional.fit(images, verbose=0)


@pytest.mark.parametrize("kind", ["dataset", "generator", "array"])
def test_nothing(unconditional, kind):
    data = {
        "dataset": tf.data.Dataset.from_tensor_slices(IMAGES).take(0).batch(2),
        "generator": (x for x in ()),
        "array": IMAGES[:0],
    }[kind]
    before = tiny.weights(unconditional)
    with pytest.raises(
        ValueError, match="must yield at least one batch. Received:? an? .*(nothing|empty)"
    ):
        unconditional.fit(data, verbose=0)
    for old, new in zip(before, tiny.weights(unconditional)):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_validation_data_are_checked_too(unconditional):
    nothing = tf.data.Dataset.from_tensor_slices(IMAGES).take(0).batch(2)
    with pytest.raises(ValueError, match="`validation_data` .*at least one batch"):
        unconditional.fit(IMAGES, validation_data=nothing, verbose=0)
    with pytest.raises(ValueError, match=r"Float `images` must lie in \[-1, 1\]"):
        unconditional.fit(IMAGES, validation_data=100.0 * IMAGES, verbose=0)


@pytest.mark.parametrize("label", [5, -1])
def test_labels_of_a_later_batch(conditional, label):
    labels = np.array([0, 1, 2, label])
    data = tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(2)
    before = int(conditional.steps.numpy())
    for method in (conditional.fit, conditional.evaluate):
        with pytest.raises(ValueError, match=f"{OUTSIDE} {label}"):
            method(data, verbose=0)
    assert int(conditional.steps.numpy()) == before + 1  # The first batch was good.


def test_data_of_another_structure(unconditional):
    dictionary = tf.data.Dataset.from_tensor_slices({"image": IMAGES}).batch(2)
    refuses(unconditional, "`images` must be one dense array.*Received: images=a dict", dictionary)


@pytest.mark.parametrize("name", ["class_weight", "sample_weight"])
def test_weights_of_classes_and_samples(conditional, name):
    value = {0: 1.0} if name == "class_weight" else np.ones(4)
    with pytest.raises(ValueError, match=f"`{name}`.*no meaning for a GAN.*Received: 3 parts"):
        conditional.fit(IMAGES, LABELS, **{name: value})


def test_sample_weight_in_the_data(conditional):
    weights = np.ones(4, "float32")
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, weights)).batch(2)
    refuses(conditional, "`sample_weight`.*no meaning.*Received: 3 parts", data)


@pytest.mark.slow
def test_after_a_refusal_good_data_train(unconditional):
    with pytest.raises(ValueError, match="must lie in"):
        unconditional.fit(100.0 * IMAGES, verbose=0)
    before = int(unconditional.steps.numpy())
    unconditional.fit(IMAGES, batch_size=2, verbose=0)
    assert int(unconditional.steps.numpy()) == before + 2


# generate and attention_maps


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"num_images": 0}, "`num_images` must be a positive integer. Received: num_images=0"),
        ({"num_images": 2.0}, "`num_images` must be a positive integer. Received"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer. Received: batch_size=0"),
        ({"truncation": 0.0}, "`truncation` must be positive. Received: truncation=0"),
        ({"truncation": -1.0}, "`truncation` must be positive. Received"),
        ({"labels": 5}, OUTSIDE + " 5"),
        ({"labels": [0, -1]}, OUTSIDE + " -1"),
        ({"labels": [0, 1, 2]}, "`labels` must be one class id or 2 of them. Received: 3"),
        ({"labels": [0.0, 1.0]}, "`labels` must be integer class ids.*Received: .*float"),
        ({"labels": 1.0}, "`labels` must be integer class ids.*Received: .*float"),
        ({"labels": [[0], [1]]}, r"`labels` must have shape \(batch,\).*Received"),
        ({"labels": np.eye(5)[:2]}, "`labels` must be integer class ids.*Received"),
        ({"latents": np.zeros((3, 3))}, r"`latents` must have shape \(2, 3\).*Received: .*3, 3"),
        ({"latents": np.zeros((2, 4))}, r"`latents` must have shape \(2, 3\).*Received: .*2, 4"),
    ],
)
def test_generate(conditional, arguments, match):
    with pytest.raises(ValueError, match=match):
        conditional.generate(**{"num_images": 2, **arguments})


def test_generate_labels_without_classes(unconditional):
    with pytest.raises(ValueError, match="`labels` must not be given, as .*Received: labels=3"):
        unconditional.generate(2, labels=3)


LATENTS = np.zeros((2, 3), "float32")


@pytest.mark.parametrize(
    "inputs, labels, match",
    [
        (LATENTS, None, "`labels` must be given, as .*num_classes=5.*Received: labels=None"),
        (IMAGES, None, "`labels` must be given, as .*num_classes=5.*Received: labels=None"),
        (LATENTS, [0, 5], OUTSIDE + " 5"),
        (LATENTS, [0, 1, 2], "`labels` must be one class id or 2 of them. Received: 3"),
        (LATENTS, [0.0, 1.0], "`labels` must be integer class ids.*Received"),
        (LATENTS, [[0, 1]], r"`labels` must have shape \(batch,\).*Received"),
        (LATENTS[0], [0, 1], "`inputs` must be latents of rank 2 or images of rank 4.*Received"),
        (LATENTS[:0], 0, r"`inputs` must be .*at least one.*Received: .*\(0, 3\)"),
        (np.zeros((2, 4)), 0, r"`inputs` must have shape \(2, 3\).*Received: .*2, 4"),
        (IMAGES[..., :1], 0, r"`inputs` must have shape \(batch, 8, 8, 2\).*Received: .*8, 1\)"),
        (IMAGES * 100, 0, r"Float `inputs` must lie in \[-1, 1\].*Received: inputs between"),
        (IMAGES * np.nan, 0, "`inputs` must be finite. Received"),
        (IMAGES.astype("int64"), 0, "`inputs` must be uint8 .* or float.*Received: .*int64"),
    ],
)
def test_attention_maps(conditional, inputs, labels, match):
    with pytest.raises(ValueError, match=match):
        conditional.attention_maps(inputs, labels)


def test_attention_maps_labels_without_classes(unconditional):
    with pytest.raises(ValueError, match="`labels` must not be given.*Received: labels="):
        unconditional.attention_maps(LATENTS, [0, 1])


# The constructor


def networks(num_classes=None):
    return tiny.build_generator(num_classes), tiny.build_discriminator(num_classes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, value, match",
    [
        ("latent_dim", 0, "a positive integer"),
        ("latent_dim", 3.0, "a positive integer"),
        ("num_classes", 0, "a positive integer"),
        ("num_classes", True, "a positive integer"),
        ("d_steps", 0, "a positive integer"),
        ("ema_momentum", 1.0, r"\[0, 1\)"),
        ("ema_momentum", -0.1, r"\[0, 1\)"),
        ("ema_start", -1, "a non-negative integer"),
        ("ema_start", 1.5, "a non-negative integer"),
        ("seed", -1, r"\[0, 2\*\*31\)"),
        ("seed", 2**31, r"\[0, 2\*\*31\)"),
        ("seed", 1.5, "an integer"),
        ("seed", True, "an integer"),
        ("ttur", {"rate": 1.0}, "keys among .*g_learning_rate"),
    ],
)
def test_arguments(unconditional, name, value, match):
    arguments = {"latent_dim": 3, name: value}
    with pytest.raises(ValueError, match=f"`{name}` must .*{match}.*Received: {name}="):
        SAGAN(unconditional.generator, unconditional.discriminator, **arguments)


def test_generator_that_makes_no_images():
    generator = keras.Sequential([layers.Dense(8)])
    with pytest.raises(ValueError, match=r"`generator` must make images.*Received.*\(None, 8\)"):
        SAGAN(generator, networks()[1], 3)


def test_generator_that_takes_other_inputs():
    with pytest.raises(ValueError, match=r"(?s)`generator` must take latents .*batch, 4\) alone"):
        SAGAN(*networks(), latent_dim=4)
    with pytest.raises(
        ValueError, match="(?s)`generator` must take latents .*together with labels"
    ):
        SAGAN(*networks(), latent_dim=3, num_classes=5)
    with pytest.raises(ValueError, match="(?s)`generator` must .* alone, as num_classes=None"):
        SAGAN(*networks(5), latent_dim=3)


def test_generator_that_does_not_fit_the_discriminator():
    generator, discriminator = networks()
    small = keras.Sequential([layers.Dense(32), layers.Reshape((4, 4, 2))])
    match = "(?s)`discriminator` must take what `generator` makes.*Received.*4, 4, 2"
    with pytest.raises(ValueError, match=match):
        SAGAN(small, discriminator, 3)
    grey = keras.Sequential([layers.Dense(64), layers.Reshape((8, 8, 1))])
    with pytest.raises(ValueError, match="(?s)`discriminator` must take .*Received.*8, 8, 1"):
        SAGAN(grey, discriminator, 3)
    with pytest.raises(ValueError, match="(?s)`discriminator` must take .* alone, as num_classes"):
        SAGAN(generator, tiny.build_discriminator(5), 3)
    with pytest.raises(ValueError, match="(?s)`discriminator` must take .* together with labels"):
        SAGAN(tiny.build_generator(5), discriminator, 3, 5)


# Data that aren't dense arrays

UINT8 = np.zeros((4, 8, 8, 2), "uint8")
IDS = np.arange(4)
RAGGED = tf.ragged.constant([[0], [1, 2], [], [3]])
SPARSE = tf.sparse.from_dense(np.eye(5, dtype="int32")[IDS])
OBJECTS = np.array([0, 1, 2, None], dtype=object)
NOT_DENSE = {
    "ragged": (RAGGED, "make it dense with `to_tensor"),
    "sparse": (SPARSE, "make it dense, as with `tf.sparse.to_dense`.*SparseTensor"),
    "dict": ({"label": IDS}, r"give the array in it.*a dict with the keys \['label'\]"),
    "list of arrays": ([IDS, IDS], "`np.asarray` makes one.*a list of 2"),
    "list": (list(IDS), "`np.asarray` makes one.*a list of 4"),
    "tuple": ((IDS,), "`np.asarray` makes one.*a tuple of 1"),
    "objects": (OBJECTS, "give all its parts one shape.*an array of objects"),
}


@pytest.fixture(scope="module")
def compiled():
    model = tiny.build_small_sagan()
    model.compile(run_eagerly=True)
    return model


@pytest.mark.parametrize("kind", NOT_DENSE)
@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_labels_that_are_not_dense(compiled, method, kind):
    labels, match = NOT_DENSE[kind]
    with pytest.raises(ValueError, match=f"`y` must be one dense array.*{match}"):
        getattr(compiled, method)(UINT8, labels)
    assert int(compiled.steps) == 0


@pytest.mark.parametrize("kind", sorted(NOT_DENSE))
@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_images_that_are_not_dense(compiled, method, kind):
    images, match = NOT_DENSE[kind]
    with pytest.raises(ValueError, match=f"`x` must be one dense array.*{match}"):
        getattr(compiled, method)(images, IDS)
    with pytest.raises(ValueError, match="`x` must be given.*Received: x=None"):
        getattr(compiled, method)(None)


@pytest.mark.parametrize(
    "labels, match",
    [
        (RAGGED, "make it dense with `to_tensor"),
        (SPARSE, "make it dense, as with"),
        ({"label": IDS}, "give the array in it"),
        ((IDS, IDS), "a tuple of 2"),
    ],
)
def test_a_data_set_of_labels_that_are_not_dense(compiled, labels, match):
    data = tf.data.Dataset.from_tensor_slices((UINT8, labels)).batch(2)
    with pytest.raises(ValueError, match=f"`labels` must be one dense array.*{match}"):
        compiled.fit(data, verbose=0)
    with pytest.raises(ValueError, match=f"`labels` must be one dense array.*{match}"):
        compiled.evaluate(data, verbose=0)


def test_validation_labels_that_are_not_dense(compiled):
    with pytest.raises(ValueError, match="`y` must be one dense array.*give the array in it"):
        compiled.fit(UINT8, IDS, validation_data=(UINT8, {"label": IDS}), verbose=0)


def test_export_names_the_function_to_call(compiled, tmp_path):
    for options in ({}, {"format": "onnx"}):
        with pytest.raises(ValueError, match="`keras_sagan.models.export_generator"):
            compiled.export(tmp_path / "files", **options)
    assert not any(tmp_path.iterdir())


def images_alone(images):
    return images


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("augmentation", keras.layers.RandomFlip()),
        ("augmentation", images_alone),
        ("augmentation", DifferentiableAugmentation),
        ("loss", (losses.hinge_discriminator_loss, losses.hinge_generator_loss)),
    ],
)
def test_what_the_step_could_not_call_is_refused(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be .*Received: {argument}="):
        tiny.build_small_sagan().compile(**{argument: value})


@pytest.mark.any_backend
def test_a_users_callback_may_have_a_start():
    callback = keras.callbacks.Callback()
    callback.start = 5
    model = tiny.build_small_sagan(num_classes=None)
    model.compile(run_eagerly=True)
    images = np.zeros((2, *model.image_shape), "uint8")
    model.fit(images, batch_size=2, verbose=0, callbacks=[callback])
