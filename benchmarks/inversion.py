"""How well does `SAGAN.invert` reproduce images, without their labels?

Command:   python benchmarks/inversion.py --json
Measures   the peak signal-to-noise ratio (PSNR), and how many classes are found: of samples of the
           trained `sagan_fashion_mnist_32`, and of images that it was trained on
Result:    benchmarks/results/inversion.json and a table; took 35 minutes beside other programs
"""

import time

import common
import numpy as np

from keras_sagan import SAGAN, data

PRESET = "sagan_fashion_mnist_32"
GOAL = {"psnr": 30.0, "share": 0.95}  # Of the model's own samples.


def measure(model, name, images, labels, seed, **arguments):
    """A row of the table."""
    start = time.perf_counter()
    found = model.invert(images, seed=seed, **arguments)
    return {
        "images": name,
        "count": len(images),
        "median_psnr": common.rounded(np.median(found.psnr), 3),
        "lowest_psnr": common.rounded(np.min(found.psnr), 3),
        "share_at_30_db": common.rounded(np.mean(found.psnr >= GOAL["psnr"]), 3),
        "classes_found": common.rounded(np.mean(found.labels == labels), 3),
        "seconds": common.rounded(time.perf_counter() - start, 3),
    }


def main(arguments=None, **options):
    parser = common.argument_parser(__doc__, "inversion")
    parser.add_argument("--samples", type=int, default=40, help="of the model")
    parser.add_argument("--real", type=int, default=20, help="training images")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(arguments)
    model = SAGAN.from_preset(PRESET, load_weights=True)
    labels = np.arange(settings.samples) % model.num_classes
    samples = model.generate(settings.samples, labels, seed=settings.seed + 1)
    images, classes = (x[: settings.real] for x in data.load_fashion_mnist())
    rows = [
        measure(model, "its own samples", samples, labels, settings.seed, **options),
        measure(model, "real", data.pad_to_32(images), classes, settings.seed, **options),
    ]
    common.print_table(rows)
    return common.record(
        __file__, settings.json, arguments, preset=PRESET, goal=GOAL, seed=settings.seed, rows=rows
    )


if __name__ == "__main__":
    main()
