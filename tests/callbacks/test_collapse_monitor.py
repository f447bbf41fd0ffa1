"""What each sign takes, and a real run made to collapse beside a healthy one."""

import warnings

import keras
import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan import SAGAN, build_discriminator, build_generator, losses
from keras_sagan.callbacks import CollapseMonitor, TrainingCheckpoint
from keras_sagan.data import load_fashion_mnist, make_dataset, pad_to_32

HEALTHY = {"real_in_margin": 0.5, "fake_in_margin": 0.6, "real_logits": 1.0, "fake_logits": -1.0}


class Looks:
    """A monitor on a stub whose diversity, σ and figures are given look by look."""

    def __init__(self, stub, **kwargs):
        self.monitor = CollapseMonitor(**{"patience": 1, **kwargs})
        self.model = stub()
        self.monitor.set_model(self.model)
        self.monitor.set_params({"epochs": 99})
        self.monitor.on_train_begin()
        self.epoch = 0

    def __call__(self, diversity=0.2, sigma=1.0, **figures):
        self.monitor.diversity = lambda: diversity
        self.model.sigmas = {"generator/a": sigma, "generator/b": 0.0}
        logs = {**HEALTHY, **figures}
        self.monitor.on_epoch_end(self.epoch, logs)
        self.epoch += 1
        return logs


@pytest.fixture
def looks(stub_gan):
    def make(**kwargs):
        return Looks(stub_gan, **kwargs)

    return make


@pytest.mark.parametrize(
    "good, bad, message",
    [
        ({"diversity": 0.061}, {"diversity": 0.059}, "samples of a class differ by 0.059, .* 0.2"),
        (
            {"real_in_margin": 0.01, "fake_in_margin": 0.021},
            {"real_in_margin": 0.01, "fake_in_margin": 0.019},
            "1.0 % of real and 1.9 % of generated images are inside",
        ),
        (
            {"real_logits": 0.011, "fake_logits": 0.0},
            {"real_logits": 0.009, "fake_logits": 0.0},
            "mean logits .* are alike, 0.009 and 0",
        ),
        ({"sigma": 1.99}, {"sigma": 4.1}, "σ of generator/a grew 2.1 times, to 4.1"),
        ({}, {"diversity": np.nan}, "differ by nan"),
        ({}, {"sigma": np.nan}, "σ of generator/a grew nan times"),
    ],
)
def test_each_sign_at_its_threshold(looks, good, bad, message):
    look = looks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look()
        look(**good)
    with pytest.warns(RuntimeWarning, match=f"After epoch 3 .*{message}"):
        look(**bad)
    assert not getattr(look.model, "stop_training", False)


