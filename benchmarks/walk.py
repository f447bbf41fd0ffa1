"""How many files must a reader hold to follow a batch through a training step?

Command:   python benchmarks/walk.py --json
Measures   the files and functions of the package that one `fit` of one batch enters, tracing
           included, and how often it moves from one file to another; the same for an eager `fit`
           with checkpoints, and for `evaluate_generator` after a first call of `generate`
Result:    benchmarks/results/walk.json and lists of the files; a minute on 2 CPU cores
"""

import sys
import tempfile
from pathlib import Path

import common
import numpy as np

import keras_sagan
from keras_sagan import callbacks, metrics

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
    """The walks of one batch of the Fashion-MNIST preset, which updates D twice in a step."""
    one, other = (
        keras_sagan.SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4) for _ in range(2)
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, *one.image_shape), dtype="uint8")
    data = {"x": images, "y": np.arange(16) % 10, "batch_size": 16, "verbose": 0}
    one.compile()
    other.compile(run_eagerly=True)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = callbacks.TrainingCheckpoint(folder)
        found = {
            "fit": walk(lambda: one.fit(**data)),
            "fit_with_checkpoints": walk(lambda: other.fit(**data, callbacks=[checkpoint])),
        }
    one.generate(4, labels=1)
    settings = {"metrics": ("fid",), "num_images": 16, "verbose": False}
    settings["feature_extractor"] = metrics.GreyClassifierFeatures()
    found["evaluate_generator"] = walk(lambda: metrics.evaluate_generator(one, images, **settings))
    return found


def main(arguments=None):
    parser = common.argument_parser(__doc__, "walk")
    settings = parser.parse_args(arguments)
    calls = measure()
    for name, found in calls.items():
        counts = f"{found['functions']} functions, {found['moves']} moves"
        print(f"{name}: {len(found['files'])} files, {counts}")
        print("   ", " > ".join(found["files"]))
    common.record(__file__, settings.json, arguments, calls=calls)


if __name__ == "__main__":
    main()
