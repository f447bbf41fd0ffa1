"""How far is each stage of a score from what others compute from the same features?

Command:   pip install pytorch-fid torch-fidelity && python benchmarks/precision.py --json
Measures   relative errors of moments, matrix root, distance, KID, Inception Score, precision,
           recall, density and coverage, against numpy, scipy, TF-GAN, pytorch-fid, torch-fidelity
           and prdc
Result:    benchmarks/results/precision.json and benchmarks/logs/precision.md; about 4 minutes on
           2 CPU cores. docs/precision.md shows a part of them.

The features are synthetic, 2048 wide as Inception's, and in four kinds: many samples, fewer
samples than dimensions, variances that fall steeply, and scales that spread over nine decades. A
package that isn't installed is left out of the table.
"""

import contextlib
import io
import sys
from unittest import mock

import common
import numpy as np
import scipy
import scipy.linalg
import tensorflow as tf

from keras_sagan.metrics import load_tfgan_eval
from keras_sagan.metrics.features import compute_moments, covariance, merge_moments
from keras_sagan.metrics.frechet_inception_distance import (
    covariance_factor,
    frechet_distance,
    frechet_distance_of_samples,
)
from keras_sagan.metrics.inception_score import inception_score
from keras_sagan.metrics.kernel_inception_distance import kernel_distance
from keras_sagan.metrics.precision_recall import manifold_scores

RESULTS = common.RESULTS / "precision.json"
TABLE = common.ROOT / "benchmarks" / "logs" / "precision.md"
PACKAGES = "tensorflow tensorflow-gan scipy numpy prdc pytorch-fid torch-fidelity".split()
ALLOWED = {  # by stage; TF-GAN's own error has no limit
    "mean": 1e-12,
    "covariance": 1e-10,
    "trace of the root": 1e-6,
    "Fréchet distance": 1e-5,
    "KID": 1e-9,
    "KID, standard error": 1e-9,
    "Inception Score, single": 1e-9,
    "Inception Score, 10 splits": 1e-9,
    "precision": 1e-9,
    "recall": 1e-9,
    "density": 1e-9,
    "coverage": 1e-9,
}


def features(kind, dim, count):
    """Two sets of features that differ a little, float32 as a network's."""
    rng = np.random.default_rng(0)
    if kind == "fewer samples than dimensions":
        count = dim // 2
    scales = np.arange(1.0, dim + 1) ** (-1.0 if kind == "variances that fall as 1/k²" else -0.5)
    if kind == "scales over nine decades":
        scales = 10.0 ** rng.uniform(-5, 4, dim)
        dim = dim // 4
        scales = scales[:dim]
    mixing = np.eye(dim)
    if kind != "scales over nine decades":
        mixing = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    first = rng.standard_normal((count, dim)) * scales @ mixing
    second = (rng.standard_normal((count, dim)) * 1.1 + 0.05) * scales @ mixing
    return first.astype("float32"), second.astype("float32")


KINDS = (
    "many samples",
    "fewer samples than dimensions",
    "variances that fall as 1/k²",
    "scales over nine decades",
)


def relative(value, expected):
    value, expected = np.asarray(value, "longdouble"), np.asarray(expected, "longdouble")
    return float(np.max(np.abs(value - expected)) / max(np.max(np.abs(expected)), 1e-300))


def moment_errors(first, rows, kind):
    """Against a pass in extended precision, of one piece and of 79 merged ones."""
    exact = first.astype("longdouble")
    mean = exact.mean(axis=0)
    deviations = np.asarray(exact - mean, "longdouble")
    # The widest matrices have a product in extended precision of a few columns only.
    columns = slice(0, min(64, exact.shape[1]))
    cov = deviations[:, columns].T @ deviations[:, columns] / (len(exact) - 1)
    sizes = np.sqrt(np.diag(cov))
    pieces = None
    for part in np.array_split(first, min(79, len(first))):
        pieces = merge_moments(pieces, compute_moments(part))
    for name, moments in (("one pass", compute_moments(first)), ("79 pieces", pieces)):
        spread = np.abs(moments.mean - mean) / exact.std(axis=0)
        rows.append(("mean", kind, f"extended precision, {name}", float(spread.max())))
        error = np.abs(covariance(moments)[columns, columns] - cov) / np.outer(sizes, sizes)
        rows.append(("covariance", kind, f"extended precision, {name}", float(error.max())))


