"""What the ablation says: its table, what of it agrees with the paper, and its figure."""

import itertools
import math
import statistics

# One rate for both networks, and two in the paper's ratio of 4 around it.
RATES = {"equal": (1e-3, 1e-3), "ttur": (5e-4, 2e-3)}
FACTORS = {
    "attention": ("without", "with"),
    "spectral_norm": ("d", "both"),
    "rates": ("equal", "ttur"),
}
LABELS = {
    "attention": {"without": "without", "with": "with"},
    "spectral_norm": {"d": "D only", "both": "D and G"},
    "rates": {"equal": "equal", "ttur": "two"},
}
CLAIMS = {
    "attention": "attention is better than none (table 1)",
    "spectral_norm": "spectral norm in both networks is better than in D only (figure 3)",
    "rates": "two learning rates are better than equal ones (figure 3)",
}


def mean_and_spread(values):
    """Mean and sample standard deviation; the latter is NaN of a single value."""
    values = list(values)
    mean = statistics.mean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def by_setting(runs):
    """List of (factors, FIDs of the seeds) in the order of `FACTORS`."""
    rows = []
    for levels in itertools.product(*FACTORS.values()):
        factors = dict(zip(FACTORS, levels))
        found = [run for run in runs.values() if all(run[k] == v for k, v in factors.items())]
        if found:
            rows.append((factors, [run["fid"] for run in found if run["fid"] is not None]))
    return rows


def differences(runs, factor):
    """FIDs at the factor's last level minus those at its first, all else and the seed equal."""
    first, last = FACTORS[factor]
    rest = [key for key in (*FACTORS, "seed") if key != factor]
    found = {(run[factor], *(run[key] for key in rest)): run["fid"] for run in runs.values()}
    pairs = [
        (value, found.get((first, *key))) for (level, *key), value in found.items() if level == last
    ]
    return [after - before for after, before in pairs if None not in (after, before)]


def verdict(values):
    """What can be said of a mean difference: its sign only beyond two standard errors."""
    mean, spread = mean_and_spread(values)
    if not abs(mean) > 2.0 * spread / math.sqrt(max(len(values), 1)):
        return "not significant"
    return "agrees" if mean < 0 else "**doesn't agree**"


def page(result):
    """The Markdown of docs/ablation.md."""
    runs, settings = result["runs"], result["settings"]
    lines = [
        "# Ablation: the paper's claims in small networks",
        "",
        "The paper claims that attention, spectral normalization in both networks and two",
        "learning rates (TTUR) improve a GAN. This page tests the three claims with small",
        "networks on Fashion-MNIST. The paper's ImageNet networks are hundreds of times larger,",
        "and were trained a thousand times longer.",
        "",
        "| the paper says | FID difference, mean | deviation | pairs | lower in | result |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for factor, claim in CLAIMS.items():
        values = differences(runs, factor)
        mean, spread = mean_and_spread(values)
        lower = sum(value < 0 for value in values)
        figures = f"{mean:+.1f} | {spread:.1f} | {len(values)} | {lower}"
        lines.append(f"| {claim} | {figures} | {verdict(values)} |")
    lines += [
        "",
        "The differences are between pairs of runs with the same seed that differ only in this",
        "setting, with their mean and standard deviation. Below 0, the paper's choice is better.",
        "A difference counts as significant if its mean is more than two standard errors from 0.",
        "",
        "## FID of each setting",
        "",
        "![FID of each setting, one point per seed](images/ablation.png)",
        "",
        "| attention | spectral norm | learning rates | FID, mean | deviation | each seed |",
        "|---|---|---|---:|---:|---|",
    ]
    for factors, values in by_setting(runs):
        mean, spread = mean_and_spread(values)
        cells = [LABELS[factor][factors[factor]] for factor in FACTORS]
        seeds = ", ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {' | '.join(cells)} | {mean:.1f} | {spread:.1f} | {seeds} |")
    floor, noise = (result["baselines"][name]["fid"] for name in ("real", "noise"))
    lines += [
        "",
        f"The standard deviation is over the seeds. Real images score a FID of {floor:.1f} against",
        f"other real images, and noise scores {noise:.0f}.",
        "",
        "The paper compares attention with residual blocks of the same number of parameters; here",
        "the runs without attention simply omit it. The paper shows the effect of spectral",
        "normalization and of the learning rates as stability over 10,000 to 1,000,000 steps;",
        "these runs are much shorter.",
        "",
        "## Protocol",
        "",
        "- Networks: the preset `sagan_fashion_mnist_32` with "
        f"`base_filters={settings['base_filters']}`.",
        f"- Training: {settings['steps']} steps of {settings['batch_size']} images, one "
        "discriminator step each, an averaged generator, and Adam",
        "  with the preset's β₁ and β₂.",
        f"- Equal learning rates are {RATES['equal'][0]:g} for both networks. The two learning "
        "rates are",
        f"  {RATES['ttur'][0]:g} for the generator and {RATES['ttur'][1]:g} for the "
        "discriminator. They have the paper's ratio of 4",
        "  and the same geometric mean. All are higher than the paper's 1e-4 and 4e-4, which would",
        "  be too low for so few steps.",
        "- The seed determines the initial weights, the order of the images, the latents and the",
        "  labels. Every setting is trained with the same seeds.",
        f"- The FID compares {settings['num_images']:,} generated images, the same number for each "
        f"label, with the {settings['num_real']:,}",
        "  test images, which were also the training images. It uses `GreyClassifierFeatures`, so",
        "  it isn't comparable with Inception-based FIDs. The averaged generator drew the images,",
        "  with the moving statistics of its batch norms.",
        "",
        f"*Recorded by `{result['command']}` in `benchmarks/results/ablation.json`.",
        "`benchmarks/logs/ablation.md` lists all runs.*",
        "",
        "Next: [Implementation of the paper](paper.md).",
    ]
    return "\n".join([*lines, ""])


