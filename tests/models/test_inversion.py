"""From images back to latents and classes, on every backend."""

import numpy as np
import pytest
import tiny_networks as tiny
from keras import ops

from keras_sagan.models import Inversion


def with_classes(model):
    """All classes are alike at first."""
    rng = np.random.default_rng(0)
    for layer in model.generator.layers:
        if hasattr(layer, "gamma") and hasattr(layer, "beta"):
            layer.gamma.assign(rng.normal(1.0, 0.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0.0, 0.5, layer.beta.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return with_classes(tiny.build_small_sagan(ema_momentum=0.9))


def psnr(one, other):
    error = np.mean((one.astype(float) - other.astype(float)) ** 2, axis=(1, 2, 3))
    return 10.0 * np.log10(255.0**2 / np.maximum(error, 1e-10))


def test_own_samples_come_back(model):
    images = model.generate(20, seed=1)
    before = tiny.weights(model)
    found = model.invert(images, steps=100, restarts=2, seed=0)
    assert isinstance(found, Inversion) and found.latents.shape == (20, tiny.LATENT_DIM)
    assert found.images.dtype == np.uint8 and found.labels.dtype == np.int32
    assert np.mean(found.psnr >= 30.0) >= 0.95
    np.testing.assert_allclose(
        np.minimum(found.psnr, 80.0), np.minimum(psnr(found.images, images), 80.0), atol=1e-3
    )
    made = model.generate(20, found.labels, latents=found.latents)
    np.testing.assert_array_equal(made, found.images)
    for value, expected in zip(tiny.weights(model), before):
        np.testing.assert_array_equal(value, expected)


def test_a_seed_determines_it_and_labels_stay(model):
    images = (model.generate(3, seed=2) / 127.5 - 1.0).astype("float32")
    arguments = {"labels": [4, 0, 1], "steps": 3, "restarts": 2, "seed": 5, "use_ema": False}
    one, other = model.invert(images, **arguments), model.invert(images, **arguments)
    np.testing.assert_array_equal(one.labels, [4, 0, 1])
    np.testing.assert_array_equal(one.latents, other.latents)
    # The size of a batch changes the order of sums only.
    other = model.invert(images, **arguments, batch_size=2)
    np.testing.assert_allclose(one.latents, other.latents, atol=1e-2)


def test_without_classes_and_with_features():
    model = tiny.build_small_sagan(num_classes=None)
    images = model.generate(2, seed=0)
    (layer,) = [x.name for x in model.discriminator.layers if "flatten" in x.name]
    found = model.invert(images, steps=60, seed=0, feature_layer=layer)
    assert found.labels is None and (found.psnr > 25.0).all()


def test_the_first_step_is_one_of_adam():
    """It goes by the rate against the sign of each gradient, and the best is kept."""
    model = tiny.build_small_sagan(num_classes=None)
    images = model.generate(1, seed=0)
    start = np.random.default_rng(3).standard_normal((1, tiny.LATENT_DIM), dtype="float32")
    found = model.invert(images, steps=1, restarts=1, seed=3, learning_rate=1e-3)
    moved = np.round((found.latents - start) / 1e-3)
    assert set(np.abs(moved).ravel()) <= {0.0, 1.0, 2.0, 3.0} and np.any(moved)
    target = images / 127.5 - 1.0
    errors = [
        np.mean((ops.convert_to_numpy(model.generator(x)) - target) ** 2)
        for x in (start, found.latents)
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"restarts": 0}, "`restarts` must be a positive integer. Received: restarts=0"),
        ({"images": np.zeros((1, 4, 4, 2), "uint8")}, r"`images` must have shape \(batch, 8, 8, 2"),
        ({"images": np.zeros((0, *tiny.SHAPE), "uint8")}, "`images` must be at least one"),
        ({"images": np.zeros((1, *tiny.SHAPE), "int32")}, "`images` must be uint8"),
        ({"labels": 9}, "`labels` must lie in"),
        ({"labels": [1, 2]}, "`labels` must be one class id or 1 of them"),
        ({"feature_layer": "no"}, "`feature_layer` must be a layer of .*feature_layer='no'"),
        ({"learning_rate": 0}, "`learning_rate` must be positive"),
    ],
)
def test_bad_arguments(model, arguments, match):
    given = {"images": np.zeros((1, *tiny.SHAPE), "uint8"), **arguments}
    with pytest.raises(ValueError, match=match):
        model.invert(**given)
