"""What a report says about few images, and about gray and color ones."""

import numpy as np
import pytest

from keras_sagan.metrics import EvaluationReport, FolderImages, evaluate_images
from keras_sagan.metrics.evaluation import check_same_channels


def means(images):
    return images.mean((1, 2))


def images_of(count, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, channels)).astype("uint8")


def evaluated(count, reference, metrics=("fid", "kid"), **kwargs) -> EvaluationReport:
    return evaluate_images(images_of(count), reference, metrics, means, verbose=False, **kwargs)


def test_the_kid_comes_first_for_few_images_and_a_note_says_why():
    report = evaluated(9, images_of(12, seed=1))
    assert list(report.values)[0] == "kid" and list(report.values)[-1] == "fid"
    assert report.notes[0].startswith("A FID of fewer than 2,000 images is mostly bias")
    first = str(report).split("\n")[1].split()
    assert first[0] == "kid" and float(first[2]) == pytest.approx(
        report.baselines["real"]["kid"], rel=1e-4
    )
    report = evaluated(9, images_of(12), "kid")
    assert not any("bias" in note for note in report.notes)
    assert "kid of fewer than 100 images is mostly noise" in report.notes
    assert "Fréchet" not in report.baselines["real"]["note"]
    (note,) = evaluated(9, images_of(12), "fid").notes
    assert note.startswith("A FID of fewer") and "KID" not in note


def test_images_of_other_sizes_are_noted():
    reference, held_out = images_of(12)[:, :2], images_of(12, seed=1)[:, :, :3]
    first, second, *_ = evaluated(9, reference, "memorization", held_out=held_out).notes
    assert first.startswith("The held-out images have 4 × 3 pixels and the reference images 2 × 4")
    assert second.startswith("The generated images have 4 × 4 pixels and the reference images 2")


@pytest.mark.parametrize(
    "count, message",
    [
        (12, "`held_out` must contain other images than `reference`"),
        (1, "`held_out` must contain at least 2 images. Received: 1"),
        (0, "`held_out` must contain at least 2 images. Received: 0"),
    ],
)
def test_held_out_images_that_say_nothing(count, message):
    with pytest.raises(ValueError, match=message):
        evaluated(9, images_of(12, seed=1), "memorization", held_out=images_of(count, seed=1))


def test_many_images_have_the_order_that_was_asked_for():
    report = evaluated(2000, images_of(2000, seed=1))
    assert list(report.values)[0] == "fid" and not any("bias" in x for x in report.notes)


def test_gray_images_are_not_compared_with_color_images():
    with pytest.raises(ValueError, match="both be gray or both be color.*with 3 and.*with 1 chan"):
        evaluated(9, images_of(12, channels=1))
    check_same_channels((4, 4, 3), None)


def test_a_folder_of_gray_and_color_images(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    for index, image in enumerate((images_of(1)[0], images_of(1, 1)[0, ..., 0])):
        image_module.fromarray(image).save(tmp_path / f"{index}.png")
    with pytest.raises(ValueError, match="same size and number of channels.*1.png with"):
        evaluated(2, FolderImages(tmp_path))


@pytest.mark.parametrize(
    "count, reference, metrics, message",
    [
        (1, 9, "kid", "`images` must hold at least 2 images. Received: 1"),
        (9, 1, "kid", "`reference` must hold at least 2 images. Received: 1"),
        (9, 3, "precision_recall", "at least 4 real and 4 generated images.*3 real, 9 gen"),
    ],
)
def test_fewer_images_than_a_score_needs(count, reference, metrics, message):
    with pytest.raises(ValueError, match=message):
        evaluated(count, images_of(reference), metrics)
