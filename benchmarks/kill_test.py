"""Kills a training process at random moments, and compares its end with an undisturbed run's.

Command:   python benchmarks/kill_test.py --json
Time:      10 minutes on two cores, longer where others use them too
Result:    benchmarks/results/kill_test.json and the table of benchmarks/logs/checkpoints.md; the
           exit code says whether all was well

A checkpoint is written after every step. Of five kills, three come at a random moment, one at a
random moment of the start (building, restoring, tracing), and one as soon as the files of a
checkpoint that isn't complete are seen, or up to a millisecond later. After each kill the process
starts again with other initial weights and goes on. In the end all state must have the bits of a
run without kills, and the figures of every epoch must agree (to rounding on two replicas, whose
sums of the epoch so far are stored added up).
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

TARGET = common.ROOT / "tests" / "integration" / "kill_target.py"
STEPS_PER_EPOCH = 7
MOST_STEPS = 16  # Of a life.
MOMENTS = ("random", "random", "writing", "random", "start")  # In turn.
ROUNDING = {"plain": 0.0, "xla": 0.0, "mirrored": 1e-6, "jax": 0.0, "torch": 0.0}
DEVICES = {
    "plain": "one device",
    "xla": "one device, `jit_compile=True`",
    "mirrored": "`MirroredStrategy`, 2 logical CPU devices",
    "jax": "JAX, one device",
    "torch": "PyTorch, one device",
}


class Target:
    """The process that forks the processes to be killed."""

    def __init__(self, mode, epochs):
        self.job = {"mode": mode, "epochs": epochs}
        paths = [str(common.ROOT), os.environ.get("PYTHONPATH", "")]
        self.server = subprocess.Popen(
            [sys.executable, str(TARGET)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "KERAS_BACKEND": mode if mode in ("jax", "torch") else "tensorflow",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, workdir, every_steps):
        """Returns the id of the process that now trains."""
        job = {**self.job, "workdir": str(workdir), "every_steps": every_steps}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def exit_code(self):
        return int(self.server.stdout.readline())

    def finish(self, workdir, every_steps):
        """Lets a process train to the end, and returns what it left."""
        self.start(workdir, every_steps)
        if self.exit_code() != 0:
            raise RuntimeError((workdir / "log").read_text()[-4000:])
        return json.loads((workdir / "final.json").read_text())

    def close(self):
        self.server.stdin.close()
        self.server.wait(60)


def last_line(path):
    """The last whole line of a file of numbers, or 0."""
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].split()
    return int(lines[-1]) if lines else 0


def figures(workdir):
    """Pairs of epoch and figures; an epoch whose end was reached twice comes twice."""
    return [json.loads(line) for line in (workdir / "epochs").read_text().splitlines()]


def largest_difference(received, expected):
    """Of the figures of all epochs, relative to 1 or to the figure, whichever is larger."""
    expected = dict(expected)
    if {epoch for epoch, _ in received} != set(expected):
        raise RuntimeError(f"Not the same epochs: {received}, {expected}")
    return max(
        abs(values[name] - value) / max(1.0, abs(value))
        for epoch, values in received
        for name, value in expected[epoch].items()
    )


def incomplete(run):
    """The checkpoints of a folder that are being written or removed, by name."""
    names = {re.match(r"step-\d+", path.name)[0] for path in run.glob("step-*")}
    return sorted(names - {path.parent.name for path in run.glob("step-*/manifest.json")})


def kill_once(target, workdir, moment, rng, start_seconds):
    """One life: returns what is known of it, and the seconds it took to its first step."""
    progress, run = workdir / "progress", workdir / "run"
    at_start = moment == "start"
    before = last_line(progress)
    began = time.monotonic()
    process = target.start(workdir, 1)
    # Counted in steps, so that a fast machine doesn't end before it is killed.
    steps = MOST_STEPS if at_start else rng.randint(1, MOST_STEPS)
    deadline = began + (rng.uniform(0.0, start_seconds) if at_start else 300.0)
    while time.monotonic() < deadline and last_line(progress) < before + steps:
        if not at_start and last_line(progress) == before:
            start_seconds = time.monotonic() - began
        time.sleep(0.002)
    if moment == "writing":
        while time.monotonic() < deadline and not incomplete(run):
            pass
    # About a step with its checkpoint, or the writing of its files.
    time.sleep(rng.uniform(0.0, 0.001 if moment == "writing" else 0.03))
    os.kill(process, signal.SIGKILL)
    code = target.exit_code()
    if code != -signal.SIGKILL:
        raise RuntimeError(
            f"It ended by itself with {code}: {(workdir / 'log').read_text()[-4000:]}"
        )
    row = {"from_step": before, "step": last_line(progress), "incomplete": incomplete(run)}
    return row, start_seconds


def counts_of(rows):
    """What became of the processes that were killed, from what `kill_once` returned."""
    return {
        "kills": len(rows),
        "kills_within_writing_or_removing": sum(bool(row["incomplete"]) for row in rows),
        # In its start, or in its first step with the checkpoint of it.
        "kills_before_a_first_step_was_done": sum(x["step"] == x["from_step"] for x in rows),
        "began_after_steps": [row["from_step"] for row in rows],
        "killed_after_steps": [row["step"] for row in rows],
    }


def run_mode(mode, kills, seed):
    rng = random.Random(seed)
    epochs = 2 + kills * (MOST_STEPS + 6) // STEPS_PER_EPOCH
    rows, start_seconds, began = [], 5.0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed, killed = Path(scratch) / "undisturbed", Path(scratch) / "killed"
        target = Target(mode, epochs)
        try:
            expected = target.finish(undisturbed, None)
            while len(rows) < kills:
                moment = MOMENTS[len(rows) % len(MOMENTS)]
                row, start_seconds = kill_once(target, killed, moment, rng, start_seconds)
                rows.append(row)
                print(f"{mode}: kill {len(rows)} of {kills} after step {row['step']}", flush=True)
            received = target.finish(killed, 1)
        finally:
            target.close()
        difference = largest_difference(figures(killed), figures(undisturbed))
        restored = (killed / "log").read_text().count("Restored step")
        damaged = (killed / "log").read_text().count("is damaged")
    return {
        "mode": mode,
        **counts_of(rows),
        "steps": expected["steps"],
        "starts_that_restored": restored,
        "damaged_checkpoints": damaged,
        "same_bits": received == expected,
        "largest_difference_of_an_epochs_figure": difference,
        "digest": received["digest"]["all"],
        "seconds": round(time.monotonic() - began, 1),
    }


def table(runs):
    """The table of benchmarks/logs/checkpoints.md."""
    columns = (
        "kills",
        "within writing or removing a checkpoint",
        "before a first step was done",
        "damaged checkpoints",
        "same bits as undisturbed",
        "largest difference of an epoch's figure",
    )
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for run in runs:
        cells = (
            f"{DEVICES[run['mode']]}, {run['steps']} steps",
            run["kills"],
            run["kills_within_writing_or_removing"],
            run["kills_before_a_first_step_was_done"],
            run["damaged_checkpoints"],
            "yes" if run["same_bits"] else "no",
            f"{run['largest_difference_of_an_epochs_figure']:.2g}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main(arguments=None):
    parser = common.argument_parser(__doc__, "kill_test")
    parser.add_argument("--kills", type=int, default=25, help="of the plain run")
    parser.add_argument("--other_kills", type=int, default=5, help="of each other mode")
    parser.add_argument("--modes", nargs="+", default=list(DEVICES))
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(arguments)
    runs = []
    for mode in settings.modes:
        kills = settings.kills if mode == "plain" else settings.other_kills
        runs.append(run_mode(mode, kills, settings.seed))
        print(json.dumps(runs[-1]), flush=True)
    is_well = all(
        run["same_bits"]
        and run["damaged_checkpoints"] == 0
        and run["largest_difference_of_an_epochs_figure"] <= ROUNDING[run["mode"]]
        for run in runs
    )
    packages = ("keras", "tensorflow", "jax", "torch")
    common.record(__file__, settings.json, arguments, packages, all_well=is_well, runs=runs)
    print(table(runs))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
