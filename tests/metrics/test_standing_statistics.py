"""Standing statistics: plain means of the batches, and everything as before afterwards."""

import keras
import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan.metrics import standing_statistics


def network():
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization(momentum=0.99, name="bn")(inputs)
    return keras.Model(inputs, keras.layers.Dropout(0.5)(x))


def batches(count=5):
    return [
        np.random.default_rng(i).normal(i, 1 + i, (32, 4)).astype("float32") for i in range(count)
    ]


def test_the_statistics_are_means_over_the_batches_and_go_again():
    model = network()
    layer, before = model.get_layer("bn"), [np.array(w) for w in model.get_weights()]
    with standing_statistics(model, batches()):
        means = np.mean([x.mean(0) for x in batches()], axis=0)
        variances = np.mean([x.var(0) for x in batches()], axis=0)
        np.testing.assert_allclose(layer.moving_mean.numpy(), means, rtol=1e-5)
        np.testing.assert_allclose(layer.moving_variance.numpy(), variances, rtol=1e-5)
        assert layer.momentum == 0.99
    for value, expected in zip(model.get_weights(), before):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [True, False])
def test_a_generator_is_as_it_was(averaged):
    model = tiny.build_sagan_of_pictures(ema_momentum=0.9 if averaged else None)
    generator = model.ema_generator if averaged else model.generator
    state = [np.array(keras.ops.convert_to_numpy(x)) for x in generator.variables]
    trainable = [x.trainable for x in generator._flatten_layers()]
    images = model.generate(4, labels=1, seed=0)
    rng = np.random.default_rng(0)
    inputs = [
        [
            keras.ops.convert_to_tensor(rng.normal(size=(8, model.latent_dim)).astype("float32")),
            keras.ops.convert_to_tensor(np.arange(8, dtype="int32")),
        ]
        for _ in range(3)
    ]
    with standing_statistics(generator, inputs):
        assert np.abs(model.generate(4, labels=1, seed=0).astype(int) - images).max() > 0
    for variable, value in zip(generator.variables, state):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    assert [x.trainable for x in generator._flatten_layers()] == trainable
    np.testing.assert_array_equal(model.generate(4, labels=1, seed=0), images)


def test_no_batch_and_no_batch_norm_are_refused_and_change_nothing():
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match="`batches` must hold at least one"):
        with standing_statistics(model, []):
            pass
    np.testing.assert_array_equal(model.get_weights()[2], before[2])
    inputs = keras.Input((4,))
    plain = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match="`network` must have batch norm layers"):
        with standing_statistics(plain, batches()):
            pass