def distance_errors(first, second, rows, kind, others):
    moments = [compute_moments(x) for x in (first, second)]
    means, covs = [m.mean for m in moments], [covariance(m) for m in moments]
    factors = [covariance_factor(cov) for cov in covs]
    root = np.linalg.svd(factors[0].T @ factors[1], compute_uv=False).sum()
    results = {
        "from moments": frechet_distance(means[0], covs[0], means[1], covs[1]),
        "from samples": frechet_distance_of_samples(first, second),
    }
    gap = np.sum((means[0] - means[1]) ** 2) + np.trace(covs[0]) + np.trace(covs[1])
    # From the samples alone: no covariance, no eigenvalue, no matrix root.
    sides = [
        (x.astype("float64") - mean) / np.sqrt(len(x) - 1)
        for x, mean in zip((first, second), means)
    ]
    values = np.linalg.svd(sides[0] @ sides[1].T, compute_uv=False)
    rows.append(("trace of the root", kind, "SVD of the samples", relative(root, values.sum())))
    expected = {"SVD of the samples": gap - 2 * values.sum()}
    if kind == "many samples":
        with contextlib.redirect_stdout(io.StringIO()):
            scipy_root = np.trace(np.real(scipy.linalg.sqrtm(covs[0] @ covs[1])))
        rows.append(("trace of the root", kind, "scipy sqrtm", relative(root, scipy_root)))
        expected["scipy sqrtm"] = gap - 2 * scipy_root
        for name, function in others.items():
            expected[name] = function(means[0], covs[0], means[1], covs[1])
    distance = load_tfgan_eval().frechet_classifier_distance_from_activations
    tfgan = {
        f"TF-GAN, {dtype}": float(distance(*(tf.constant(x, dtype) for x in (first, second))))
        for dtype in ("float64", "float32")
    }
    if kind == "many samples":
        expected.update(tfgan)
    for name, value in expected.items():
        for form, result in results.items():
            rows.append(("Fréchet distance", kind, f"{name}; {form}", relative(result, value)))
    # TF-GAN takes no root of what is below 1e-10, the squares of the singular values included.
    dropped = np.sum((values - values**2)[values < 1e-5])
    for form, result in results.items():
        against = f"TF-GAN, float64; {form}, with TF-GAN's threshold"
        error = relative(result + 2 * dropped, tfgan["TF-GAN, float64"])
        if kind != "scales over nine decades":  # there it cuts eigenvalues of a covariance as well
            rows.append(("Fréchet distance", kind, against, error))
    error = relative(tfgan["TF-GAN, float64"], expected["SVD of the samples"])
    rows.append(("TF-GAN's distance, float64", kind, "SVD of the samples", error))


