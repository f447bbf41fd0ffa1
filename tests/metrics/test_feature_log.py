"""Features on disk: whole rows only, whatever the file ends in."""

import warnings

import numpy as np
import pytest

from keras_sagan.metrics.feature_log import FeatureLog


def rows(count, start=0):
    numbers = np.arange(start, start + count)
    return {
        "features": (numbers[:, None] + np.arange(3) / 8).astype("float32"),
        "labels": numbers[:, None].astype("int64"),
    }


def read(folder, key="k"):
    parts = list(FeatureLog(folder, key).read())
    return {name: np.concatenate([x[name] for x in parts]) for name in parts[0]} if parts else {}


@pytest.mark.parametrize("extra", [b"", b"1", b"1" * 19])
def test_what_is_appended_is_read_and_half_a_row_is_cut_off(tmp_path, extra):
    FeatureLog(tmp_path, "k").append(rows(5000))
    with FeatureLog(tmp_path, "k").path.open("ab") as file:
        file.write(extra)
    assert len(read(tmp_path)["labels"]) == 5000
    FeatureLog(tmp_path, "k").append(rows(7, 5000))
    found = read(tmp_path)
    for name, value in rows(5007).items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_another_key_is_another_file_and_nothing_is_nothing(tmp_path):
    FeatureLog(tmp_path, "k").append(rows(3))
    assert read(tmp_path, "other") == {}


def test_a_header_that_was_cut_off_begins_anew(tmp_path):
    log = FeatureLog(tmp_path, "k")
    log.append(rows(3))
    log.path.with_suffix(".json").write_text('{"feat')
    with pytest.warns(UserWarning, match="can't be used and are computed again"):
        assert read(tmp_path) == {} and not log.path.exists()
    log = FeatureLog(tmp_path, "k")
    log.append(rows(2))
    assert len(read(tmp_path)["labels"]) == 2
    log.remove()
    assert list(tmp_path.iterdir()) == []


def test_rows_in_the_middle_and_a_cut(tmp_path):
    log = FeatureLog(tmp_path, "k")
    assert log.rows(0, 3) == {}
    log.append(rows(10))
    assert log.rows(4, 6)["labels"][:, 0].tolist() == [4, 5]
    assert log.rows(8, 20)["labels"][:, 0].tolist() == [8, 9] and log.rows(10, 12) == {}
    log.truncate(4)
    assert len(read(tmp_path)["labels"]) == 4


def test_rows_of_another_kind_are_refused(tmp_path):
    log = FeatureLog(tmp_path, "k")
    log.append(rows(2))
    with pytest.raises(ValueError, match="`features` must be as those before.*Received: .*int64"):
        log.append({"labels": np.zeros((2, 1), "int64")})


@pytest.mark.parametrize("before", [0, 4])
def test_of_two_writers_the_rows_of_one_are_taken_once(tmp_path, before):
    """As where a file system has no locks."""
    if before:
        FeatureLog(tmp_path, "k").append(rows(before))
    first, second = FeatureLog(tmp_path, "k"), FeatureLog(tmp_path, "k")
    for start in range(before, before + 9, 3):
        first.append(rows(3, start))
        second.append(rows(3, start))
    with pytest.warns(UserWarning, match="two evaluations wrote them at the same time"):
        found = read(tmp_path)
    np.testing.assert_array_equal(found["labels"], rows(before + 3)["labels"])
    FeatureLog(tmp_path, "k").append(rows(2, before + 3))
    np.testing.assert_array_equal(read(tmp_path)["features"], rows(before + 5)["features"])


def test_a_damaged_row_is_computed_again(tmp_path):
    log = FeatureLog(tmp_path, "k")
    log.append(rows(5000))
    content = bytearray(log.path.read_bytes())
    content[4500 * len(content) // 5000] ^= 1
    log.path.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match="from image number 4500 on are computed again"):
        assert len(read(tmp_path)["labels"]) == 4500


def test_an_end_before_the_first_row(tmp_path):
    log = FeatureLog(tmp_path, "k")
    log.append(rows(3))
    log.path.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path) == {}
