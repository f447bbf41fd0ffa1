"""How many files must a reader hold to follow a batch through a training step?

Command:   python benchmarks/walk.py --json
Measures   the files and functions of the package that one `fit` of one batch enters, tracing
           included, and how often it moves from one file to another
Result:    benchmarks/results/walk.json and a list of the files; half a minute on 2 CPU cores
"""

import sys
from pathlib import Path

import common
import numpy as np

import keras_sagan

PACKAGE = Path(keras_sagan.__file__).parent


def walk(function):
    """The files of the package that a call enters, in order, its functions, and its moves."""
    visits, functions = [], set()

    def called(frame, event, _):
        path = frame.f_code.co_filename
        if path.startswith(str(PACKAGE)):
            name = Path(path).relative_to(PACKAGE).as_posix()
            functions.add((name, frame.f_code.co_qualname))
            if visits[-1:] != [name]:
                visits.append(name)

    sys.settrace(called)  # Unlike `setprofile`, it isn't told of returns and of C functions.
    try:
        function()
    finally:
        sys.settrace(None)
    return {
        "files": list(dict.fromkeys(visits)),
        "functions": len(functions),
        "moves": len(visits) - 1,
    }


def measure():
    """The walk of one batch of the Fashion-MNIST preset, which updates D twice in a step."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (16, 32, 32, 1), dtype="uint8"), np.arange(16) % 10
    model = keras_sagan.SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4)
    model.compile()
    return walk(lambda: model.fit(images, labels, batch_size=16, verbose=0))


def main(arguments=None):
    parser = common.argument_parser(__doc__, "walk")
    settings = parser.parse_args(arguments)
    found = measure()
    print(f"{len(found['files'])} files, {found['functions']} functions, {found['moves']} moves")
    print(" > ".join(found["files"]))
    common.record(__file__, settings.json, arguments, **found)


if __name__ == "__main__":
    main()
