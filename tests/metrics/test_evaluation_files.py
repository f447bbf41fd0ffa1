"""What an evaluation keeps in files: cached references, and features of an interrupted one."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_evaluation import Pixels, TinyGAN, measure, real_images

from keras_sagan import metrics
from keras_sagan.metrics import evaluate_images


def test_statistics_are_cached_by_data_set_split_size_and_extractor(tmp_path):
    first, second = Pixels(), Pixels()
    kwargs = {"cache_dir": tmp_path, "metrics": ("fid", "kid")}
    expected = measure(extractor=first, **kwargs)
    report = measure(extractor=second, **kwargs)
    assert report.values == pytest.approx(expected.values, nan_ok=True)
    assert second.images == first.images - 120 - 50  # neither the real images nor the noise
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
        # Anew where a file lacks something, and never for what was there once.
        assert (extractor.images >= 120) is (number in (0, 1, 2))
    assert len(list(tmp_path.glob("*.npz"))) == 1


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
    assert "intra_fid" in report.values and len(list(tmp_path.glob("*.npz"))) == 1


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
    assert second.images == first.images - 120 - 50 and again.values == pytest.approx(
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
        with pytest.raises(ValueError, match="`num_reference` must be no more.*121, 120 images"):
            measure(reference=reference, num_reference=121, metrics="fid")
    metrics.ReferenceStatistics.compute(images, metrics.FeatureExtraction(Pixels()), "digits").save(
        tmp_path / "x.npz"
    )
    with pytest.raises(ValueError, match="`num_reference` is for images"):
        measure(reference=tmp_path / "x.npz", num_reference=100, metrics="fid")


class Interrupted(Pixels):
    """Stops once it has seen so many images."""

    def __init__(self, stop):
        super().__init__()
        self.stop = stop

    def named_outputs(self, images):
        if self.images + len(images) > self.stop:
            raise KeyboardInterrupt
        return super().named_outputs(images)


# Reference, generated, noise, held-out images: 120 + 50 + 50 + 90.
@pytest.mark.parametrize("stop", [64, 120, 150, 170, 200, 240, 305])
def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path, stop):
    kwargs = {"held_out": real_images(90, seed=5), "batch_size": 8, "split": "test"}
    first = Interrupted(stop)
    with pytest.raises(KeyboardInterrupt):
        measure(extractor=first, checkpoint=tmp_path, **kwargs)
    for file in tmp_path.glob("*.features"):
        file.write_bytes(file.read_bytes() + b"half a row")
    extractor = Pixels()
    report = measure(extractor=extractor, checkpoint=tmp_path, **kwargs)
    expected = measure(**kwargs)
    assert report.values == pytest.approx(expected.values, rel=1e-6, nan_ok=True)
    for name, part in expected.baselines.items():
        assert report.baselines[name] == pytest.approx(part, rel=1e-6, nan_ok=True)
    assert extractor.images + first.images == 310 and first.images > stop - 8
    assert list(tmp_path.glob("*")) == []


def test_what_is_in_the_checkpoint_is_not_made_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        measure(extractor=Interrupted(150), checkpoint=tmp_path, batch_size=8)
    model = TinyGAN()
    measure(model, checkpoint=tmp_path, batch_size=8)
    assert len(model.made()) == 50 - 24


def warns(message):
    return pytest.warns(UserWarning, match=message)


class Brighter(TinyGAN):
    """Of the same name and the same latents; another model."""

    def generate(self, *args, **kwargs):
        return np.maximum(super().generate(*args, **kwargs), 40)


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"model": Brighter()}, {"reference": real_images(seed=7)}],
    ids=["seed", "model", "reference"],
)
def test_a_checkpoint_of_other_images_is_not_taken(tmp_path, changes):
    with pytest.raises(KeyboardInterrupt):
        measure(extractor=Interrupted(150), checkpoint=tmp_path, batch_size=8)
    is_noted = "reference" not in changes  # Its images are compared one by one.
    with (
        warns("`checkpoint` holds features of another evaluation")
        if is_noted
        else contextlib.nullcontext()
    ):
        report = measure(checkpoint=tmp_path, batch_size=8, **changes)
    assert report.values == pytest.approx(measure(**changes).values, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("same", [0, 13, 40])
def test_features_of_other_images_are_not_taken(tmp_path, same):
    """A folder of samples that are made anew has its name and its number of images still."""
    images, labels = real_images(50, seed=1)
    kwargs = {"metrics": "fid", "verbose": False, "batch_size": 8, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        evaluate_images(images, real_images(), feature_extractor=Interrupted(160), **kwargs)
    images = np.concatenate([images[:same], 255 - images[same:]])
    extractor = Pixels()
    report = evaluate_images(images, real_images(), feature_extractor=extractor, **kwargs)
    expected = evaluate_images(images, real_images(), "fid", Pixels(), verbose=False)
    assert report.values == pytest.approx(expected.values, rel=1e-6)
    assert extractor.images == 50 - same + 50 and list(tmp_path.glob("*")) == []


@pytest.mark.parametrize("argument", ["checkpoint", "cache_dir"])
def test_files_need_an_extractor_that_can_be_told_from_others(tmp_path, argument):
    with pytest.raises(ValueError, match=f"`{argument}` needs an extractor that can be told"):
        measure(extractor=lambda x: x[:, 0, 0], metrics="fid", **{argument: tmp_path})


# Two evaluations at a time


class Meanwhile(Pixels):
    """Calls a function once, when it has seen so many images."""

    def __init__(self, count, function):
        super().__init__()
        self.count, self.function = count, function

    def named_outputs(self, images):
        if self.function is not None and self.images >= self.count:
            function, self.function = self.function, None
            function()
        return super().named_outputs(images)


@pytest.mark.parametrize("count", [0, 64, 130, 180])
def test_a_second_evaluation_with_the_same_folder_is_refused(tmp_path, count):
    seen = []

    def second():
        others = {"model": Brighter(), "seed": 3}
        for settings in ({}, {"extractor": Interrupted(30)}, others):
            with pytest.raises(ValueError, match="`checkpoint` must be .* no other evaluation"):
                measure(checkpoint=tmp_path / "log", **settings)
        with pytest.raises(ValueError, match="`checkpoint` must be .* no other evaluation"):
            evaluate_images(*real_images(), "fid", Pixels(), checkpoint=tmp_path / "log")
        seen.append(measure(checkpoint=tmp_path / "other").values)

    first = measure(extractor=Meanwhile(count, second), checkpoint=tmp_path / "log", batch_size=8)
    expected = measure().values
    assert first.values == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert seen == [pytest.approx(expected, rel=1e-6, nan_ok=True)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", [{"metrics": "none"}, {"reference": []}, {"num_images": 1}])
def test_after_an_error_the_folder_is_free(tmp_path, fails):
    with pytest.raises(ValueError):
        measure(checkpoint=tmp_path, **fails)
    measure(checkpoint=tmp_path, metrics="fid")


CHILD = """
import os, sys, time
from tiny_evaluation import Pixels, measure

