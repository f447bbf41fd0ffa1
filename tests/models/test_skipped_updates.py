"""Updates that the loss scale skips under float16, and what moves then."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny

IMAGES, LABELS = tiny.images(4), tiny.labels(4)
FINITE = 2.0**8
INFINITE = 2.0**127  # A loss scale that every gradient overflows at.


def model_of(generator_scale, discriminator_scale, build=tiny.build_small_sagan, **arguments):
    keras.config.set_dtype_policy("mixed_float16")
    model = build(ema_momentum=0.9)
    sgd = tiny.sgd(1e-3)
    scaled = {
        name: keras.optimizers.LossScaleOptimizer(sgd[name], initial_scale=scale)
        for name, scale in (
            ("g_optimizer", generator_scale),
            ("d_optimizer", discriminator_scale),
        )
    }
    model.compile(**scaled, **arguments)
    return model


def networks(model):
    found = {"generator": model.generator, "discriminator": model.discriminator}
    return {**found, "average": model.ema_generator}


def values(model):
    return {
        name: [keras.ops.convert_to_numpy(v).copy() for v in network.variables]
        for name, network in networks(model).items()
    }


def moved(model, before):
    """The paths of what isn't as it was, by network."""
    return {
        name: {
            v.path.split("/")[-1]
            for v, old in zip(network.variables, before[name])
            if not np.array_equal(keras.ops.convert_to_numpy(v), old)
        }
        for name, network in networks(model).items()
    }


@pytest.mark.parametrize("run_eagerly", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_state_of_a_network_stays_with_its_weights(run_eagerly):
    state = {"vector_u", "moving_mean", "num_updates"}
    model = model_of(FINITE, FINITE, run_eagerly=run_eagerly)
    model.steps.assign(1000)  # So late that the average is no copy of the generator.
    before = values(model)
    model.train_on_batch(IMAGES, LABELS)
    found = moved(model, before)
    assert state <= found["generator"] and "vector_u" in found["discriminator"]
    assert found["average"] == found["generator"]
    for network in ("generator", "discriminator"):
        scale = {"generator": FINITE, "discriminator": FINITE, network: INFINITE}
        model.g_optimizer.dynamic_scale.assign(scale["generator"])
        model.d_optimizer.dynamic_scale.assign(scale["discriminator"])
        before, steps = values(model), int(model.steps)
        model.train_on_batch(IMAGES, LABELS)
        found = moved(model, before)
        other = "discriminator" if network == "generator" else "generator"
        assert not found[network] and "kernel" in found[other]
        assert bool(found["average"]) == (network == "discriminator")
        assert int(model.steps) == steps + 1


def test_statistics_that_overflowed_are_dropped():
    model = model_of(FINITE, FINITE, tiny.build_sagan, run_eagerly=True)
    model.train_on_batch(IMAGES, LABELS)
    weight = model.generator.get_layer("start").bias
    weight.assign(np.full(weight.shape, 1e38))  # Infinite in float16.
    model.train_on_batch(IMAGES, LABELS)
    norm = model.generator.get_layer("norm")
    assert np.isfinite(norm.moving_mean.numpy()).all()
    assert np.isfinite(norm.moving_variance.numpy()).all()