@pytest.mark.parametrize("loss", ["relativistic", "wasserstein"])
def test_logits_of_a_loss_without_a_threshold_may_be_close(looks, loss):
    look = looks()
    look.model.loss_functions = losses.get(loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            look(real_in_margin=0.0, fake_in_margin=0.0, real_logits=3.0002, fake_logits=3.0)
    with pytest.warns(RuntimeWarning, match="mean logits .* are alike, 9e-05 and 0"):
        look(real_logits=9e-5, fake_logits=0.0)


def test_the_first_look_gives_no_sign_and_the_figure_is_kept(looks):
    look = looks(stop=True)
    logs = look(0.5, 3.0, real_in_margin=0.0, fake_in_margin=0.0, real_logits=0, fake_logits=0)
    assert look.monitor.reason is None and logs["sample_diversity"] == 0.5


def test_patience_counts_looks_in_a_row_and_the_warning_comes_once(looks):
    look = looks(patience=2, stop=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for diversity in (0.2, 0.01, 0.2, 0.01):
            look(diversity)
    with pytest.warns(RuntimeWarning, match="Training stops."):
        look(0.01)
    assert look.model.stop_training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(0.01)


def test_figures_that_are_missing_give_no_sign(looks):
    look = looks()
    look()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(real_in_margin=None, real_logits=None)
        look.monitor.on_epoch_end(5, None)


@pytest.mark.parametrize("num_classes, rows", [(None, 1), (3, 3), (20, 10)])
def test_diversity_is_the_difference_within_a_class(stub_gan, num_classes, rows):
    model = stub_gan(num_classes=num_classes)
    monitor = CollapseMonitor(images_per_class=4, seed=5)
    monitor.set_model(model)
    found = monitor.diversity()
    images = model.generate(rows * 4, seed=5) / 255.0
    squares = [
        np.square(one - other).mean()
        for row in images.reshape(rows, 4, -1)
        for i, one in enumerate(row)
        for other in row[:i]
    ]
    per_class = np.sqrt(np.reshape(squares, (rows, -1)).mean(axis=1))
    assert found == pytest.approx(per_class.mean(), rel=1e-6)
    if num_classes is not None:
        assert np.bincount(model.calls[0]["labels"]).max() == 4


def test_a_killed_run_resumes_although_its_good_state_is_newer(tmp_path):
    model = tiny.build_small_sagan()
    model.compile()
    images = ((tiny.images(4) + 1.0) * 127.0).astype("uint8")

    def kill(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    def fit(*others):
        saved = [
            CollapseMonitor(directory=tmp_path / "good"),
            TrainingCheckpoint(tmp_path, None, 2),
        ]
        data = make_dataset(images, tiny.labels(4), batch_size=4)
        model.fit(data, epochs=4, steps_per_epoch=1, verbose=0, callbacks=[*saved, *others])

    with pytest.raises(KeyboardInterrupt):
        fit(keras.callbacks.LambdaCallback(on_epoch_end=kill))
    assert (tmp_path / "step-2").exists() and (tmp_path / "good/step-3").exists()
    model.steps.assign(0)
    fit()
    assert int(model.steps) == 4 and (tmp_path / "good/step-4").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"diversity_share": 1.0}, r"`diversity_share` must lie in \(0, 1\)"),
        ({"margin_share": 0.0}, r"`margin_share` must lie in \(0, 1\)"),
        ({"logit_gap": -1.0}, "`logit_gap` must not be negative"),
        ({"sigma_factor": 1.0}, "`sigma_factor` must be above 1"),
        ({"patience": 0}, "`patience` must be an integer of at least 1"),
        ({"images_per_class": 1}, "`images_per_class` must be an integer of at least 2"),
        ({"every_epochs": 0}, "`every_epochs` must be an integer of at least 1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        CollapseMonitor(**arguments)


def small_model(collapses):
    """The same networks at equal rates; one has no spectral norm in D, and rates that break it."""
    rate = 5.0 if collapses else 4e-4
    common = {"image_size": 8, "base_filters": 4, "num_classes": 10, "channels": 1}
    common["attention_resolutions"] = (4,)
    model = SAGAN(
        build_generator(latent_dim=16, batch_norm={"momentum": 0.9}, **common),
        build_discriminator(use_spectral_norm=not collapses, **common),
        latent_dim=16,
        num_classes=10,
        seed=0,
        ttur={"g_learning_rate": rate, "d_learning_rate": rate, "beta_2": 0.99},
    )
    model.compile()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("collapses", [True, False])
def test_it_fires_on_a_collapse_and_is_silent_on_a_healthy_run(tmp_path, collapses):
    images, labels = load_fashion_mnist()
    dataset = make_dataset(pad_to_32(images)[:, ::4, ::4], labels, batch_size=16, seed=0)
    model = small_model(collapses)
    monitor = CollapseMonitor(stop=True, directory=tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        history = model.fit(dataset, epochs=6, steps_per_epoch=12, verbose=0, callbacks=[monitor])
    ours = [str(each.message) for each in caught if "collapse" in str(each.message)]
    epochs = len(history.epoch)
    if not collapses:
        assert ours == [] and epochs == 6
        return
    assert len(ours) == 1 and epochs < 6 and str(tmp_path) in ours[0]
    restored = small_model(collapses)
    step = TrainingCheckpoint(tmp_path).restore_latest(restored)
    # The last look without a sign is before the `patience` looks that had one.
    assert 12 <= step <= 12 * (epochs - 2) and step % 12 == 0
    assert all(np.isfinite(keras.ops.convert_to_numpy(w)).all() for w in restored.weights)
