"""Two workers of MultiWorkerMirroredStrategy on this machine, each a process: equal, killed."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import support_matrix

ROOT = Path(__file__).parents[2]
TARGET = Path(__file__).parent / "multi_worker_target.py"
PATIENCE = 240  # Seconds that nothing may take, however busy the machine is.


class Jobs:
    """The process that forks the workers; all are one process group, which `close` ends."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        environment.pop("TF_CONFIG", None)
        self.server = subprocess.Popen(
            [sys.executable, str(TARGET)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.answers, self.codes = queue.Queue(), {}
        threading.Thread(target=self._listen, daemon=True).start()
        self._answer("ready")

    def _listen(self):
        for line in self.server.stdout:
            self.answers.put(json.loads(line))
        self.answers.put(None)

    def _answer(self, key):
        """Waits for an answer of a kind; what ends meanwhile is kept in `codes`."""
        while True:
            answer = self.answers.get(timeout=PATIENCE)
            assert answer is not None, "The process that forks the workers has ended."
            if "ended" in answer:
                self.codes[answer["ended"]] = answer["code"]
            if key in answer:
                return answer[key]

    def start(self, function, workdir, ports=None, **job):
        """Returns the ids of the two workers, or of the only one without ports."""
        processes = []
        for index in range(1 if ports is None else 2):
            row = {"function": function, "workdir": str(workdir), **job}
            row |= {} if ports is None else {"index": index, "ports": ports}
            self.server.stdin.write(json.dumps(row).encode() + b"\n")
            self.server.stdin.flush()
            processes.append(self._answer("started"))
        return processes

    def exit_codes(self, processes):
        while not set(processes) <= set(self.codes):
            self._answer("ended")
        return [self.codes[process] for process in processes]

    def close(self):
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()


def free_ports():
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in (one, other)]


def logs(workdir):
    return "\n".join(f"{p}:\n{p.read_text()[-3000:]}" for p in sorted(workdir.glob("*/log")))


def read(workdir, name="final.json"):
    """What each worker wrote down, in their order."""
    return [json.loads((workdir / f"worker-{i}" / name).read_text()) for i in range(2)]


@pytest.fixture(scope="module")
def jobs():
    jobs = Jobs()
    yield jobs
    jobs.close()


@pytest.fixture(scope="module")
def ending(jobs, tmp_path_factory):
    """The folder of two workers that mostly sleep, while the other tests go on, and their ids."""
    workdir = tmp_path_factory.mktemp("ending")
    seconds = 15, 0  # Beyond TensorFlow's heartbeat of 10 seconds.
    return workdir, jobs.start("end", workdir, free_ports(), seconds=seconds)


@pytest.fixture(scope="module")
def alone(jobs, ending, tmp_path_factory):
    """The folder of one device that trains on the same global batches."""
    workdir = tmp_path_factory.mktemp("alone")
    assert jobs.exit_codes(jobs.start("train", workdir)) == [0], logs(workdir)
    return workdir / "alone"


@pytest.fixture(scope="module")
def undisturbed(jobs, tmp_path_factory):
    """The folder of two workers that nobody interrupts."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    workers = jobs.start("train", workdir, free_ports(), every_steps=5)
    assert jobs.exit_codes(workers) == [0, 0], logs(workdir)
    return workdir


@pytest.mark.slow
def test_two_workers_equal_one_device(alone, undisturbed):
    expected = np.load(alone / "epoch-0.npz")
    assert len(expected.files) > 50 and any("vector_u" in name for name in expected)
    assert any("moving_variance" in name for name in expected)
    for index in range(2):
        received = np.load(undisturbed / f"worker-{index}" / "epoch-0.npz")
        assert received.files == expected.files
        for name in expected:  # Weights, u, statistics, averages, slots, counters, figures, FID.
            np.testing.assert_allclose(received[name], expected[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_evaluate_generate_and_callbacks(alone, undisturbed):
    expected, both = json.loads((alone / "final.json").read_text()), read(undisturbed)
    assert both[0] == both[1]  # To the bit.
    assert both[0]["steps"] == expected["steps"] == 10
    assert both[0]["evaluated"] == pytest.approx(expected["evaluated"], abs=1e-5)
    assert both[0]["fid"] == pytest.approx(expected["fid"], rel=1e-3)
    best = undisturbed / "checkpoints" / "best"  # By the figure that worker 0 alone has.
    assert [path.name for path in best.glob("*")] in (["step-5"], ["step-10"])
    differences = np.subtract(both[0]["generated"], expected["generated"])
    assert np.shape(differences) == (5, 8, 8, 1) and np.abs(differences).max() <= 1
    for index in range(2):
        for picture in ("samples_epoch_002.png", "attention_epoch_002.png"):
            assert (undisturbed / f"worker-{index}" / picture).is_file() == (index == 0)


def steps_done(workdir, index):
    """The step of each line that a worker wrote; a restart goes back to an earlier one."""
    path = workdir / f"worker-{index}" / "progress"
    return [int(x) for x in path.read_text().split()] if path.exists() else []


@pytest.mark.slow
def test_a_killed_worker_loses_only_the_steps_since_the_checkpoint(jobs, undisturbed, tmp_path):
    job = {"every_steps": 2, "looks": False}  # Pictures and figures change no bit of a run.
    for victim, step in ((1, 3), (0, 7)):  # Worker 0 is the chief, which writes.
        workers = jobs.start("train", tmp_path, free_ports(), **job)
        deadline = time.monotonic() + PATIENCE
        while step not in steps_done(tmp_path, victim):
            assert time.monotonic() < deadline and not set(workers) & set(jobs.codes), logs(
                tmp_path
            )
            time.sleep(0.01)
        os.kill(workers[victim], signal.SIGKILL)
        codes = jobs.exit_codes(workers)  # The other one ends by itself, by an error.
        assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 1, logs(tmp_path)
    workers = jobs.start("train", tmp_path, free_ports(), **job)
    assert jobs.exit_codes(workers) == [0, 0], logs(tmp_path)
    for index in range(2):
        done = steps_done(tmp_path, index)
        restarts = [i for i in range(1, len(done)) if done[i] <= done[i - 1]]
        assert len(restarts) <= 2 and done[-1] == 10, done
        for i in restarts:  # Each second step is saved: at most the last two are taken again.
            assert done[i] > done[i - 1] - 2, done
    for received, expected in zip(read(tmp_path), read(undisturbed)):
        assert received == expected  # To the bit, what `evaluate` and `generate` say included.
    assert logs(tmp_path).count("Restored step") == 2  # The chief says it for all.


@pytest.mark.slow
def test_workers_that_differ_are_told(jobs, undisturbed, tmp_path):
    """Each is an error on both workers, which would else wait for each other or go astray."""
    folders = [str(undisturbed / "checkpoints"), str(tmp_path / "elsewhere")]
    workers = jobs.start("differ", tmp_path, free_ports(), checkpoints=folders)
    assert jobs.exit_codes(workers) == [0, 0], logs(tmp_path)
    first, second = read(tmp_path, "told.json")
    networks = [told.pop("networks", "") for told in (first, second)]
    for name in ("nan", "later"):
        bad = [told.pop(name) for told in (first, second)]
        assert "`x` must yield good batches on every worker" in bad[0]
        assert bad[0].endswith("Received: a bad batch on worker 1")
        assert bad[1].startswith("ValueError: `images` must be finite. Received: images with NaN")
    assert first == second
    assert first["steps"] == 3  # The first batches of `uneven`, `empty` and `later` were good.
    same = "must be the same on all workers: start them with the same command"
    assert f"ValueError: `preset` {same}" in first["preset"]
    assert 'preset="sagan_fashion_mnist_32" on worker 0, "sagan_cifar10_32"' in first["preset"]
    assert f"ValueError: `seed` {same}" in first["seed"]
    assert "seed=5 on worker 0, 6 on worker 1" in first["seed"]
    assert f"ValueError: `newest_checkpoint` {same}" in first["checkpoint"]
    assert "newest_checkpoint=10 on worker 0, 0 on worker 1" in first["checkpoint"]
    assert f"ValueError: `fid` {same}" in first["fid"]
    assert 'fid="fid_50k" on worker 0, null on worker 1' in first["fid"]
    divide = "ValueError: `x` must yield batches that the replicas divide: use drop_remainder=True"
    assert divide in first["uneven"] and "[3, 2] on 2 replicas" in first["uneven"]
    assert divide in first["empty"] and "[1, 0] on 2 replicas" in first["empty"]
    assert divide in first["batch_size"] and "[2, 4] on 2 replicas" in first["batch_size"]
    assert networks[0].startswith("RuntimeError: The workers must do the same"), networks


@pytest.mark.slow
def test_the_cells_of_the_support_page_are_found_again(jobs, tmp_path):
    record = json.loads((support_matrix.common.RESULTS / "support_matrix.json").read_text())
    workers = jobs.start("support", tmp_path, free_ports())
    assert jobs.exit_codes(workers) == [0, 0], logs(tmp_path)
    first, second = read(tmp_path, "found.json")
    known = record["found"]["multi_worker"]
    assert first == second == {key: known[key] for key in first}, logs(tmp_path)
    assert len(first) == 1


@pytest.mark.slow
def test_the_commands_of_the_page(jobs, tmp_path):
    """The script and the two `TF_CONFIG`s of the page, with this machine for both hosts."""
    page = (ROOT / "docs" / "guides" / "scaling.md").read_text(encoding="utf-8")
    (script,) = re.findall(
        r"^```python title=\"train.py\"\n(.*?)^```", page, re.DOTALL | re.MULTILINE
    )
    ports = free_ports()
    configs = re.findall(r"^export TF_CONFIG='(.*)'\npython train.py$", page, re.MULTILINE)
    for index, port in enumerate(ports):
        configs = [x.replace(f"host{index}:12345", f"127.0.0.1:{port}") for x in configs]
    workers = jobs.start("follow", tmp_path, ports, tf_configs=configs, script=script)
    assert jobs.exit_codes(workers) == [0, 0], logs(tmp_path)
    first, second = read(tmp_path)
    assert first == second and (first["replicas"], first["steps"]) == (2, 2)
    checkpoints = tmp_path / "runs" / "two_hosts" / "checkpoints"
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-2"]


@pytest.mark.slow
def test_a_worker_that_ends_first_is_not_reported_as_crashed(jobs, ending):
    workdir, workers = ending
    assert jobs.exit_codes(workers) == [0, 0], logs(workdir)
    assert "crashed" not in logs(workdir) and "UNAVAILABLE" not in logs(workdir), logs(workdir)