class Slow(Pixels):
    def named_outputs(self, images):
        if self.images >= 64:
            print("half", flush=True)
            time.sleep(600)
        return super().named_outputs(images)

measure(extractor=Slow(), checkpoint=sys.argv[1], batch_size=8)
"""


@pytest.mark.slow
def test_a_killed_evaluation_never_stops_the_next_one(tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as child:
        assert child.stdout.readline() == "half\n"
        with pytest.raises(ValueError, match=f"in use by process {child.pid}"):
            measure(checkpoint=tmp_path)
        child.kill()
    extractor = Pixels()
    report = measure(checkpoint=tmp_path, extractor=extractor, batch_size=8)
    assert report.values == pytest.approx(measure().values, rel=1e-6, nan_ok=True)
    assert extractor.images == 120 + 50 + 50 - 64 and list(tmp_path.glob("*")) == []


def test_a_changed_width_of_features(tmp_path):
    for path in interrupted(tmp_path):
        header = path.with_suffix(".json")
        header.write_text(header.read_text().replace("[16,", "[17,"))
    with warns("are damaged"):
        report = measure(checkpoint=tmp_path, batch_size=8)
    assert report.values == pytest.approx(measure().values, rel=1e-6, nan_ok=True)


def test_a_folder_in_a_bucket_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="`checkpoint` must be a folder on a local disk.*gs://b"):
        measure(checkpoint="gs://b/c")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`checkpoint` must be a folder that can be written.*file"):
        measure(checkpoint=tmp_path / "file")
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


# Features that aren't what their length says


def interrupted(folder, stop=200, **kwargs):
    with pytest.raises(KeyboardInterrupt):
        measure(extractor=Interrupted(stop), checkpoint=folder, batch_size=8, **kwargs)
    return sorted(folder.glob("*.features"), key=lambda path: path.stat().st_mtime_ns)


def doubled(path):
    path.write_bytes(2 * path.read_bytes())


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def reordered(path):
    content = path.read_bytes()
    path.write_bytes(content[len(content) // 2 :] + content[: len(content) // 2])


@pytest.mark.parametrize("damage", [doubled, flipped, reordered])
def test_features_are_not_trusted_by_their_length(tmp_path, damage):
    for path in interrupted(tmp_path):
        damage(path)
    with warns("are damaged, or two evaluations wrote them.*computed again"):
        report = measure(checkpoint=tmp_path, batch_size=8)
    expected = measure()
    assert report.values == pytest.approx(expected.values, rel=1e-6, nan_ok=True)
    noise = expected.baselines["noise"]
    assert report.baselines["noise"] == pytest.approx(noise, rel=1e-6, nan_ok=True)
    assert list(tmp_path.glob("*")) == []


@pytest.mark.parametrize("changes", [{"seed": 1}, {"model": Brighter()}, {"labels": "reference"}])
def test_features_of_another_evaluation_under_the_same_name_are_not_taken(tmp_path, changes):
    """Other weights, another protocol; also where the file that says so was lost."""
    own, other = tmp_path / "own", tmp_path / "other"
    names = [path.name for path in interrupted(own)]
    files = interrupted(other, **changes)
    for name, path in zip(names, files):
        (own / name).write_bytes(path.read_bytes())
    with warns("are damaged, or two evaluations"):
        report = measure(checkpoint=own, batch_size=8)
    expected = measure().values
    assert report.values == pytest.approx(expected, rel=1e-6, nan_ok=True)
    interrupted(own)
    for name, path in zip(names, files):
        for file in (path, path.with_suffix(".json")):
            (own / name).with_suffix(file.suffix).write_bytes(file.read_bytes())
    with warns("can't be used and are computed again"):
        report = measure(checkpoint=own, batch_size=8)
    assert report.values == pytest.approx(expected, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"features": [16, "float32"]}']
    + [b'{"format": 2, "key": [], "layout": {}}', b'{"format": 2, "layout": {"x": [0, "int8"]}}'],
)
def test_a_damaged_description_of_features(tmp_path, content):
    for path in interrupted(tmp_path):
        path.with_suffix(".json").write_bytes(content)
    with warns("can't be used and are computed again"):
        report = measure(checkpoint=tmp_path, batch_size=8)
    assert report.values == pytest.approx(measure().values, rel=1e-6, nan_ok=True)
    assert list(tmp_path.glob("*")) == []
