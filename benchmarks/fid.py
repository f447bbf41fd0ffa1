"""How long does the Fréchet distance of two feature sets take, against TF-GAN's own function?

Command:   python benchmarks/fid.py
Measures   `frechet_distance_of_samples`, and the streamed moments that the metric keeps, against
           TF-GAN's function on the same arrays in the same run; memory while 50,000 stream
Result:    benchmarks/results/fid.json and a table; about 2 minutes on 2 CPU cores
"""

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

import keras_sagan
from keras_sagan.metrics import FrechetInceptionDistance, load_tfgan_eval
from keras_sagan.ops.frechet import compute_moments, covariance, frechet_distance
from keras_sagan.ops.frechet import frechet_distance_of_samples as of_samples

RESULTS = Path(__file__).resolve().parent / "results" / "fid.json"


def of_moments(first, second):
    """As the metric does it: moments first."""
    first, second = compute_moments(first), compute_moments(second)
    return frechet_distance(first.mean, covariance(first), second.mean, covariance(second))


def seconds_of(function, repeats):
    """The least seconds of some runs, and the value."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = float(function())
        seconds.append(time.perf_counter() - start)
    return min(seconds), value


def compare(dim, count, repeats):
    rng = np.random.default_rng(0)
    first = rng.standard_normal((count, dim)).astype("float32")
    second = (1.1 * rng.standard_normal((count, dim)) + 0.05).astype("float32")
    distance = load_tfgan_eval().frechet_classifier_distance_from_activations
    arrays = [tf.constant(x, "float64") for x in (first, second)]
    functions = {
        "of samples": lambda: of_samples(first, second),
        "of streamed moments": lambda: of_moments(first, second),
    }
    tfgan, expected = seconds_of(lambda: distance(*arrays), repeats)
    result = {"samples": count, "dim": dim, "tfgan_seconds": round(tfgan, 3)}
    for name, function in functions.items():
        seconds, value = seconds_of(function, repeats)
        result[name] = {
            "seconds": round(seconds, 3),
            "times_faster": round(tfgan / seconds, 1),
            "relative_error": abs(value / expected - 1.0),
        }
    return result


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stream(dim, counts):
    """Peak memory and seconds of streaming ever more images into the metric."""
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((500, dim)).astype("float32")
    fid = FrechetInceptionDistance(lambda images: images)
    rows, done, start = [], 0, time.perf_counter()
    for count in counts:
        while done < count:
            fid.update_features(np.roll(batch, done // 500, axis=1), real=False)
            done += 500
        seconds = time.perf_counter() - start
        rows.append(
            {"images": count, "seconds": round(seconds, 1), "peak_mb": round(peak_megabytes())}
        )
    return rows


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--samples", type=int, nargs="+", default=[3000, 1000])
    parser.add_argument("--stream", type=int, nargs="+", default=[5000, 50000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", default=str(RESULTS), help="file for the figures")
    arguments = parser.parse_args(arguments)
    result = {
        "command": "python benchmarks/fid.py",
        "settings": vars(arguments) | {"output": Path(arguments.output).name},
        "streamed": stream(arguments.dim, arguments.stream),
        "distances": [compare(arguments.dim, n, arguments.repeats) for n in arguments.samples],
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "keras_sagan": keras_sagan.__version__,
        },
        "hardware": {"cpu": processor(), "cores": os.cpu_count()},
        "load_average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d"),
    }
    path = Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'samples':>8} {'form':20} {'seconds':>9} {'faster':>8} {'error':>9}")
    for row in result["distances"]:
        print(f"{row['samples']:8} {'TF-GAN':20} {row['tfgan_seconds']:9.2f}")
        for name in ("of samples", "of streamed moments"):
            each = row[name]
            print(
                f"{row['samples']:8} {name:20} {each['seconds']:9.2f} "
                f"{each['times_faster']:7.1f}x {each['relative_error']:9.1e}"
            )
    for row in result["streamed"]:
        print(f"{row['images']} images streamed: {row['seconds']} s, peak {row['peak_mb']} MB")


if __name__ == "__main__":
    main()
