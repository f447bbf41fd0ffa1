"""Damaged and foreign files of statistics end in an error that names the file, at once."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from tiny_evaluation import Pixels, measure, real_images

from keras_sagan.metrics import EvaluationReport, FeatureExtraction, ReferenceStatistics

DIM = 16
MOMENTS = {"mu": np.zeros(DIM), "sigma": np.eye(DIM)}


def saved(path, keep=("features", "logits")):
    extraction = FeatureExtraction(Pixels())
    reference = ReferenceStatistics.compute(
        real_images(20), extraction, "digits", "test", ("features", "logits"), keep
    )
    reference.save(path)
    return reference


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a whole file."""
    path = tmp_path_factory.mktemp("whole") / "x.npz"
    saved(path)
    return path.read_bytes()


def load(path):
    return ReferenceStatistics.load(path, Pixels())


def assert_refused(path, message=""):
    with pytest.raises(ValueError, match=f"`reference` .*Received: .*{path.name}.*({message})"):
        load(path)


@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file(tmp_path, whole, part):
    (tmp_path / "x.npz").write_bytes(whole[: int(part * len(whole))])
    assert_refused(tmp_path / "x.npz", "BadZipFile")


def test_a_file_with_any_byte_changed(tmp_path, whole):
    """Some bytes mean nothing, as the time of day; what is read is then as it was written."""
    (tmp_path / "x.npz").write_bytes(whole)
    expected = load(tmp_path / "x.npz")
    refused = 0
    for position in np.random.default_rng(0).integers(0, len(whole), 150):
        content = bytearray(whole)
        content[position] ^= 0x55
        (tmp_path / "x.npz").write_bytes(bytes(content))
        try:
            found = load(tmp_path / "x.npz")
        except ValueError as error:
            assert "x.npz" in str(error)
            refused += 1
            continue
        np.testing.assert_array_equal(found.moments.scatter, expected.moments.scatter)
        for name in found.arrays:
            np.testing.assert_array_equal(found.arrays[name], expected.arrays[name])
    assert refused > 75


def rewritten(path, whole, **changes):
    """The whole file with other arrays; `None` leaves one out."""
    with np.load(io.BytesIO(whole)) as file:
        arrays = {**file, **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def info(whole, **changes):
    with np.load(io.BytesIO(whole)) as file:
        found = {**json.loads(str(file["info"])), **changes}
    return np.array(json.dumps({k: v for k, v in found.items() if v != "absent"}))


def test_a_rewritten_file_is_read(tmp_path, whole):
    assert load(rewritten(tmp_path / "x.npz", whole, other=np.ones(3))).num_images == 20


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mu": None}, "no `mu` and `sigma`"),
        ({"sigma": None}, "no `mu` and `sigma`"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"`mu` has shape \(0,\)"),
        ({"labels": np.zeros(0, int)}, "`labels` has shape"),
        ({"mu": np.zeros((DIM, 1))}, "`mu` has shape"),
        ({"mu": np.array(["a"] * DIM)}, "`mu` has shape .* dtype <U1"),
        ({"sigma": np.eye(DIM) * 1j}, "`sigma` has shape .* dtype complex"),
        ({"mu": np.array([{}] * DIM)}, "Object arrays cannot be loaded"),
        ({"info": np.array([1])}, "TypeError"),
        ({"info": np.array("[]")}, "TypeError"),
        ({"info": np.array("{}")}, "KeyError"),
        ({"info": np.array("[" * 100_000)}, "RecursionError"),
        ({"info": np.array('{"dataset": ')}, "JSON"),
        ({"features": np.zeros((20, DIM - 1), "float32")}, "`features` has shape"),
        ({"features": np.zeros(20, "float32")}, "`features` has shape"),
        ({"features": np.zeros((19, DIM), "float32")}, "`features` has shape"),
        ({"features": np.full((20, DIM), np.nan)}, "`features` has NaN or infinity"),
        ({"logits": np.zeros((21, 3))}, "`logits` has shape"),
        ({"labels": np.zeros(20)}, "`labels` has shape .* dtype float64"),
        ({"labels": np.full(20, -1)}, "`labels` must lie in"),
        ({"labels": np.full(20, 10**12)}, "`labels` must lie in"),
        ({"half_counts": None}, "halves"),
        ({"half_scatters": None}, "halves"),
        ({"half_counts": np.array([0, 20])}, "halves"),
        ({"half_counts": np.array([11, 10])}, "halves"),
        ({"half_means": np.zeros((2, 3))}, "`half_means` has shape"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, whole, changes, message):
    assert_refused(rewritten(tmp_path / "x.npz", whole, **changes), message)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_images": "many"},
        {"num_images": 0},
        {"num_images": True},
        {"sha256": "absent"},
        {"feature_extractor": 3},
    ],
)
def test_an_info_that_does_not_fit(tmp_path, whole, changes):
    path = rewritten(tmp_path / "x.npz", whole, info=info(whole, **changes))
    assert_refused(path, "")


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "x.npz"
    zipped(path, {"model.json": "{}", "weights.h5": b"\x89HDF"})
    assert_refused(path, "no `mu` and `sigma`, only .'model.json'")
    zipped(path, {})
    assert_refused(path, "no `mu` and `sigma`")
    for content in (npy(np.eye(3)), b"\x80\x04N.", b"[1, 2]", b"PK\x05\x06"):
        path.write_bytes(content)
        assert_refused(path, "BadZipFile")


