"""The report: what it prints, JSON in and out, and when it refuses to be compared."""

import json

import numpy as np
import pytest

from keras_sagan.metrics import EvaluationReport

PROTOCOL = {"num_generated": 5000, "seed": 0, "metrics": {"fid": "Frechet"}, "truncation": None}


def report(values=None, **protocol):
    baselines = {
        "real": {"fid": 1.25, "num_images": 2500, "note": "halves"},
        "noise": {"fid": 300.0, "kid": np.nan, "num_images": 5000},
    }
    values = values or {"fid": 12.5, "kid": float("nan")}
    return EvaluationReport(values, baselines, {**PROTOCOL, **protocol}, "sagan")


def test_json_round_trip(tmp_path):
    first = report()
    first.save(tmp_path / "folder" / "report.json")
    again = EvaluationReport.load(tmp_path / "folder" / "report.json")
    assert again.to_json() == first.to_json() and again.protocol == first.protocol
    assert np.isnan(again.values["kid"]) and again.baselines["real"]["note"] == "halves"
    assert json.loads(first.to_json())["values"] == {"fid": 12.5, "kid": None}


def test_it_prints_scores_baselines_and_the_whole_protocol():
    lines = str(report()).split("\n")
    assert lines[0].split() == ["score", "generated", "real", "noise"]
    assert lines[1].split() == ["fid", "12.5", "1.25", "300"]
    assert lines[2].split() == ["kid", "-", "-", "-"]
    assert lines[3].split() == ["images", "5000", "2500", "5000"]
    text = "\n".join(lines)
    assert "real: halves" in text and "model: sagan" in text
    assert "num_generated: 5000" in text and "    fid: Frechet" in text
    assert "'fid': 12.5" in repr(report())


def test_one_protocol_may_be_compared():
    assert report().compare(report({"fid": 10.0})) == {"fid": -2.5}


def test_extractors_that_can_not_be_told_apart_are_refused_unless_it_is_told():
    first, second = (
        EvaluationReport({"fid": x}, {}, {"feature_extractor": "f, without a version"}, "m")
        for x in (1.0, 3.0)
    )
    with pytest.raises(ValueError, match="differ in feature_extractor: 'f, without a version'"):
        first.compare(second)
    assert first.compare(second, ignore="feature_extractor") == {"fid": 2.0}


def test_another_protocol_is_refused_unless_it_is_told():
    first, second = report({"fid": 1.0}), report({"fid": 3.0}, num_generated=50, seed=1)
    with pytest.raises(ValueError, match="num_generated: 5000 and 50; seed: 0 and 1") as caught:
        first.compare(second)
    assert '`ignore=("num_generated", "seed",)`' in str(caught.value)
    with pytest.raises(ValueError, match=r'differ in num_generated.*ignore=\("seed", "num_gen'):
        first.compare(second, ignore="seed")
    assert first.compare(second, ignore=("seed", "num_generated")) == {"fid": 2.0}
    assert first.compare(second, ignore="all") == {"fid": 2.0}
    assert first.differences(report(extra=1)) == {"extra": (None, 1)}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "values": 3}'])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="`text` must be the JSON of an EvaluationReport of form"):
        EvaluationReport.from_json(text)


@pytest.mark.parametrize("value", ["12", None, True])
def test_scores_must_be_numbers(value):
    with pytest.raises(ValueError, match="`values` must be numbers. Received: fid="):
        report({"fid": value})


@pytest.mark.parametrize("value", [np.zeros(2), float("nan")])
def test_the_protocol_must_be_ready_for_json(value):
    with pytest.raises(ValueError, match="`protocol` must be JSON-serializable"):
        report(seed=value)
