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
        return "can't be told from chance here"
    return "agrees" if mean < 0 else "**doesn't agree**"


def page(result):
    """The Markdown of docs/ablation.md."""
    runs, settings = result["runs"], result["settings"]
    cpu = sum(run["cpu_seconds"] for run in runs.values())
    failed = {name: run for name, run in runs.items() if run["not_finite"] or run["collapsed"]}
    lines = [
        "# The paper's claims, at a small size",
        "",
        "What attention, spectral norm in both networks and two learning rates (TTUR) do for small",
        "networks on Fashion-MNIST after few steps. It reports what came out, also where that",
        "doesn't agree with the paper, whose ImageNet networks are hundreds of times as large and",
        "were trained a thousand times as long.",
        "",
        "![FID of each setting, a point for each seed](images/ablation.png)",
        "",
        "| attention | spectral norm | learning rates | FID, mean | spread | each seed |",
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
        f"Spread is the standard deviation over seeds. Real against real images have {floor:.1f},",
        f"noise has {noise:.0f}.",
        "",
        "## Against the paper",
        "",
        "Differences between runs that are equal in all else, the seed included; below 0 the",
        "paper's choice is better. A sign counts beyond two standard errors.",
        "",
        "| the paper says | difference of FID, mean | spread | pairs | lower in | |",
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
        "The paper's attention is compared with residual blocks of as many parameters; here it is",
        "left out. What the paper shows of spectral norm and of the rates it shows over 10,000 to",
        "1,000,000 steps, as stability; these runs end long before.",
        "",
        "## Protocol",
        "",
        "- Networks of the preset `sagan_fashion_mnist_32` with "
        f"`base_filters={settings['base_filters']}`, {settings['steps']} steps of",
        f"  {settings['batch_size']} images, one discriminator step each, the averaged generator, "
        "Adam with the preset's β₁ and β₂.",
        f"- Equal rates are {RATES['equal'][0]:g} for both networks. The two rates are "
        f"{RATES['ttur'][0]:g} for the generator and",
        f"  {RATES['ttur'][1]:g} for the discriminator: the paper's ratio of 4 around the same "
        "geometric mean, so that",
        "  neither setting has the larger rates on the whole. All are above the paper's 1e-4 and",
        "  4e-4, with which training would hardly have begun after so few steps.",
        "- A seed determines initial weights, the order of the images, latents and labels; each",
        "  seed is used for all settings.",
        f"- FID: {settings['num_images']:,} generated images, labels in equal number, against the "
        f"{settings['num_real']:,} images of",
        "  the data set's test split, which were trained on; features of `GreyClassifierFeatures`;",
        "  averaged weights, moving statistics. It compares with no Inception FID. The whole",
        "  protocol is in `benchmarks/results/ablation.json`.",
        "",
        "## Every run",
        "",
        f"Made by `{result['command']}`, {len(runs)} runs; {result['hardware']['cpu']}, "
        f"{result['hardware']['cores']} cores;",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()) + ".",
        f"In all {cpu / 60:.0f} minutes of processor time. Seconds are those of the clock, on a",
        "machine that had other work to do meanwhile; one run by itself is",
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
        lines[-1] = "What `StopOnNonFinite` and `CollapseMonitor` said:"
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
