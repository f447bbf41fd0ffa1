"""How long is it from the command to the first training step, and what takes the time?

Command:   python benchmarks/startup.py --json
Measures   `import keras_sagan` on top of Keras's own import, and `python
           examples/fashion_mnist.py` until its first training step is done, part by part, each in
           a new process
Result:    benchmarks/results/startup.json and a table; about a minute and a half on 2 CPU cores
"""

import argparse
import json
import os
import runpy
import statistics
import sys
import tempfile
import time

import common

EXAMPLE = common.ROOT / "examples" / "fashion_mnist.py"


def imports():
    """Seconds of importing Keras, and of importing this package after it."""
    start = time.perf_counter()
    import keras  # noqa: F401

    middle = time.perf_counter()
    import keras_sagan  # noqa: F401

    return {"keras": middle - start, "keras_sagan": time.perf_counter() - middle}


def first_step(started, arguments):
    """Runs the example in this process up to its first training step, and prints the parts.

    Args:
        started: Float, when the process was asked for, as of `time.time`.
        arguments: List of the example's arguments.
    """
    marks = {"python": time.time()}
    import keras

    marks["import of Keras and TensorFlow"] = time.time()
    import keras_sagan

    marks["import of keras_sagan"] = time.time()

    class Marks(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            marks["building, checks, callbacks"] = time.time()

        def on_train_batch_begin(self, batch, logs=None):
            marks["first grid of samples, first batch"] = time.time()

        def on_train_batch_end(self, batch, logs=None):
            marks["first step, with its tracing"] = time.time()
            seconds, before = {}, started
            for name, mark in marks.items():
                seconds[name], before = mark - before, mark
            print(json.dumps(seconds), flush=True)
            os._exit(0)

    fit = keras_sagan.SAGAN.fit

    def marked_fit(self, *args, callbacks=(), **kwargs):
        marks["data and model"] = time.time()
        return fit(self, *args, callbacks=[Marks(), *callbacks], **kwargs)

    keras_sagan.SAGAN.fit = marked_fit
    sys.argv = [str(EXAMPLE), *arguments]
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def medians(runs):
    return {name: common.rounded(statistics.median(r[name] for r in runs), 3) for name in runs[0]}


def run_example(arguments):
    with tempfile.TemporaryDirectory() as workdir:
        arguments = ["--workdir", workdir, *arguments]
        return common.in_new_process(__file__, "--first_step", repr(time.time()), *arguments)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--example_arguments", nargs="*", default=[], help="of the example")
    common.add_json_argument(parser, "startup")
    settings = parser.parse_args(arguments)
    rounds = range(settings.repeats)
    imported = medians([common.in_new_process(__file__, "--imports") for _ in rounds])
    runs = [run_example(settings.example_arguments) for _ in rounds]
    parts = medians(runs)
    total = common.rounded(statistics.median(sum(run.values()) for run in runs), 3)
    common.print_table(
        [
            *({"seconds of": f"import {name}", "median": x} for name, x in imported.items()),
            *({"seconds of": name, "median": seconds} for name, seconds in parts.items()),
            {"seconds of": "command to first step", "median": total},
        ]
    )
    common.record(
        __file__,
        settings.json,
        arguments,
        settings={"repeats": settings.repeats, "example_arguments": settings.example_arguments},
        import_seconds=imported,
        first_step_seconds=parts,
        command_to_first_step_seconds=total,
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--imports"]:
        print(json.dumps(imports()))
    elif sys.argv[1:2] == ["--first_step"]:
        first_step(float(sys.argv[2]), sys.argv[3:])
    else:
        main()
