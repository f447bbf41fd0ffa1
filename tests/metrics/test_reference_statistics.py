"""Reference statistics: streamed, in files, of other projects, of the wrong kind."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from keras_sagan.metrics import FeatureExtraction, ReferenceStatistics
from keras_sagan.metrics.frechet_inception_distance import covariance, frechet_distance


class Pixels:
    version = "pixels 1"

    def __call__(self, images):
        return np.reshape(images, (len(images), -1))


class OtherPixels(Pixels):
    version = "pixels 2"


def images_of(count=50, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 1)).astype("uint8")


def computed(images=None, extractor=None, **kwargs):
    extraction = FeatureExtraction(extractor or Pixels(), batch_size=8)
    images = (images_of(), np.arange(50) % 3) if images is None else images
    return ReferenceStatistics.compute(images, extraction, "digits", "train", **kwargs)


def test_streaming_equals_numpy_and_keeps_what_it_is_told():
    reference = computed(keep=("features",))
    features = images_of().reshape(50, 4) / 127.5 - 1.0
    np.testing.assert_allclose(reference.moments.mean, features.mean(0), rtol=1e-6)
    np.testing.assert_allclose(covariance(reference.moments), np.cov(features.T), atol=1e-7)
    np.testing.assert_allclose(reference.arrays["features"], features, atol=1e-6)
    assert reference.class_counts.tolist() == [17, 17, 16] and reference.num_images == 50
    assert computed(images_of()).class_counts is None
    even, odd = reference.split()
    np.testing.assert_allclose(even.moments.mean, features[::2].mean(0), rtol=1e-5)
    np.testing.assert_allclose(odd.arrays["features"], features[1::2], atol=1e-6)
    assert (even.num_images, odd.num_images) == (25, 25)


def test_memory_does_not_grow_with_the_number_of_images():
    assert computed().arrays.keys() == {"labels"}


def test_the_digest_is_of_the_images_alone():
    first = computed().info["sha256"]
    batches = [images_of()[i : i + 7] for i in range(0, 50, 7)]
    assert computed(batches).info["sha256"] == first
    assert computed(images_of(seed=1)).info["sha256"] != first


def test_file_round_trip(tmp_path):
    first = computed(keep=("features",))
    path = tmp_path / "folder" / "digits.npz"
    first.save(path)
    again = ReferenceStatistics.load(path, Pixels())
    assert again.info == first.info and again.class_counts.tolist() == [17, 17, 16]
    np.testing.assert_allclose(again.moments.scatter, first.moments.scatter, rtol=1e-12)
    np.testing.assert_array_equal(again.arrays["features"], first.arrays["features"])
    np.testing.assert_allclose(again.halves[1].mean, first.halves[1].mean)
    assert [x.name for x in path.parent.iterdir()] == ["digits.npz"]


def test_a_file_whose_writing_is_interrupted_is_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "statistics.npz"
    computed().save(path)
    before = path.read_bytes()

    def write_half(file, **arrays):
        target = file if hasattr(file, "write") else open(file, "wb")
        target.write(b"half")
        target.flush()
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", write_half)
    with pytest.raises(KeyboardInterrupt):
        computed().save(path)
    assert path.read_bytes() == before
    assert [x.name for x in tmp_path.iterdir()] == ["statistics.npz"]


def test_other_projects_read_the_file_as_their_own(tmp_path):
    """As pytorch-fid and clean-fid do it."""
    computed().save(tmp_path / "digits.npz")
    with np.load(tmp_path / "digits.npz") as file:
        mu, sigma = file["mu"][:], file["sigma"][:]
    assert mu.shape == (4,) and mu.dtype == np.float64
    np.testing.assert_allclose(sigma, covariance(computed().moments))


@pytest.fixture
def files_of_two_sets(tmp_path):
    """Two files, and the distance between what they are of."""
    features = []
    for seed in (0, 1):
        images = images_of(seed=seed)
        computed(images).save(tmp_path / f"{seed}.npz")
        features.append(images.reshape(50, 4) / 127.5 - 1.0)
    first, second = ((x.mean(0), np.cov(x, rowvar=False)) for x in features)
    return [str(tmp_path / f"{seed}.npz") for seed in (0, 1)], frechet_distance(*first, *second)


# Each in a process of its own: torchvision and TensorFlow crash in one.
READERS = {
    "pytorch_fid": """
from pytorch_fid.fid_score import calculate_frechet_distance, compute_statistics_of_path
first, second = (compute_statistics_of_path(path, None, 1, 4, "cpu") for path in sys.argv[1:])
print(calculate_frechet_distance(*first, *second))
""",
    "torch_fidelity": """
