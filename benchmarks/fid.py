"""How long does the Fréchet distance of two feature sets take, against TF-GAN's own function?

Command:   python benchmarks/fid.py --json
Measures   `frechet_distance_of_samples`, and the streamed moments that the metric keeps, against
           TF-GAN's function on the same arrays in the same run; memory while 50,000 stream
Result:    benchmarks/results/fid.json and a table; about 2 minutes on 2 CPU cores
"""

import argparse
import time

import common
import numpy as np
import tensorflow as tf

from keras_sagan.metrics import FrechetInceptionDistance, load_tfgan_eval
from keras_sagan.ops.frechet import compute_moments, covariance, frechet_distance
from keras_sagan.ops.frechet import frechet_distance_of_samples as of_samples


def of_moments(first, second):
    """As the metric does it: moments first."""
    first, second = compute_moments(first), compute_moments(second)
    return frechet_distance(first.mean, covariance(first), second.mean, covariance(second))


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
    reference = "TF-GAN"
    functions[reference] = lambda: float(distance(*arrays))
    values = {name: function() for name, function in functions.items()}
    figures = common.summarize(common.alternate(functions, repeats, warmup=0), reference)
    result = {"samples": count, "dim": dim, "tfgan_seconds": figures[reference]["median_seconds"]}
    for name in ("of samples", "of streamed moments"):
        result[name] = {
            "seconds": figures[name]["median_seconds"],
            "times_faster": figures[name]["times_faster"],
            "relative_error": abs(values[name] / values[reference] - 1.0),
        }
    return result


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
        seconds, peak = time.perf_counter() - start, common.peak_bytes() / 2**20
        rows.append({"images": count, "seconds": round(seconds, 1), "peak_mb": round(peak)})
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--samples", type=int, nargs="+", default=[3000, 1000])
    parser.add_argument("--stream", type=int, nargs="+", default=[5000, 50000])
    parser.add_argument("--repeats", type=int, default=3)
    common.add_json_argument(parser, "fid")
    settings = parser.parse_args(arguments)
    result = common.record(
        __file__,
        settings.json,
        arguments,
        packages=("tensorflow", "tensorflow-gan", "numpy"),
        settings={k: v for k, v in vars(settings).items() if k != "json"},
        streamed=stream(settings.dim, settings.stream),
        distances=[compare(settings.dim, n, settings.repeats) for n in settings.samples],
    )
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
