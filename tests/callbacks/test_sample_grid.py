import sys

import numpy as np
import pytest

from keras_sagan.callbacks import SampleGrid
from keras_sagan.visualization import sample_grid
from keras_sagan.visualization.grid import read_image


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_grid_before_training_and_after_each_epoch(tmp_path, stub_gan, run_fit):
    model = stub_gan(num_classes=3)
    run_fit(model, [SampleGrid(tmp_path / "runs", images_per_class=4, seed=5)])
    assert files(tmp_path / "runs") == [f"samples_epoch_00{epoch}.png" for epoch in range(3)]
    assert len({path.read_bytes() for path in (tmp_path / "runs").iterdir()}) == 3
    for call in model.calls:
        assert call["num_images"] == 12 and call["seed"] == 5
        assert call["labels"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert call["labels"].dtype == np.int32


def test_rows_without_classes(tmp_path, stub_gan, run_fit):
    pillow = pytest.importorskip("PIL.Image")
    model = stub_gan(num_classes=None)
    run_fit(model, [SampleGrid(tmp_path, images_per_class=3)], epochs=1)
    assert model.calls[0]["num_images"] == 9 and model.calls[0]["labels"] is None
    assert pillow.open(tmp_path / "samples_epoch_001.png").size == (3 * 66 + 2, 3 * 66 + 2)


def test_many_classes_are_spread(tmp_path, stub_gan, run_fit):
    model = stub_gan(num_classes=1000)
    run_fit(model, [SampleGrid(tmp_path, images_per_class=1)], epochs=1)
    assert model.calls[0]["labels"].tolist() == list(range(0, 1000, 100))


def test_rows_have_the_names_of_their_classes(tmp_path, stub_gan, run_fit):
    names, model = [f"class {chr(97 + i)}" for i in range(20)], stub_gan(num_classes=20)
    run_fit(model, [SampleGrid(tmp_path, 2, class_names=names)], epochs=1)
    assert model.calls[0]["labels"].tolist() == [i for i in range(0, 20, 2) for _ in range(2)]
    images = np.broadcast_to(np.uint8(0), (20, 8, 8, 1))
    margin = sample_grid(images, names[::2], rows=10).shape[1] - 2 * 66 - 2
    found = read_image(tmp_path / "samples_epoch_000.png")[:, :margin]
    np.testing.assert_array_equal(found, sample_grid(images, names[::2], rows=10)[:, :margin])


def test_every_epochs_and_always_the_last(tmp_path, stub_gan, run_fit):
    run_fit(stub_gan(), [SampleGrid(tmp_path, 1, every_epochs=2)], epochs=5)
    assert files(tmp_path) == [f"samples_epoch_00{epoch}.png" for epoch in (0, 2, 4, 5)]


def test_a_resumed_training_leaves_the_first_grid_alone(tmp_path, stub_gan, run_fit):
    model = stub_gan()
    callback = SampleGrid(tmp_path, 1)
    run_fit(model, [callback], epochs=1)
    first = (tmp_path / "samples_epoch_000.png").read_bytes()
    run_fit(model, [callback], epochs=3, initial_epoch=1)
    assert files(tmp_path) == [f"samples_epoch_00{epoch}.png" for epoch in range(4)]
    assert (tmp_path / "samples_epoch_000.png").read_bytes() == first


@pytest.mark.parametrize("name", ["images_per_class", "every_epochs"])
@pytest.mark.parametrize("value", [0, 1.5])
def test_numbers_are_checked(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer.*Received: {name}={value}"):
        SampleGrid(tmp_path, **{name: value})


def test_each_class_needs_its_name(tmp_path, stub_gan, run_fit):
    with pytest.raises(ValueError, match="`class_names` must name each of the model's 3 classes"):
        run_fit(stub_gan(num_classes=3), [SampleGrid(tmp_path, class_names=["a"])])


def test_chosen_classes_and_truncation(tmp_path, stub_gan, run_fit):
    model = stub_gan(num_classes=3)
    run_fit(model, [SampleGrid(tmp_path, 2, classes=[2, 0], truncation=0.7)], epochs=1)
    assert model.calls[0]["labels"].tolist() == [2, 2, 0, 0]
    assert model.calls[0]["truncation"] == 0.7


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([], "be integer class ids"),
        ([0.5], "be integer class ids"),
        ([3], r"lie in \[0, 3\).* with 3"),
        ([-1], r"lie in \[0, 3\).* with -1"),
    ],
)
def test_classes_out_of_range_are_refused(tmp_path, stub_gan, run_fit, classes, expected):
    with pytest.raises(ValueError, match=f"`classes` must {expected}"):
        run_fit(stub_gan(num_classes=3), [SampleGrid(tmp_path, classes=classes)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("classes", "not be given, as the model has num_classes=None"),
        ("class_names", "be None for an unconditional model"),
    ],
)
def test_classes_of_an_unconditional_model_are_refused(tmp_path, stub_gan, run_fit, name, expected):
    with pytest.raises(ValueError, match=f"`{name}` must {expected}"):
        run_fit(stub_gan(num_classes=None), [SampleGrid(tmp_path, **{name: [0]})])


def test_without_pillow_it_fails_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match='\npip install "\\.\\[plot\\]"$'):
        SampleGrid(tmp_path)


def test_a_gif_of_the_whole_training(tmp_path, stub_gan, run_fit):
    from PIL import Image

    model = stub_gan()
    run_fit(model, [SampleGrid(tmp_path, images_per_class=2, gif=True)])
    run_fit(model, [SampleGrid(tmp_path, images_per_class=2, gif=True)], 3, initial_epoch=2)
    with Image.open(tmp_path / "samples.gif") as picture:
        assert picture.n_frames == 4  # Before training and after three epochs, of both parts.
        for index in range(4):
            picture.seek(index)
            epoch = (index - 1) % 4  # The last one comes first.
            with Image.open(tmp_path / f"samples_epoch_{epoch:03d}.png") as grid:
                np.testing.assert_array_equal(picture.convert("RGB"), grid.convert("RGB"))


def test_a_gif_leaves_out_grids_of_another_size(tmp_path, stub_gan, run_fit):
    from PIL import Image

    run_fit(stub_gan(), [SampleGrid(tmp_path, images_per_class=3)])
    callback = SampleGrid(tmp_path, images_per_class=2)
    assert SampleGrid(tmp_path / "none").save_gif() is None
    run_fit(stub_gan(), [callback], epochs=4, initial_epoch=2)
    with Image.open(callback.save_gif()) as picture:
        assert picture.n_frames == 3


def test_tensorboard_gets_every_grid(tmp_path, stub_gan, run_fit):
    import tensorflow as tf

    run_fit(stub_gan(), [SampleGrid(tmp_path, images_per_class=2, log_dir=tmp_path / "logs")])
    (path,) = (tmp_path / "logs").iterdir()
    seen = {}
    for record in tf.data.TFRecordDataset(str(path)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            assert value.tag == "samples" and value.metadata.plugin_data.plugin_name == "images"
            width, height, png = tf.make_ndarray(value.tensor)
            seen[event.step] = tf.io.decode_png(png).numpy()
            assert seen[event.step].shape[:2] == (int(height), int(width))
    assert sorted(seen) == [0, 1, 2]
    for step, pixels in seen.items():
        written = tf.io.decode_png(tf.io.read_file(str(tmp_path / f"samples_epoch_{step:03d}.png")))
        np.testing.assert_array_equal(pixels, written.numpy())