def log(result):
    """The Markdown of benchmarks/logs/ablation.md: every run."""
    runs = result["runs"]
    cpu = sum(run["cpu_seconds"] for run in runs.values())
    failed = {name: run for name, run in runs.items() if run["not_finite"] or run["collapsed"]}
    lines = [
        "# All runs of the ablation",
        "",
        "`docs/ablation.md` has the summary and the protocol.",
        "",
        f"Made by `{result['command']}`, {len(runs)} runs; {result['hardware']['cpu']}, "
        f"{result['hardware']['cores']} cores;",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()) + ".",
        f'All runs took {cpu / 60:.0f} minutes of processor time. "Seconds" is wall time, on a',
        "machine that ran other work at the same time. To repeat one run:",
        "`python benchmarks/ablation.py --jobs 1 --only NAME`.",
        "",
        "| run | FID | seconds | processor seconds | γ of G, D |",
        "|---|---:|---:|---:|---|",
    ]
    for name, run in runs.items():
        gammas = ", ".join(f"{gamma:.3f}" for gamma in run["attention_gamma"].values()) or "-"
        fid = "-" if run["fid"] is None else f"{run['fid']:.1f}"
        seconds = f"{run['seconds']:.0f} | {run['cpu_seconds']:.0f}"
        lines.append(f"| `{name}` | {fid} | {seconds} | {gammas} |")
    lines += ["", "No run became NaN or infinite, and `CollapseMonitor` gave no warning."]
    if failed:
        lines[-1] = "`StopOnNonFinite` and `CollapseMonitor` reported:"
        lines += ["", *(f"- `{k}`: {v['not_finite'] or v['collapsed']}" for k, v in failed.items())]
    return "\n".join([*lines, ""])


def draw(result, path):
    """A row of points for each setting, a point for each seed, a bar at their mean."""
    from matplotlib.figure import Figure

    rows = by_setting(result["runs"])[::-1]
    figure = Figure(figsize=(6.4, 0.34 * len(rows) + 0.9), dpi=200, layout="constrained")
    axes = figure.subplots()
    for place, (factors, values) in enumerate(rows):
        color = {"without": "#0072B2", "with": "#D55E00"}[factors["attention"]]
        axes.plot(values, [place] * len(values), "o", color=color, markersize=4, alpha=0.75)
        axes.plot([mean_and_spread(values)[0]], [place], "|", color=color, markersize=14, mew=2)
    names = [
        "{attention} attention, SN in {spectral_norm}, {rates} rates".format(
            **{name: LABELS[name][factors[name]] for name in FACTORS}
        )
        for factors, _ in rows
    ]
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("FID in the features of the grey classifier; lower is better", fontsize=7)
    axes.set_title("A point for each seed, a bar at the mean", fontsize=8, fontweight="bold")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
