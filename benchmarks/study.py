"""A study of many runs: each is made once, by processes that can be stopped at will.

A script gives `main` its settings, the factors of its runs, and a function that makes one run.
Each run has a record in --workdir, a small file that can be committed; the same command makes the
missing ones. Records of other settings are refused. Checkpoints and caches are in --scratch.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common

PACKAGES = ("keras", "tensorflow", "numpy")
SAVE_EVERY = 250  # Steps.
ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def main(script, text, defaults, all_runs, make, arguments=None, add_arguments=None, seeds=3):
    """Makes the runs that are missing.

    Args:
        script: Path of the benchmark.
        text: Its docstring.
        defaults: Dictionary from the names of integer settings to their defaults.
        all_runs: Function from a number of seeds to a dictionary, from the name of each run to
            its factors.
        make: Function of a run's factors, the settings, the folder for its checkpoints and caches
            and the parsed options, that returns a dictionary ready for JSON.
        arguments: List of arguments. Defaults to `None`: those of the process.
        add_arguments: Function of the parser that adds options which don't change results.
        seeds: Positive integer, the default number of seeds.

    Returns:
        The parsed options, the settings, and a dictionary from the name of each run to its record.
    """
    name = Path(script).stem
    parser = common.argument_parser(text, name)
    for setting, default in defaults.items():
        parser.add_argument(f"--{setting}", type=int, default=default, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=seeds, help="default: %(default)s")
    parser.add_argument("--only", nargs="+", help="names of runs; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once; 0: only this one")
    folder = common.RESULTS / name
    parser.add_argument("--workdir", type=Path, default=folder, help="the folder of the records")
    help_text = "the folder of checkpoints and caches"
    parser.add_argument("--scratch", type=Path, default=Path(f"runs/{name}"), help=help_text)
    others = len(parser._actions)
    if add_arguments:
        add_arguments(parser)
    options = parser.parse_args(arguments)
    settings = {name: getattr(options, name) for name in defaults}
    runs = all_runs(options.seeds)
    if unknown := sorted(set(options.only or ()) - set(runs)):
        parser.error(f"--only must name runs among {list(runs)}. Received: {unknown}")
    runs = {name: runs[name] for name in options.only or runs}
    local = [(x.option_strings[0], getattr(options, x.dest)) for x in parser._actions[others:]]
    local = [str(word) for pair in local if pair[1] is not None for word in pair]

    def command_of(name):
        words = ["--only", name, "--jobs", "0"]
        for key, value in settings.items():
            words += [f"--{key}", str(value)] if value != defaults[key] else []
        return words

    def perform(name):
        """Makes a run in this process, and its file."""
        result = make(runs[name], settings, options.scratch, options)
        path = options.workdir / f"{name}.json"
        beside = path.with_suffix(".part")
        common.record(script, beside, command_of(name), settings=settings, **runs[name], **result)
        os.replace(beside, path)

    def perform_elsewhere(name):
        """Makes a run in a process of its own, with one thread."""
        command = [sys.executable, script, *command_of(name)]
        command += ["--workdir", str(options.workdir), "--scratch", str(options.scratch), *local]
        subprocess.run(command, check=True, env={**os.environ, **dict.fromkeys(ONE_THREAD, "1")})

    missing = [x for x in runs if read(options.workdir / f"{x}.json", runs[x], settings) is None]
    if options.jobs:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(perform_elsewhere, missing))
    else:
        for name in missing:
            perform(name)
    found = {x: read(options.workdir / f"{x}.json", runs[x], settings) for x in runs}
    return options, settings, found


def train(model, dataset, steps, folder):
    """Trains a model, or resumes it from the folder; returns why it isn't finite, or `None`."""
    from keras_sagan import callbacks

    stop = callbacks.StopOnNonFinite(every_steps=25)
    checkpoint = callbacks.TrainingCheckpoint(folder, SAVE_EVERY, keep=1)
    model.fit(dataset, epochs=1, steps_per_epoch=steps, verbose=0, callbacks=[stop, checkpoint])
    return stop.reason


def read(path, run, settings):
    """Returns the record of a run, or `None`; raises ValueError if it is of other settings."""
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    known = json.loads(json.dumps({**run, "settings": settings}))
    if different := [name for name in known if record.get(name) != known[name]]:
        name = different[0]
        raise ValueError(
            "--workdir must hold runs of the same settings. Received: "
            f"{path} with {name}={record.get(name)}, and now {name}={known[name]}"
        )
    return record


def collect(records, shared=("settings",), comparable=("versions",), left_out=("history",)):
    """Returns one record of all runs, in which what they share stands once.

    Raises ValueError if the runs differ in a key that makes them comparable.
    """
    # A run that failed has no protocol.
    first = next((x for x in records.values() if all(x[key] for key in comparable)), None)
    first = first or next(iter(records.values()))
    for name, record in records.items():
        for key in comparable:
            if record[key] and record[key] != first[key]:
                raise ValueError(
                    f"Runs must have one `{key}` to be compared. Received: {name} with "
                    f"{record[key]}, and {first[key]}"
                )
    left_out = (*shared, *left_out, "versions", "hardware", "date")
    return {
        **{key: first[key] for key in shared},
        "runs": {
            name: {key: value for key, value in record.items() if key not in left_out}
            for name, record in records.items()
        },
    }
