"""What an evaluation keeps in files: the statistics and features of its reference."""

import pytest
from tiny_evaluation import Pixels, measure, real_images

from keras_sagan import metrics


def test_statistics_are_cached_by_data_set_split_size_and_extractor(tmp_path):
    first, second = Pixels(), Pixels()
    kwargs = {"cache_dir": tmp_path, "metrics": ("fid", "kid")}
    expected = measure(extractor=first, **kwargs)
    report = measure(extractor=second, **kwargs)
    assert report.values == pytest.approx(expected.values, nan_ok=True)
    assert second.images == first.images - 120  # not the real images
    assert report.baselines["noise"] == pytest.approx(expected.baselines["noise"], nan_ok=True)
    measure(split="train", **kwargs)
    measure(reference=real_images(100), **kwargs)
    assert len(list(tmp_path.glob("*.npz"))) == 3
    images, labels = real_images()
    turned = images.reshape(120, 2, 8, 1), labels  # the same data set at another size
    other = measure(reference=turned, **kwargs)
    assert len(list(tmp_path.glob("*.npz"))) == 4
    assert other.protocol["reference_sha256"] == report.protocol["reference_sha256"]


def test_cached_features_and_logits_do_not_drive_each_other_out(tmp_path):
    extractor = Pixels()
    expected = measure()
    for number, names in enumerate(["fid", ("fid", "kid"), ("inception_score", "fid"), "kid"] * 2):
        extractor.images = 0
        report = measure(cache_dir=tmp_path, metrics=names, extractor=extractor)
        real = report.baselines["real"]
        for name, value in report.values.items():
            assert value == pytest.approx(expected.values[name], nan_ok=True)
            assert real[name] == pytest.approx(expected.baselines["real"][name], nan_ok=True)
        # Anew where no file has it all, and never for what was there once.
        assert (extractor.images >= 120) is (number in (0, 1, 2))
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_cached_statistics_of_other_images_or_labels_are_not_taken(tmp_path):
    images, labels = real_images()
    kwargs = {"metrics": ("fid", "intra_fid"), "cache_dir": tmp_path}
    for reference in ((images, labels), (255 - images, labels), (images, 1 - labels)):
        report = measure(reference=reference, **kwargs)
        expected = measure(reference=reference, metrics=("fid", "intra_fid"))
        assert report.values == pytest.approx(expected.values)
        for name, part in expected.baselines.items():
            assert report.baselines[name] == pytest.approx(part)


def test_labels_that_a_cached_file_lacks_are_added(tmp_path):
    images, labels = real_images()
    measure(reference=images, cache_dir=tmp_path, metrics="fid")
    report = measure(reference=(images, labels), cache_dir=tmp_path, metrics=("fid", "intra_fid"))
    assert "intra_fid" in report.values


def test_an_endless_reference_is_cached_once_its_number_is_said(tmp_path):
    images, labels = real_images()

    def batches():
        while True:
            yield from ((images[i : i + 50], labels[i : i + 50]) for i in range(0, 120, 50))

    first, second = Pixels(), Pixels()
    kwargs = {"cache_dir": tmp_path, "metrics": ("fid", "kid"), "num_reference": 120}
    report = measure(reference=batches(), extractor=first, **kwargs)
    assert report.values == pytest.approx(measure(metrics=("fid", "kid")).values, nan_ok=True)
    again = measure(reference=batches(), extractor=second, **kwargs)
    assert second.images == first.images - 120 and again.values == pytest.approx(
        report.values, nan_ok=True
    )
    with pytest.raises(ValueError, match="`cache_dir` needs .*`num_reference`.*length None"):
        measure(reference=batches(), cache_dir=tmp_path)


def test_fewer_references_and_no_more_than_there_are(tmp_path):
    images, labels = real_images()
    report = measure(num_reference=100, metrics="fid")
    expected = measure(reference=(images[:100], labels[:100]), metrics="fid")
    assert report.values == pytest.approx(expected.values, rel=1e-9)
    assert report.protocol["num_reference"] == 100
    for reference in (images, iter([images])):
        with pytest.raises(ValueError, match="`num_reference` must be at most.*121, 120 images"):
            measure(reference=reference, num_reference=121, metrics="fid")
    metrics.ReferenceStatistics.compute(images, metrics.FeatureExtraction(Pixels()), "digits").save(
        tmp_path / "x.npz"
    )
    with pytest.raises(ValueError, match="`num_reference` is for images"):
        measure(reference=tmp_path / "x.npz", num_reference=100, metrics="fid")


def test_files_need_an_extractor_that_can_be_told_from_others(tmp_path):
    with pytest.raises(ValueError, match="`cache_dir` needs an extractor that can be identified"):
        measure(extractor=lambda x: x[:, 0, 0], metrics="fid", cache_dir=tmp_path)


def test_two_evaluations_may_fill_one_folder_at_the_same_time(tmp_path):
    class Meanwhile(Pixels):
        def named_outputs(self, images):
            if self.images == 64:
                self.images += 1
                measure(metrics="kid", cache_dir=tmp_path)
            return super().named_outputs(images)

    first = measure(extractor=Meanwhile(), metrics="fid", cache_dir=tmp_path)
    assert first.values == pytest.approx(measure(metrics="fid").values, rel=1e-9)
    again = measure(metrics=("fid", "kid"), cache_dir=tmp_path)
    expected = measure(metrics=("fid", "kid")).values
    assert again.values == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz"}
