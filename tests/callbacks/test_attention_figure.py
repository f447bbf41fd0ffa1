import sys

import numpy as np
import pytest

from keras_sagan.callbacks import AttentionFigure


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_one_figure_when_training_ends(tmp_path, stub_gan, run_fit):
    model = stub_gan(num_classes=8)
    run_fit(model, [AttentionFigure(tmp_path / "runs", num_images=4, num_points=1)])
    assert files(tmp_path / "runs") == ["attention_epoch_002.png"]
    call = model.calls[0]
    assert call["latents"].shape == (4, 4) and call["latents"].dtype == np.float32
    assert call["labels"].tolist() == [0, 2, 4, 6]


def test_every_epochs_from_the_same_latents_and_the_last_once(tmp_path, stub_gan, run_fit):
    model = stub_gan(num_classes=None)
    run_fit(model, [AttentionFigure(tmp_path, 1, 1, seed=3, every_epochs=2)], epochs=3)
    assert files(tmp_path) == ["attention_epoch_002.png", "attention_epoch_003.png"]
    looked = [call["latents"] for call in model.calls if call["latents"] is not None]
    first, second = looked
    np.testing.assert_array_equal(first, second)
    expected = np.random.default_rng(3).standard_normal((1, 4))
    np.testing.assert_allclose(first, expected, rtol=1e-6)


def test_each_layer_of_the_generator_has_a_figure(tmp_path, stub_gan, run_fit):
    gammas = ("generator/low", "generator/high", "discriminator/other")
    callback = AttentionFigure(tmp_path, 1, 1, class_names=["a", "b", "c"])
    run_fit(stub_gan(gammas=gammas), [callback], epochs=1)
    assert files(tmp_path) == ["attention_epoch_001_high.png", "attention_epoch_001_low.png"]


def test_a_resumed_training_counts_on(tmp_path, stub_gan, run_fit):
    run_fit(stub_gan(), [AttentionFigure(tmp_path, 1, 1)], epochs=6, initial_epoch=4)
    assert files(tmp_path) == ["attention_epoch_006.png"]


def test_nothing_is_drawn_without_an_epoch(tmp_path, stub_gan, run_fit):
    run_fit(stub_gan(), [AttentionFigure(tmp_path, 1, 1)], epochs=4, initial_epoch=4)
    assert files(tmp_path) == []


def test_points_of_each_image(tmp_path, stub_gan, run_fit):
    points = np.full((2, 1, 2), 3)
    run_fit(stub_gan(), [AttentionFigure(tmp_path, 2, 1, query_points=points)])
    assert files(tmp_path) == ["attention_epoch_002.png"]
    with pytest.raises(ValueError, match="`query_points` must be .* the batch of `images`: 3"):
        run_fit(stub_gan(), [AttentionFigure(tmp_path, 3, 1, query_points=points)])


@pytest.mark.parametrize(
    ("images", "label", "message"),
    [
        (np.full((1, 8, 8, 1), 255.0), 0, r"Float `real_images` must lie in \[-1, 1\]"),
        (np.zeros((1, 8, 8, 1), "uint8"), 3, r"`real_labels` must lie in \[0, 3\)"),
    ],
)
def test_real_images_are_checked_before_training(
    tmp_path, stub_gan, run_fit, images, label, message
):
    model = stub_gan(gammas=("generator/a", "discriminator/b"))
    with pytest.raises(ValueError, match=message):
        run_fit(model, [AttentionFigure(tmp_path, real_images=images, real_labels=[label])])
    assert not model.dense.built


def test_the_discriminators_look_at_real_images(tmp_path, stub_gan, run_fit):
    model = stub_gan(gammas=("generator/self_attention", "discriminator/other"))
    images = np.zeros((2, 8, 8, 1), "uint8")
    run_fit(model, [AttentionFigure(tmp_path, 1, 1, real_images=images, real_labels=[2, 0])])
    assert files(tmp_path) == ["attention_epoch_002.png", "attention_epoch_002_discriminator.png"]
    (call,) = [x for x in model.calls if "latents" in x and np.ndim(x["latents"]) == 4]
    assert call["labels"] == [2, 0] and call["latents"] is images


