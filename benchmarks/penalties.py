"""What do R1 and the augmentation add to the time of a training step?

Command:   python benchmarks/penalties.py --json
Measures   a training step alone, with `R1(1.0)`, with `R1(1.0, every=8)`, and with
           `DifferentiableAugmentation()`, each backend in a process of its own: 8 steps of each
           form in turn, of which the third form computes the penalty once
Result:    benchmarks/results/penalties.json and a table, about 12 minutes on 2 CPU cores
"""

import json
import os
import sys

import common

BACKENDS = ("tensorflow", "jax", "torch")
GOALS = {"R1": 1.6, "R1, every=8": 1.15, "augmentation": 1.1}  # Times of a plain step.
STEPS = 8
COLOR = {"image_size": 64, "channels": 3, "base_filters": 16, "attention_resolutions": (32,)}
SETTINGS = {"preset": "sagan_cifar10_32", "overrides": {**COLOR, "d_steps": 1}, "batch_size": 16}


def seconds_of(backend, preset, overrides, batch_size, rounds):
    """The seconds of the steps of all forms on one backend, by form."""
    os.environ["KERAS_BACKEND"] = backend
    import numpy as np

    import keras_sagan
    from keras_sagan.layers import DifferentiableAugmentation
    from keras_sagan.penalties import R1

    rng = np.random.default_rng(0)
    forms = {
        "none": {},
        "R1": {"penalty": R1(1.0)},
        "R1, every=8": {"penalty": R1(1.0, every=8)},
        "augmentation": {"augmentation": DifferentiableAugmentation()},
    }

    def steps(arguments):
        model = keras_sagan.SAGAN.from_preset(preset, seed=0, **overrides)
        model.compile(**arguments)
        images = rng.integers(0, 256, (batch_size, *model.image_shape), "uint8")
        labels = rng.integers(0, model.num_classes, batch_size, "int32")

        def function():
            for _ in range(STEPS):
                model.train_on_batch(images, labels)  # It returns numbers, so the step is done.

        return function

    functions = {name: steps(arguments) for name, arguments in forms.items()}
    return common.alternate(functions, rounds, warmup=1)


def measure(preset, overrides, batch_size, backends, rounds):
    """Rows of a table: one for each backend and form."""
    rows = []
    for backend in backends:
        arguments = json.dumps([backend, preset, overrides, batch_size, rounds])
        seconds = common.in_new_process(__file__, "--backend", arguments)
        for form, found in common.summarize(seconds).items():
            rows.append(
                {
                    "backend": backend,
                    "form": form,
                    "step_seconds": common.rounded(found["median_seconds"] / STEPS),
                    "times_without": common.rounded(1.0 / found["times_faster"], 3),
                    "goal": GOALS.get(form),
                }
            )
    return rows


def main(arguments=None):
    parser = common.argument_parser(__doc__, "penalties")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--rounds", type=int, default=7)
    settings = parser.parse_args(arguments)
    rows = measure(**SETTINGS, backends=settings.backends, rounds=settings.rounds)
    common.print_table(rows)
    return common.record(
        __file__, settings.json, arguments, rows=rows, settings=SETTINGS, rounds=settings.rounds
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--backend"]:
        print(json.dumps(seconds_of(*json.loads(sys.argv[2]))))
    else:
        main()
