"""How much faster is MIND than FID, on the same features?

Command:   python benchmarks/mind.py --json
Measures   the Monge distance with 100 and 1,000 directions, and the Fréchet distance from the same
           features in the same run, alternating
Result:    benchmarks/results/mind.json and a table; about 2 minutes on 2 CPU cores
"""

import common
import numpy as np

from keras_sagan.metrics.frechet_inception_distance import (
    compute_moments,
    covariance,
    frechet_distance,
)
from keras_sagan.metrics.monge_inception_distance import monge_distance


def fid(first, second):
    """As the metric does it: moments first."""
    first, second = compute_moments(first), compute_moments(second)
    return frechet_distance(first.mean, covariance(first), second.mean, covariance(second))


def compare(count, dim, repeats):
    rng = np.random.default_rng(0)
    first = rng.standard_normal((count, dim)).astype("float32")
    second = (1.1 * rng.standard_normal((count, dim)) + 0.05).astype("float32")
    directions = rng.standard_normal((1000, dim))
    functions = {"FID": lambda: fid(first, second)}
    for number in (100, 1000):
        functions[f"MIND, {number} directions"] = lambda number=number: monge_distance(
            first, second, directions[:number]
        )
    figures = common.summarize(common.alternate(functions, repeats, warmup=1), "FID")
    return [
        {
            "images": count,
            "score": name,
            "seconds": figures[name]["median_seconds"],
            "times_faster": figures[name]["times_faster"],
        }
        for name in functions
    ]


def main(arguments=None):
    parser = common.argument_parser(__doc__, "mind")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--repeats", type=int, default=2)
    settings = parser.parse_args(arguments)
    rows = [
        row for count in settings.counts for row in compare(count, settings.dim, settings.repeats)
    ]
    common.record(
        __file__,
        settings.json,
        arguments,
        packages=("numpy",),
        settings={k: v for k, v in vars(settings).items() if k != "json"},
        rows=rows,
    )
    common.print_table(rows)


if __name__ == "__main__":
    main()
