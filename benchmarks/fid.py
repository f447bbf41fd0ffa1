"""How long does the Fréchet distance of two feature sets take, against TF-GAN's own function?

Command:   python benchmarks/fid.py --json
Measures   `frechet_distance_of_samples`, and the streamed moments that the metric keeps, against
           TF-GAN's function on the same arrays in the same run, for more and for fewer samples
           than dimensions and for variances that fall less and more steeply; errors against the
           singular values of the samples in float64; the peak of memory of each form in a process
           of its own; memory while 50,000 stream
Result:    benchmarks/results/fid.json and a table; about 6 minutes on 2 CPU cores
"""

import time

import common
import numpy as np
import tensorflow as tf

from keras_sagan.metrics import FrechetInceptionDistance, load_tfgan_eval
from keras_sagan.metrics.frechet_inception_distance import (
    compute_moments,
    covariance,
    frechet_distance,
)
from keras_sagan.metrics.frechet_inception_distance import frechet_distance_of_samples as of_samples

TOLERANCE = 1e-5  # relative, of the distance
FORMS = ("TF-GAN", "of samples", "of streamed moments")


def of_moments(first, second):
    """As the metric does it: moments first."""
    first, second = compute_moments(first), compute_moments(second)
    return frechet_distance(first.mean, covariance(first), second.mean, covariance(second))


def features(count, dim, power):
    """Two sets that differ a little, whose variances fall as k^-power in a rotated basis."""
    rng = np.random.default_rng(0)
    scales = np.arange(1.0, dim + 1) ** (-power / 2)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0] if power else np.eye(dim)
    first = rng.standard_normal((count, dim)) * scales @ rotation
    second = (1.1 * rng.standard_normal((count, dim)) + 0.05) * scales @ rotation
    return first.astype("float32"), second.astype("float32")


def exact(first, second):
    """From the samples alone: no covariance, no eigenvalue, no matrix root."""
    first, second = (x.astype("float64") for x in (first, second))
    means = first.mean(axis=0), second.mean(axis=0)
    sides = [(x - m) / np.sqrt(len(x) - 1) for x, m in zip((first, second), means)]
    sides = [np.linalg.qr(x, mode="r") for x in sides]  # the same product's singular values
    root = np.linalg.svd(sides[0] @ sides[1].T, compute_uv=False).sum()
    return np.sum((means[0] - means[1]) ** 2) + sum(np.sum(x**2) for x in sides) - 2.0 * root


def make_form(name, first, second):
    """A function that returns the distance of two sets."""
    if name != "TF-GAN":
        form = of_samples if name == "of samples" else of_moments
        return lambda: form(first, second)
    distance = load_tfgan_eval().frechet_classifier_distance_from_activations
    arrays = [tf.constant(x, "float64") for x in (first, second)]
    return lambda: float(distance(*arrays))


def peak(form, count, dim, power):
    """Bytes of a form in this process, which should do nothing else."""
    make_form(form, *features(16, 8, 0.0))()  # What TensorFlow sets up once.
    return common.peak_of(make_form(form, *features(count, dim, power)))


def compare(count, dim, power, repeats):
    first, second = features(count, dim, power)
    functions = {name: make_form(name, first, second) for name in FORMS}
    values = {name: function() for name, function in functions.items()}
    expected = exact(first, second)
    for name in ("of samples", "of streamed moments"):
        if not abs(values[name] / expected - 1.0) <= TOLERANCE:
            raise RuntimeError(
                f"The distance {name} must be that of the singular values to {TOLERANCE}. "
                f"Received: {values[name]} for {expected}"
            )
    figures = common.summarize(common.alternate(functions, repeats, warmup=0), "TF-GAN")
    result = {"samples": count, "dim": dim, "variances": f"k^-{power:g}", "distance": expected}
    for name in FORMS:
        result[name] = {
            "seconds": figures[name]["median_seconds"],
            "times_faster": figures[name]["times_faster"],
            "relative_error": abs(values[name] / expected - 1.0),
            "from_tfgan": abs(values[name] / values["TF-GAN"] - 1.0),
        }
        sizes = {"count": count, "dim": dim, "power": power}
        result[name]["peak_mb"] = common.peak_in_new_process(__file__, form=name, **sizes)
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
    parser = common.argument_parser(__doc__, "fid")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument(
        "--sets",
        nargs="+",
        default=["3000:0", "3000:2", "1000:0", "1000:1"],
        help="SAMPLES:POWER, the number of samples and how their variances fall",
    )
    parser.add_argument("--stream", type=int, nargs="+", default=[5000, 50000])
    parser.add_argument("--repeats", type=int, default=3)
    settings = parser.parse_args(arguments)
    for name in FORMS:  # what is slow the first time only
        make_form(name, *features(100, 32, 1.0))()
    result = common.record(
        __file__,
        settings.json,
        arguments,
        packages=("tensorflow", "tensorflow-gan", "numpy"),
        settings={k: v for k, v in vars(settings).items() if k != "json"},
        streamed=stream(settings.dim, settings.stream),
        distances=[
            compare(int(count), settings.dim, float(power), settings.repeats)
            for count, power in (each.split(":") for each in settings.sets)
        ],
    )
    common.print_table(
        [
            {"samples": row["samples"], "variances": row["variances"], "form": name, **row[name]}
            for row in result["distances"]
            for name in FORMS
        ]
    )
    for row in result["streamed"]:
        print(f"{row['images']} images streamed: {row['seconds']} s, peak {row['peak_mb']} MB")


if __name__ == "__main__":
    common.run(main, peak)
