"""How long is it from the command to the first training step, and what takes the time?

Command:   python benchmarks/startup.py --json
Measures   `import keras_sagan` on top of Keras's own import, and `python
           examples/fashion_mnist.py` until its first training step is done, part by part, each in
           a new process; the same with the textbook form of the step (textbook.py), in turn,
           whose losses must agree
Result:    benchmarks/results/startup.json and a table; two and a half minutes on 2 CPU cores
"""

import functools
import json
import os
import runpy
import shlex
import statistics
import sys
import tempfile
import time

import common

EXAMPLE = common.ROOT / "examples" / "fashion_mnist.py"
FORMS = ("textbook", "SAGAN")
TOLERANCE = 1e-4  # Of the losses of the first step, relative.


def imports():
    """Seconds of importing Keras, and of importing this package after it."""
    start = time.perf_counter()
    import keras  # noqa: F401

    middle = time.perf_counter()
    import keras_sagan  # noqa: F401

    return {"keras": middle - start, "keras_sagan": time.perf_counter() - middle}


def first_step(form, started, arguments):
    """Runs the example in this process up to its first training step, and prints what was seen.

    Args:
        form: String, one of `FORMS`.
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
            losses = [float(logs[name]) for name in ("d_loss", "g_loss")]
            found = {"seconds": seconds, "losses": losses, "peak_mb": common.peak_bytes() / 2**20}
            print(json.dumps(found), flush=True)
            os._exit(0)

    fit = keras_sagan.SAGAN.fit

    def marked_fit(self, *args, callbacks=(), **kwargs):
        marks["data and model"] = time.time()
        return fit(self, *args, callbacks=[Marks(), *callbacks], **kwargs)

    keras_sagan.SAGAN.fit = marked_fit
    if form == "textbook":
        keras_sagan.SAGAN.compile = functools.partialmethod(
            compile_textbook, keras_sagan.SAGAN.compile
        )
    sys.argv = [str(EXAMPLE), *arguments]
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def compile_textbook(model, inherited, **settings):
    """Compiles a model as `inherited` does, with the textbook form in the place of its step."""
    import tensorflow as tf
    import textbook

    inherited(model, *textbook.stock_optimizers(model), **settings)
    step = tf.function(textbook.training_step(model))
    model.train_function = lambda iterator: dict(zip(("d_loss", "g_loss"), step(*next(iterator))))


def medians(runs):
    return {name: common.rounded(statistics.median(r[name] for r in runs), 3) for name in runs[0]}


def run_example(form, arguments):
    with tempfile.TemporaryDirectory() as workdir:
        arguments = ["--output", workdir, *arguments]
        return common.in_new_process(__file__, "--first_step", form, repr(time.time()), *arguments)


def check_losses(textbook, product):
    """Raises unless both forms had the same losses."""
    for expected, received in zip(textbook["losses"], product["losses"]):
        if abs(expected - received) > TOLERANCE * abs(expected):
            raise ValueError(f"The losses must agree. Received: {textbook} and {product}")


def of(forms, name):
    return {form: values[name] for form, values in forms.items()}


def main(arguments=None):
    parser = common.argument_parser(__doc__, "startup")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--example_arguments", type=shlex.split, default=[], help="of the example, in one string"
    )
    settings = parser.parse_args(arguments)
    rounds = range(settings.repeats)
    imported = medians([common.in_new_process(__file__, "--imports") for _ in rounds])
    runs = {form: [] for form in FORMS}
    for _ in rounds:
        for form in FORMS:
            runs[form].append(run_example(form, settings.example_arguments))
        check_losses(*(found[-1] for found in runs.values()))
    parts = {form: medians([run["seconds"] for run in found]) for form, found in runs.items()}
    totals = {form: [sum(run["seconds"].values()) for run in found] for form, found in runs.items()}
    total = common.summarize(totals)
    peaks = {
        form: common.rounded(statistics.median(run["peak_mb"] for run in found))
        for form, found in runs.items()
    }
    common.print_table([{"seconds of": f"import {x}", "median": y} for x, y in imported.items()])
    rows = [{"of the first step": name, **of(parts, name)} for name in parts["SAGAN"]]
    rows.append({"of the first step": "in all", **of(total, "median_seconds")})
    rows.append({"of the first step": "times faster", **of(total, "times_faster")})
    common.print_table([*rows, {"of the first step": "peak, MB", **peaks}])
    common.record(
        __file__,
        settings.json,
        arguments,
        settings={"repeats": settings.repeats, "example_arguments": settings.example_arguments},
        import_seconds=imported,
        first_step_seconds=parts,
        command_to_first_step=total,
        peak_mb=peaks,
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--imports"]:
        print(json.dumps(imports()))
    elif sys.argv[1:2] == ["--first_step"]:
        first_step(sys.argv[2], float(sys.argv[3]), sys.argv[4:])
    else:
        main()
