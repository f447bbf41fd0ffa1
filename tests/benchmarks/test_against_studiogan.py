"""The comparison with a peer in miniature: a fake peer draws random images."""

import functools
import json
import shlex
import sys

import against_studiogan
import emoji_archives
import numpy as np
import pytest
from tiny_evaluation import MeanColors

from keras_sagan import SAGAN, data, metrics
from keras_sagan.models import PRESETS

# It writes an array of `shape` and `dtype`, which can refer to the settings as `s`.
PEER = """
import json, pathlib, sys
import numpy as np
folder = pathlib.Path(sys.argv[-1])
s = json.loads((folder / "settings.json").read_text())
n = s["num_samples"]
images, labels = (np.load(folder / (name + ".npy")) for name in ("images", "labels"))
assert images.dtype == np.uint8 and len(labels) == len(images) and max(labels) < s["num_classes"]
assert len(s["sample_labels"]) == n and (s["steps"], s["batch_size"]) == (1, 2)
values = np.random.default_rng(s["seed"]).integers(0, 256, {shape})
np.save(folder / "samples.npy", values.astype("{dtype}"))
"""


def peer(shape="(n, 64, 64, 3)", dtype="uint8"):
    return f"{sys.executable} -c {shlex.quote(PEER.format(shape=shape, dtype=dtype))}"


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    emoji_archives.write_archives(monkeypatch, tmp_path)
    words = "--steps 1 --batch_size 2 --num_samples 6 --jobs 0 --seeds 1".split()
    words += ["--emoji", str(tmp_path), "--scratch", str(tmp_path / "runs")]
    return [*words, "--workdir", str(tmp_path / "records"), "--json", str(tmp_path / "all.json")]


@pytest.mark.slow
def test_both_networks_in_miniature(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS["sagan_emoji_64"]["settings"], "base_filters", 4)
    # One step is made, and tracing takes longer than it.
    monkeypatch.setattr(SAGAN, "compile", functools.partialmethod(SAGAN.compile, run_eagerly=True))
    monkeypatch.setattr(metrics, "EfficientNetLite0Features", MeanColors)
    against_studiogan.main([*arguments, "--peer", f"fake={peer()}"])
    records = {x.stem: json.loads(x.read_text()) for x in (tmp_path / "records").iterdir()}
    assert records.keys() == {"keras_sagan_0", "fake_0"}
    assert all(x["scores"].keys() >= {"kid", "fid"} for x in records.values())
    assert all("-c" not in x["command"] for x in records.values())
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["command"].endswith("--peer=fake=COMMAND")
    own, other = (records[x]["scores"] for x in ("keras_sagan_0", "fake_0"))
    assert found["ratios"]["fid"] == own["fid"] / other["fid"]
    assert [row["network"] for row in found["rows"]] == ["keras_sagan", "fake"]
    assert "times the peer's" in capsys.readouterr().out
    # The Fréchet distance of what the fake peer has written, by its definition.
    both = (
        np.load(tmp_path / "runs" / "fake_0" / "samples.npy"),
        data.load_emoji(tmp_path, split="held_out").images,
    )
    made, real = ((x / 127.5 - 1).mean((1, 2)) for x in both)
    covs = [np.cov(x, rowvar=False) for x in (made, real)]
    root = np.sqrt(np.linalg.eigvals(covs[0] @ covs[1]).real.clip(0)).sum()
    fid = ((made.mean(0) - real.mean(0)) ** 2).sum() + np.trace(covs[0] + covs[1]) - 2 * root
    assert other["fid"] == pytest.approx(fid, rel=1e-3)
    # A finished run isn't made again: this peer would fail.
    assert against_studiogan.main([*arguments, "--peer", "fake=false"])["rows"] == found["rows"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        ("false", RuntimeError, "samples.npy and end with status 0. Received: status 1 of false"),
        ("true", RuntimeError, "Received: status 0 of true"),
        (peer("(n, 3, 64, 64)"), ValueError, r"of shape \(6, 64, 64, 3\). Received: uint8 of"),
        (peer(dtype="float32"), ValueError, "Received: float32 of shape"),
    ],
)
def test_a_peer_that_fails_or_writes_something_else(arguments, command, error, message):
    with pytest.raises(error, match=message):
        against_studiogan.main([*arguments, "--peer", f"fake={command}", "--only", "fake_0"])


def test_a_peer_needs_a_name(arguments, capsys):
    with pytest.raises(SystemExit):
        against_studiogan.main([*arguments, "--peer", "command"])
    assert "must be given as NAME=COMMAND. Received: command" in capsys.readouterr().err


def test_rows_have_means_and_bounds():
    runs = [{"network": "a", "scores": {"kid": x, "fid": 2 * x}} for x in (1.0, 2.0, 6.0)]
    runs += [{"network": "b", "scores": {}}]
    assert against_studiogan.rows_of(runs) == [
        {
            **{"network": "a", "seeds": 3, "kid": 3.0, "lowest kid": 1.0, "highest kid": 6.0},
            **{"fid": 6.0, "lowest fid": 2.0, "highest fid": 12.0},
        }
    ]