def test_real_images_need_labels_and_a_discriminator_with_attention(tmp_path, stub_gan, run_fit):
    callback = AttentionFigure(tmp_path, real_images=np.zeros((1, 8, 8, 1), "uint8"))
    with pytest.raises(ValueError, match="`AttentionFigure` .* whose discriminator has"):
        run_fit(stub_gan(), [callback])
    with pytest.raises(ValueError, match="`real_labels` must be given.*num_classes=3"):
        run_fit(stub_gan(gammas=("generator/a", "discriminator/b")), [callback])
    model = stub_gan(num_classes=None, gammas=("generator/a", "discriminator/b"))
    callback.real_labels = [0]
    with pytest.raises(ValueError, match="`real_labels` must not be given.*num_classes=None"):
        run_fit(model, [callback])


def test_one_label_is_not_enough_for_real_images(tmp_path):
    with pytest.raises(ValueError, match="`real_labels` must be a list or None. Received: .*=2"):
        AttentionFigure(tmp_path, real_images=np.zeros((3, 8, 8, 1)), real_labels=2)


def test_points_outside_the_image_are_refused_before_training(tmp_path, stub_gan, run_fit):
    model = stub_gan()
    with pytest.raises(ValueError, match="`query_points` must be .* inside the image, 8 × 8"):
        run_fit(model, [AttentionFigure(tmp_path, query_points=[(1, 8)])])
    assert not model.dense.built


@pytest.mark.parametrize("gammas", [(), ("discriminator/self_attention",)])
def test_a_generator_without_attention_is_refused_before_training(
    tmp_path, stub_gan, run_fit, gammas
):
    with pytest.raises(ValueError, match="`AttentionFigure` must be given a model whose generator"):
        run_fit(stub_gan(gammas=gammas), [AttentionFigure(tmp_path)])


@pytest.mark.parametrize("name", ["num_images", "num_points", "every_epochs"])
def test_numbers_are_checked(tmp_path, name):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer.*Received: {name}=0"):
        AttentionFigure(tmp_path, **{name: 0})


def test_names_must_fit_the_classes(tmp_path, stub_gan, run_fit):
    with pytest.raises(ValueError, match="`class_names` must name each of the model's 3 classes"):
        run_fit(stub_gan(num_classes=3), [AttentionFigure(tmp_path, class_names=["a"])])
    with pytest.raises(ValueError, match="`class_names` must be None for an unconditional model"):
        run_fit(stub_gan(num_classes=None), [AttentionFigure(tmp_path, class_names=["a"])])


def test_without_matplotlib_it_fails_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match='\npip install "\\.\\[plot\\]"$'):
        AttentionFigure(tmp_path)


@pytest.mark.parametrize("channels", [2, 4])
def test_images_that_cannot_be_drawn_are_refused_when_training_begins(
    channels, tmp_path, stub_gan, run_fit
):
    model = stub_gan()
    model.image_shape = (8, 8, channels)
    weights = model.get_weights()
    with pytest.raises(ValueError, match=rf"`AttentionFigure` .* 1 or 3 channels.*{channels}\)"):
        run_fit(model, [AttentionFigure(tmp_path)])
    assert model.get_weights() == weights and not model.dense.built and not files(tmp_path)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 4, 4, 1), (2, 8, 8), ()])
def test_real_images_of_another_shape_are_refused_when_training_begins(
    shape, tmp_path, stub_gan, run_fit
):
    model = stub_gan(gammas=("generator/a", "discriminator/b"))
    model.image_shape = (8, 8, 1)
    callback = AttentionFigure(tmp_path, real_images=np.zeros(shape), real_labels=[0, 1])
    with pytest.raises(ValueError, match=r"`real_images` must have shape \(batch, 8, 8, 1\)"):
        run_fit(model, [callback])
    callback.real_images = np.zeros((3, 8, 8, 1))
    with pytest.raises(ValueError, match="`real_labels` must be .* 3 of them. Received: 2"):
        run_fit(model, [callback])