def header(shape, dtype="<f8"):
    file = io.BytesIO()
    description = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, description)
    return file.getvalue()


def zeros(side):
    return header((side, side)) + bytes(8 * side * side)


@pytest.mark.parametrize(
    "members",
    [
        # 72 MB that are stored in 70 KB, and fit each other.
        lambda: {"mu.npy": npy(np.zeros(3000)), "sigma.npy": zeros(3000)},
        # A header of 32 MB.
        lambda: {"mu.npy": b"\x93NUMPY\x02\x00" + (2**25).to_bytes(4, "little") + b" " * 2**25},
        # What nobody asked for isn't unpacked, whatever it is.
        lambda: {**{f"{x}.npy": npy(y) for x, y in MOMENTS.items()}, "info.npy": zeros(3000)},
    ],
)
def test_a_bomb_is_refused_before_memory_is_taken(tmp_path, members):
    zipped(tmp_path / "x.npz", members())
    tracemalloc.start()
    assert_refused(tmp_path / "x.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize(
    "members",
    [
        lambda: {"mu.npy": npy(np.zeros(2)), "sigma.npy": header((10**6, 10**6)) + bytes(32)},
        lambda: {"mu.npy": header((2**62,)) + bytes(16), "sigma.npy": npy(np.eye(2))},
        lambda: {"mu.npy": npy(np.zeros(2)), "sigma.npy": header((-1, -2))},
    ],
)
def test_headers_that_promise_more_than_there_is(tmp_path, members):
    zipped(tmp_path / "x.npz", members())
    assert_refused(tmp_path / "x.npz")


def test_what_nobody_asked_for_is_not_unpacked(tmp_path):
    members = {**{f"{x}.npy": npy(y) for x, y in MOMENTS.items()}, "other.npy": zeros(3000)}
    zipped(tmp_path / "x.npz", members)
    tracemalloc.start()
    np.testing.assert_array_equal(load(tmp_path / "x.npz").moments.mean, MOMENTS["mu"])
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()


def test_statistics_of_inception_are_read_however_well_they_compress(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    assert load(tmp_path / "x.npz").moments.mean.shape == (2048,)


@pytest.mark.parametrize("other", [{"labels": np.zeros(0, int)}, {"features": np.ones((9, DIM))}])
def test_a_file_of_another_project_with_more_in_it(tmp_path, other):
    np.savez(tmp_path / "x.npz", **MOMENTS, **other)
    assert load(tmp_path / "x.npz").num_images is None


# A folder of cached statistics


def cached(tmp_path, **kwargs):
    return measure(cache_dir=tmp_path, metrics="fid", **kwargs)


def test_a_damaged_cached_file_is_named(tmp_path):
    cached(tmp_path)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path.name}.*Remove it, and compute"):
        cached(tmp_path)


# Reports


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"format": 1}'])
def test_a_damaged_report_is_named(tmp_path, content):
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(ValueError, match="`path` must be a file that .*save` wrote.*report.json"):
        EvaluationReport.load(tmp_path / "report.json")