import numpy
from torch_fidelity.metric_fid import fid_statistics_to_metric
first, second = (dict(numpy.load(path)) for path in sys.argv[1:])
print(*fid_statistics_to_metric(first, second, verbose=False).values())
""",
}


@pytest.mark.parametrize("package", READERS)
def test_other_projects_find_the_same_distance_in_the_files(package, files_of_two_sets):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} isn't installed")
    paths, expected = files_of_two_sets
    if package == "torch_fidelity":
        pytest.importorskip("torchvision", reason="torch_fidelity imports it.")
    script = "import sys" + READERS[package]
    found = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True
    )
    assert float(found.stdout) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files_of_other_projects_are_read(tmp_path, dtype):
    mean, cov = np.arange(3.0), np.diag([1.0, 2.0, 3.0])
    np.savez_compressed(tmp_path / "cifar10.npz", mu=mean.astype(dtype), sigma=cov.astype(dtype))
    reference = ReferenceStatistics.load(tmp_path / "cifar10.npz", Pixels())
    np.testing.assert_array_equal(covariance(reference.moments), cov)
    assert reference.num_images is None and reference.halves is None
    assert reference.split() == []
    assert reference.info["dataset"] == "cifar10.npz" and len(reference.info["sha256"]) == 64


def test_a_file_of_another_extractor_is_refused(tmp_path):
    computed().save(tmp_path / "digits.npz")
    with pytest.raises(ValueError, match="extractor pixels 2. Received: .*digits.npz .*pixels 1"):
        ReferenceStatistics.load(tmp_path / "digits.npz", OtherPixels())


def test_a_file_of_an_extractor_without_a_version_is_refused(tmp_path):
    def features(images):
        return np.reshape(images, (len(images), -1))

    computed(extractor=features).save(tmp_path / "digits.npz")
    with pytest.raises(ValueError, match="`reference` needs an extractor that can be identified"):
        ReferenceStatistics.load(tmp_path / "digits.npz", features)
    features.version = "pixels, flat"
    computed(extractor=features).save(tmp_path / "digits.npz")
    assert ReferenceStatistics.load(tmp_path / "digits.npz", features).num_images == 50


def test_statistics_of_another_extractor_are_refused():
    from keras_sagan.metrics import evaluate_images

    with pytest.raises(ValueError, match="`reference` must be .* pixels 2.*pixels 1"):
        evaluate_images(images_of(), computed(), "fid", OtherPixels())


def test_features_of_another_width_than_the_file_are_refused(tmp_path):
    from keras_sagan.metrics import evaluate_images

    np.savez(tmp_path / "other.npz", mu=np.zeros(5), sigma=np.eye(5))
    with pytest.raises(
        ValueError, match="the reference have width 5. Received: features of width 4"
    ):
        evaluate_images(images_of(), tmp_path / "other.npz", "fid", Pixels(), verbose=False)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"mu": np.zeros(3)}, "`mu` of shape.*no `mu` and `sigma`, only .'mu'"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"`sigma` has shape \(2, 2\)"),
        ({"feats": np.zeros((5, 3))}, "only .'feats'"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "`mu` has NaN or infinity"),
    ],
)
def test_files_without_statistics_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=f"`reference` must.*{message}"):
        ReferenceStatistics.load(tmp_path / "x.npz")


@pytest.mark.parametrize("part", [0, 100, 600])
def test_a_damaged_file_is_refused(tmp_path, part):
    computed().save(tmp_path / "x.npz")
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(data[:part])
    with pytest.raises(ValueError, match="`reference` must be an intact .npz file.*x.npz"):
        ReferenceStatistics.load(tmp_path / "x.npz")


def test_a_pickle_in_the_file_is_not_run(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    with pytest.raises(ValueError, match="`reference` must be an intact .npz file of plain arrays"):
        ReferenceStatistics.load(tmp_path / "x.npz")


def test_a_file_that_is_not_there_or_not_npz(tmp_path):
    with pytest.raises(FileNotFoundError, match="`reference` must be a file of statistics"):
        ReferenceStatistics.load(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="`path` must end in .npz"):
        ReferenceStatistics.load(tmp_path / "x.pt")


def test_images_of_mixed_shape_are_refused():
    mixed = [images_of(5), np.zeros((5, 3, 2, 1), "uint8")]
    with pytest.raises(ValueError, match=r"same shape.*\(2, 2, 1\).*\(3, 2, 1\) at index 5"):
        computed(mixed)


def test_a_file_with_an_empty_array_of_labels_has_no_labels(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.zeros(5), sigma=np.eye(5), labels=np.zeros(0, int))
    assert ReferenceStatistics.load(tmp_path / "x.npz").class_counts is None


def test_labels_for_a_part_of_the_images_are_refused():
    batches = [(images_of(5), np.zeros(5, int)), images_of(5)]
    with pytest.raises(ValueError, match="`labels` must be 5 class ids, one for each.*labels=None"):
        computed(batches)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(np.zeros(50), "integer class ids"), (np.zeros(49, int), "[0-9]+ class ids")],
)
def test_labels_must_be_integers_one_for_each_image(labels, expected):
    with pytest.raises(ValueError, match=f"`labels` must be {expected}.*Received"):
        computed((images_of(), labels))


def test_fewer_images_than_said_are_refused(tmp_path):
    extraction = FeatureExtraction(Pixels())
    with pytest.raises(
        ValueError, match="`num_images` must be at most the number of images.*60, 50 images"
    ):
        ReferenceStatistics.cached(images_of(), extraction, "digits", "train", 60, tmp_path)
