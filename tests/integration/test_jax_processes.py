"""Two processes of JAX with two devices each: equal to one, told what they may not do, killed."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import backend_target
import numpy as np
import pytest
from on_backends import SETTINGS

if importlib.util.find_spec("jax") is None:
    pytest.skip("JAX isn't installed.", allow_module_level=True)

pytestmark = pytest.mark.slow
TARGET = Path(__file__).parent / "jax_processes_target.py"
PATIENCE = 400  # Seconds that nothing may take, however busy the machine is.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes wrote, each of which was killed once, and one process alone."""
    folder = tmp_path_factory.mktemp("processes")
    path = os.pathsep.join([str(TARGET.parents[2]), *sys.path])
    names = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    with open(folder / "log-target", "w") as log:
        target = subprocess.Popen(
            [sys.executable, str(TARGET), str(folder)],
            env={**os.environ, **SETTINGS, **names},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = target.wait(PATIENCE)
        assert code == 0, "\n".join(path.read_text() for path in sorted(folder.glob("log-*")))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(target.pid, signal.SIGKILL)
    return folder


def log(folder, index):
    return (folder / f"log-{index}").read_text()


def told(folder, index, name="told"):
    return json.loads((folder / f"{name}-{index}.json").read_text())


def test_two_processes_equal_one(folder):
    alone, first, second = (told(folder, index) for index in (None, 0, 1))
    for index in (0, 1):
        backend_target.assert_close(
            folder / "state-None.npz", folder / f"state-{index}.npz", 1e-5, moves=False
        )
    for name in ("history", "evaluated"):
        assert first[name] == second[name] == pytest.approx(alone[name], abs=1e-5)
    assert first["seed"] == second["seed"]
    assert first["generated"] == second["generated"]
    assert np.abs(np.subtract(first["generated"], alone["generated"])).max() <= 1
    assert [x["replicas"] for x in (alone, first, second)] == [1, 4, 4]
    assert not any(x["catches_sigterm"] for x in (alone, first, second))


def test_the_first_process_writes(folder):
    for index, writes in ((None, True), (0, True), (1, False)):
        assert told(folder, index)["chief"] is writes
        assert (folder / f"drawn-{index}" / "samples_epoch_001.png").is_file() is writes
        assert (folder / f"history-{index}.json").is_file() is writes


def test_what_processes_may_not_do_is_told(folder):
    first, second = told(folder, 0), told(folder, 1)
    assert first["decides"] == second["decides"] == "True"
    for name in ("arrays", "evaluate", "validation", "agree", "uneven", "cut by Keras"):
        assert first[name] == second[name]
    for name, argument in (("arrays", "x"), ("evaluate", "x"), ("validation", "validation_data")):
        assert first[name].startswith(f"ValueError: `{argument}` must be a dataset that yields")
        assert "keras_sagan.data.make_dataset" in first[name]
    assert "`seed` must be the same on all workers" in first["agree"]
    assert "Received: seed=5 on worker 0, 6 on worker 1" in first["agree"]
    assert first["nan"].endswith("Received: a bad batch on worker 1")
    assert second["nan"].startswith("ValueError: `images` must be finite")
    assert "must yield batches that the replicas divide: use drop_remainder" in first["uneven"]
    assert "auto_shard_dataset=False" in first["cut by Keras"]


def test_a_killed_process_is_noticed(folder):
    for killed, code, seconds in json.loads((folder / "killed.json").read_text()):
        assert killed == -signal.SIGKILL and code != 0 and seconds <= 60, (killed, code, seconds)
    assert "peer" in log(folder, 0).splitlines()[-1]  # Of the connection.


def test_the_pair_resumes_to_the_bit(folder):
    """From the checkpoint that the first one wrote, by a data set that each cuts."""
    ended = [told(folder, index, "ended") for index in (0, 1)]
    assert ended[0] == ended[1]
    assert [told(folder, index, "resumed")["digest"] for index in (0, 1)] == 2 * [
        ended[0]["digest"]
    ]
    assert "Restored step 4 (1 steps into epoch 2)" in log(folder, "0-again")
    assert "Restored step 5 (2 steps into epoch 2)" in log(folder, "0-resume")
    assert "Restored" not in log(folder, "1-again") + log(folder, "1-resume")
    alone = told(folder, None, "ended")
    assert ended[0]["history"] == pytest.approx(alone["history"], abs=1e-4)
