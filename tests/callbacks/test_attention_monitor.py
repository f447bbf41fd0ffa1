import csv

import keras
import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan.callbacks import AttentionMonitor
from keras_sagan.visualization.names import spread_classes


def test_history_and_a_later_csv_logger_see_every_figure(tmp_path, stub_gan, run_fit):
    layers = ("generator/self_attention", "discriminator/other")
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = run_fit(stub_gan(gammas=layers), [AttentionMonitor(), logger]).history
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    for name in layers:
        assert history[f"gamma/{name}"] == [0.125, 0.125]
        assert type(history[f"gamma/{name}"][0]) is float
        assert history[f"attention_entropy/{name}"] == pytest.approx([0.5, 0.5])
        assert [float(row[f"gamma/{name}"]) for row in rows] == [0.125, 0.125]


def test_every_epochs_is_for_the_entropy_alone(stub_gan, run_fit):
    history = run_fit(stub_gan(), [AttentionMonitor(every_epochs=2)], epochs=3).history
    assert len(history["gamma/generator/self_attention"]) == 3
    assert len(history["attention_entropy/generator/self_attention"]) == 2


def test_a_model_without_attention_gets_no_key(stub_gan, run_fit):
    assert list(run_fit(stub_gan(gammas=()), [AttentionMonitor()]).history) == ["loss"]


def test_logs_may_be_absent(stub_gan):
    callback = AttentionMonitor()
    callback.set_model(stub_gan())
    callback.on_epoch_end(0)


@pytest.mark.parametrize("name", ["num_images", "every_epochs"])
def test_numbers_are_checked(name):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer.*Received: {name}=0"):
        AttentionMonitor(**{name: 0})


def test_the_entropy_of_both_networks_against_numpy():
    model = tiny.build_sagan()
    monitor = AttentionMonitor(num_images=3, seed=2)
    monitor.set_model(model)
    found = monitor.entropies()
    assert sorted(found) == ["discriminator/attention", "generator/attention"]
    latents = np.random.default_rng(2).standard_normal((3, tiny.LATENT_DIM)).astype("float32")
    labels = spread_classes(tiny.CLASSES, 3)
    images, generated = model.attention_maps(latents, labels)
    _, judged = model.attention_maps(images, labels)
    for name, maps in (("generator", generated), ("discriminator", judged)):
        scores = maps["attention"].reshape(-1, 16).astype("float64")
        expected = -(scores * np.log(scores)).sum(axis=1).mean() / np.log(16)
        assert 0.2 < expected < 1.0
        assert found[f"{name}/attention"] == pytest.approx(expected, rel=1e-4)