def other_errors(first, second, rows, kind):
    classifier = load_tfgan_eval().classifier_metrics
    arrays = [tf.constant(x, "float64") for x in (first, second)]
    block = min(512, len(first) // 2)
    expected = classifier.kernel_classifier_distance_and_std_from_activations(*arrays, block)
    for name, value, other in zip(
        ("KID", "KID, standard error"), kernel_distance(first, second, block), expected
    ):
        if np.isfinite(value):
            rows.append((name, kind, "TF-GAN, float64", relative(value, float(other))))
    logits = 4.0 * second[:, :1008] / second[:, :1008].std()
    score = classifier.classifier_score_from_logits
    single = float(score(tf.constant(logits, "float64")))
    rows.append(
        (
            "Inception Score, single",
            kind,
            "TF-GAN, float64",
            relative(inception_score(logits)[0], single),
        )
    )
    parts = inception_score(logits, 10)
    bounds = [i * len(logits) // 10 for i in range(11)]
    tfgan = [float(score(tf.constant(logits[i:j], "float64"))) for i, j in zip(bounds, bounds[1:])]
    rows.append(
        (
            "Inception Score, 10 splits",
            kind,
            "TF-GAN, float64, split by split",
            relative(parts, tfgan),
        )
    )
    with contextlib.suppress(ImportError):
        import prdc

        with contextlib.redirect_stdout(io.StringIO()):
            expected = prdc.compute_prdc(first, second, 5)
        result = manifold_scores(first, second, 5)._asdict()
        for name, value in expected.items():
            rows.append((name, kind, "prdc", relative(result[name], value)))


def other_packages():
    """Distance functions of pytorch-fid and torch-fidelity, where they are installed.

    Both are numpy and scipy; what the packages import for their networks is stood in for.
    """
    stand_ins = [
        "torchvision",
        "torchvision.transforms",
        "torchvision.transforms.functional",
        "torchvision.models",
        "torchvision.datasets",
    ]
    found = {}
    before = {name: sys.modules.get(name) for name in stand_ins}
    for name in stand_ins:
        sys.modules[name] = mock.MagicMock()
    try:
        with contextlib.suppress(ImportError):
            from pytorch_fid.fid_score import calculate_frechet_distance

            found["pytorch-fid"] = calculate_frechet_distance
        with contextlib.suppress(ImportError):
            from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

            def torch_fidelity(mean_1, cov_1, mean_2, cov_2):
                pair = ({"mu": mean_1, "sigma": cov_1}, {"mu": mean_2, "sigma": cov_2})
                return fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID]

            found["torch-fidelity"] = torch_fidelity
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
    return found


def measure(dim, count):
    """Returns rows of (stage, kind of features, against what, relative error)."""
    rows, others = [], other_packages()
    for kind in KINDS:
        first, second = features(kind, dim, count)
        print(f"{kind}: {first.shape[0]} samples of {first.shape[1]}", flush=True)
        moment_errors(first, rows, kind)
        distance_errors(first, second, rows, kind, others)
        if "samples" in kind:
            other_errors(first, second, rows, kind)
    return rows


def page(result):
    """The Markdown of benchmarks/logs/precision.md."""
    lines = [
        "# Precision of the scores",
        "",
        "The difference between each stage and other implementations on the same features. Errors",
        "are relative to the value, for means to the standard deviation of the feature, and for",
        "covariances to the product of the two standard deviations. The tests measure the same on",
        "smaller features, and hold each error to the limit in the last column.",
        "",
        f"Made by `{result['command']}` on {result['date']}; {result['hardware']['cpu']}, "
        f"{result['hardware']['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + ".",
        "",
    ]
    for kind in KINDS:
        shape = result["shapes"][kind]
        lines += [
            f"## {kind.capitalize()}",
            "",
            f"{shape[0]} and {shape[0]} samples of {shape[1]} float32 features.",
            "",
            "| stage | against | relative error | limit |",
            "|---|---|---:|---:|",
        ]
        for stage, of_kind, against, error in result["rows"]:
            if of_kind == kind:
                allowed = ALLOWED.get(stage)
                shown = "-" if allowed is None else f"{allowed:.0e}"
                lines.append(f"| {stage} | {against} | {error:.1e} | {shown} |")
        lines.append("")
    lines += [
        '"SVD of the samples" needs neither a covariance nor a matrix root: the trace of the root',
        "is the sum of the singular values of one centered set times the transpose of the other.",
        "",
        "**TF-GAN's own distance is not always exact.** Its matrix root doesn't take the root of",
        "values below 1e-10, so singular values below 1e-5 count as their squares. The rows of",
        "TF-GAN's distance against the SVD of the samples show the effect: none for equal",
        "variances, and a large one where the variances fall steeply. With this threshold added,",
        "the distance of this package equals TF-GAN's. Without it, it agrees with the SVD of the",
        "samples in all cases.",
        "",
        "pytorch-fid uses scipy's general matrix root, and torch-fidelity general eigenvalues.",
        "Both are compared where the covariances have full rank and one scale.",
        "",
    ]
    return "\n".join(lines)


SHORT = {  # by kind, in docs/precision.md
    "many samples": "3000 samples, equal variances",
    "fewer samples than dimensions": "1024 samples of 2048 dimensions",
    "variances that fall as 1/k²": "3000 samples, variances fall as 1/k²",
    "scales over nine decades": "3000 samples of 512 dimensions, scales over nine decades",
}


def tfgan_table(result):
    """The table of docs/precision.md that compares TF-GAN's error with this package's."""
    errors = {(stage, kind, against): error for stage, kind, against, error in result["rows"]}
    lines = [
        "| features | error of TF-GAN, float64 | error of this package |",
        "|---|---:|---:|",
    ]
    for kind, short in SHORT.items():
        tfgan = errors["TF-GAN's distance, float64", kind, "SVD of the samples"]
        own = errors["Fréchet distance", kind, "SVD of the samples; from moments"]
        lines.append(f"| {short} | {tfgan:.1e} | {own:.1e} |")
    return "\n".join(lines) + "\n"


def main():
    parser = common.argument_parser(__doc__, "precision")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=3000)
    arguments = parser.parse_args()
    rows = measure(arguments.dim, arguments.samples)
    result = common.record(
        __file__,
        arguments.json,
        packages=PACKAGES,
        settings={"dim": arguments.dim, "samples": arguments.samples},
        shapes={kind: features(kind, arguments.dim, arguments.samples)[0].shape for kind in KINDS},
        rows=rows,
    )
    if arguments.json == RESULTS:
        TABLE.write_text(page(result), encoding="utf-8")
    for stage, kind, against, error in rows:
        flag = "" if error <= (ALLOWED.get(stage) or np.inf) else "  ABOVE ITS LIMIT"
        print(f"{error:9.1e}  {stage} ({kind}) against {against}{flag}")


if __name__ == "__main__":
    main()
