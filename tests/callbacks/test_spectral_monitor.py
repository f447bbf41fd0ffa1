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
    for network in (model.generator, model.discriminator):
        for layer in network._flatten_layers():
            if hasattr(layer, "vector_u"):  # As after a long training.
                weight = layer.weights[0].numpy()
                _, _, rows = np.linalg.svd(weight.reshape(-1, weight.shape[-1]))
                layer.vector_u.assign(rows[0])
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
