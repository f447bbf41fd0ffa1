import warnings

import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan.callbacks import SpectralMonitor


def test_history_has_every_kernel_and_the_figures_the_largest(stub_gan, run_fit):
    monitor = SpectralMonitor()
    history = run_fit(stub_gan(), [monitor]).history
    assert history["sigma/generator"] == [3.0, 3.0]
    assert history["sigma/discriminator"] == [2.0, 2.0]
    assert monitor.history == {
        "sigma/generator/a": [(1, 1.0), (2, 1.0)],
        "sigma/generator/b": [(1, 3.0), (2, 3.0)],
        "sigma/discriminator/c": [(1, 2.0), (2, 2.0)],
    }


def test_every_epochs_and_an_epoch_that_is_done_again(stub_gan, run_fit):
    monitor, model = SpectralMonitor(every_epochs=2), stub_gan()
    run_fit(model, [monitor], epochs=3)
    assert [epoch for epoch, _ in monitor.history["sigma/generator/a"]] == [2, 3]
    run_fit(model, [monitor], epochs=2, initial_epoch=1)
    assert [epoch for epoch, _ in monitor.history["sigma/generator/a"]] == [2]


def test_the_interval_is_checked():
    with pytest.raises(ValueError, match="`every_epochs` must be an integer.*every_epochs=0"):
        SpectralMonitor(every_epochs=0)


def test_a_real_models_kernels_against_numpy():
    model = tiny.build_sagan()
    monitor = SpectralMonitor(normalized_only=False)
    monitor.set_model(model)
    logs = {}
    monitor.on_epoch_end(0, logs)
    expected = {
        f"sigma/{network.name}/{weight.path.rpartition('/')[0]}": np.linalg.norm(
            weight.numpy().reshape(-1, weight.shape[-1]), 2
        )
        for network in (model.generator, model.discriminator)
        for weight in network.weights
        if weight.name in ("kernel", "embeddings")
    }
    assert {name: pairs[-1][1] for name, pairs in monitor.history.items()} == pytest.approx(
        expected, rel=1e-3
    )
    in_generator = [v for name, v in expected.items() if "/generator/" in name]
    assert logs["sigma/generator"] == pytest.approx(max(in_generator), rel=1e-3)


@pytest.mark.slow
def test_it_warns_once_per_training_of_layers_that_divide_by_another_number():
    model = tiny.build_sagan()
    kernels = {}
    for network, name in ((model.generator, "last"), (model.discriminator, "first")):
        layer = network.get_layer(name)
        layer.trainable = False  # So that `vector_u` stays behind.
        kernel = np.random.default_rng(0).normal(size=layer.kernel.shape).astype("float32")
        layer.kernel.assign(kernel)
        layer.vector_u.assign(np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]))[2][-1])
        kernels[name] = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)
    model.compile(**tiny.sgd(0.0), run_eagerly=True)
    monitor = SpectralMonitor()
    for _ in range(2):  # Two trainings.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model.fit(tiny.images(8), tiny.labels(8), epochs=2, verbose=0, callbacks=[monitor])
        messages = [str(x.message) for x in caught if "10 % off" in str(x.message)]
        assert len(messages) == 2
        for message, (name, exact) in zip(messages, kernels.items()):
            assert f"`{name}` by " in message and f"where it is {exact:.4g}" in message
            assert "`training=True`" in message


@pytest.mark.slow
def test_a_training_as_it_should_be_has_no_warning():
    model = tiny.build_small_sagan()
    model.compile(run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(tiny.images(8), tiny.labels(8), verbose=0, callbacks=[SpectralMonitor()])


def test_other_warnings_come_through(stub_gan, run_fit):
    class Loud(stub_gan):
        def spectral_norms(self, normalized_only=True):
            warnings.warn("Something else.", stacklevel=2)
            return super().spectral_norms(normalized_only)

    with pytest.warns(UserWarning, match="Something else"):
        run_fit(Loud(), [SpectralMonitor()])
