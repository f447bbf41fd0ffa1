"""What the benchmarks share: the order of calls, ratios, peaks and records."""

import argparse
import json
import sys

import common
import pytest


def test_functions_run_in_turn_and_only_rounds_after_the_warm_up_count():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = common.alternate(functions, rounds=3, warmup=1)
    assert "".join(calls) == "abababab"
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_a_ratio_is_the_median_of_neighbours_not_of_all():
    # The machine slows down by 10 in the last two rounds: the ratio stays 2.
    seconds = {"plain": [2.0, 20.0, 22.0], "fast": [1.0, 10.0, 11.0]}
    figures = common.summarize(seconds)
    assert figures["fast"]["times_faster"] == 2.0 and figures["plain"]["times_faster"] == 1.0
    assert figures["fast"]["median_seconds"] == 10.0 and figures["fast"]["min_seconds"] == 1.0
    assert common.summarize(seconds, "fast")["plain"]["times_faster"] == 0.5


@pytest.mark.slow
def test_a_peer_tells_its_own_seconds(tmp_path):
    script = tmp_path / "peer.py"
    script.write_text(
        "import sys\nprint('loading')\nprint('READY 7', flush=True)\n"
        "for _ in sys.stdin: print(0.25, flush=True)"
    )
    name, command = common.named_command(f"other={sys.executable} -u {script}")
    peer = common.Peer(command)
    seconds = common.alternate({"own": lambda: None, name: peer}, rounds=2, warmup=1)
    peer.close()
    assert seconds["other"] == [0.25, 0.25] and max(seconds["own"]) < 0.25


@pytest.mark.slow
def test_a_peer_that_dies_or_has_no_command_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="ended before it was ready"):
        common.Peer(f"{sys.executable} -c pass")
    peer = common.Peer(f"{sys.executable} -c 'print(\"READY\")'")
    with pytest.raises(RuntimeError, match="ended before its last step. Received: .*READY"):
        peer()
    with pytest.raises(argparse.ArgumentTypeError, match="NAME=COMMAND. Received: other"):
        common.named_command("other")


@pytest.mark.slow
def test_the_peak_of_a_process_of_its_own(tmp_path):
    script = tmp_path / "peak.py"
    script.write_text(
        "import json, sys\n"
        f"sys.path.append({str(common.ROOT / 'benchmarks')!r})\n"
        "import common\n"
        "large = bytearray(b'1') * 300_000_000; del large\n"
        "print('other lines come first')\n"
        "print(json.dumps(common.peak_of(lambda: bytearray(b'1') * int(sys.argv[1]))))"
    )
    peak = common.in_new_process(script, 50_000_000)
    assert 49e6 < peak < 60e6


def test_a_record_says_how_it_was_made(tmp_path):
    path = tmp_path / "folder" / "some.json"
    for peer in (["--peer", "other=python /home/me/step.py --x=y"], ["--peer=other=python a=b"]):
        arguments = ["--dim", "3", *peer, "--json"]
        common.record("/some/where/fid.py", path, arguments, ("numpy", "no-such"), rows=[1, 2])
        record = json.loads(path.read_text())
        command = "python benchmarks/fid.py --dim 3 --peer=other=COMMAND --json"
        assert record["command"] == command and record["rows"] == [1, 2]
    assert set(record["versions"]) == {"python", "keras_sagan", "numpy"}
    assert record["hardware"]["cores"] >= 1 and record["hardware"]["cpu"]


def test_a_table_has_columns(capsys):
    common.print_table([{"form": "plain", "ms": 12.3456}, {"form": "chunked", "ms": 1234.5}])
    assert capsys.readouterr().out.splitlines() == [
        "form        ms",
        "plain     12.3",
        "chunked  1,234",
    ]
