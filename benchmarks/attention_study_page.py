"""What the attention study says: its statistics, docs/attention_study.md and the figure.

Command:   python benchmarks/attention_study_page.py
Result:    docs/attention_study.md and docs/images/attention_study.png, from the records in
           benchmarks/results/attention_study, also if runs are missing
"""

import argparse
import itertools
import json
import math
import textwrap

import attention_study
import common
import numpy as np
import planted
import receptive_field

RECORDS = common.RESULTS / "attention_study"
PAGE = common.ROOT / "docs" / "attention_study.md"
FIGURE = common.ROOT / "docs" / "images" / "attention_study.png"
LABELS = {
    "none": "none",
    "g_8": "G at 8",
    "g_16": "G at 16",
    "d_8": "D at 8",
    "d_16": "D at 16",
    "both_8": "both at 8",
    "both_16": "both at 16",
}
FAR = str(max(planted.PAIR_PLACES))
LEVEL = 0.05
WIDTH = 98  # Of a line of the page.


def load(folder=RECORDS):
    """Returns the records of the finished runs, in the order of the study."""
    found = {}
    for name in attention_study.all_runs(attention_study.SEEDS):
        path = folder / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found


# Statistics


def scores(records, part, place, distance=None, key="agreement"):
    """Returns a dictionary from the seed to the score of the runs of a cell.

    Args:
        records: Those of `load`.
        part: Set and number of blocks.
        place: Key of `attention_study.ATTENTION`.
        distance, key: Which score; `distance=None` for the asymmetry of faces.
    """
    found = {}
    for record in records.values():
        if (record["set"], record["blocks"], record["attention"]) == (*part, place):
            if not record["not_finite"]:
                each = record["scores"]
                value = each["asymmetry"] if distance is None else np.mean(each[distance][key])
                found[record["seed"]] = value
    return found


def paired(after, before):
    """Returns the differences of the seeds that both cells have."""
    return [after[seed] - before[seed] for seed in sorted(set(after) & set(before))]


def bootstrap_interval(values, level=LEVEL, resamples=9999):
    """Returns the percentile interval of the mean of values, as `scipy.stats.bootstrap` has it."""
    values = np.asarray(values, "float64")
    if len(values) < 2:
        return math.nan, math.nan
    chosen = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[chosen].mean(axis=1), [level / 2, 1 - level / 2])
    return float(low), float(high)


def sign_flip(values):
    """Returns the exact two-sided p-value of a mean difference, over all choices of signs."""
    values = np.asarray(values, "float64")
    if not len(values):
        return 1.0
    signs = np.array(list(itertools.product((-1, 1), repeat=len(values))))
    sums = np.abs(signs @ values)
    return float(np.mean(sums >= abs(values.sum()) - 1e-12))


def holm(p_values):
    """Returns p-values corrected by Holm's method."""
    order = np.argsort(p_values)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected


def smallest_effect(seeds, comparisons=1, power=0.8, trials=400):
    """Returns the mean difference, in standard deviations of a difference, that is found mostly.

    Normal differences are drawn, and the smallest of several effects whose `sign_flip` times
    `comparisons` is at most `LEVEL` in a share `power` of the trials is returned.
    """
    noise = np.random.default_rng(0).normal(size=(trials, seeds))
    for effect in np.arange(0.5, 4.01, 0.1):
        p_values = [sign_flip(row + effect) * comparisons for row in noise]
        if np.mean(np.array(p_values) <= LEVEL) >= power:
            return round(float(effect), 1)
    return math.inf


# The page


def effect_rows(records, part, places, distance):
    """Returns, for each place of attention, the differences from the runs without attention."""
    before = scores(records, part, "none", distance)
    rows = []
    for place in places:
        after = scores(records, part, place, distance)
        differences = paired(after, before)
        rows.append(
            {
                "place": place,
                "pairs": len(differences),
                "before": mean(before.values()),
                "after": mean(after.values()),
                "difference": mean(differences),
                "interval": bootstrap_interval(differences),
                "deviation": np.std(differences, ddof=1) if len(differences) > 1 else math.nan,
                "is_asymmetry": distance is None,
                "p": sign_flip(differences),
            }
        )
    for row, p in zip(rows, holm([row["p"] for row in rows])):
        row["p"] = p
    return rows


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def verdict(row):
    """Returns the result of the plan's test for a row of `effect_rows`."""
    low, high = row["interval"]
    if row["pairs"] < attention_study.SEEDS:
        return "not finished"
    if row["p"] > LEVEL or low <= 0 <= high:
        return "no difference shown"
    # Less asymmetry is better, and more agreement.
    return "helps" if (row["difference"] < 0) == row["is_asymmetry"] else "**hurts**"


def percent(value):
    return "-" if math.isnan(value) else f"{100 * value:.0f}"


def effect_table(records, part, distance, rows):
    """Returns the rows of a Markdown table: a cell of the study in each."""
    extra = [] if distance is None else ["spread"]
    lines = [
        "| attention | score | difference | 95 % interval | p (Holm) | "
        + "".join(f"{key} | " for key in extra)
        + "seeds | result |",
        "|---|" + "---:|" * (5 + len(extra)) + "---|",
    ]
    none = {"place": "none", "after": rows[0]["before"]}
    for row in (none, *rows):
        found = [
            percent(mean(scores(records, part, row["place"], distance, key).values()))
            for key in extra
        ]
        cells = [LABELS[row["place"]], percent(row["after"])]
        if row is none:
            cells += ["", "", "", *found, "", ""]
        else:
            low, high = map(percent, row["interval"])
            cells += [percent(row["difference"]), f"{low} to {high}", f"{row['p']:.3f}", *found]
            cells += [str(row["pairs"]), verdict(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def sight_table():
    """Returns rows with the share of both squares that fits into a receptive field of D."""
    lines = [
        "| discriminator | receptive field | " + " | ".join(f"{d} px" for d in planted.PAIR_PLACES),
        "|---|---|" + "---:|" * len(planted.PAIR_PLACES),
    ]
    lines[0] += " |"
    for blocks, name in ((2, "two blocks"), (4, "four blocks, as in the presets")):
        intervals = receptive_field.by_formula(blocks)
        shares = [receptive_field.seen_together(intervals, d) for d in planted.PAIR_PLACES]
        cells = [
            name,
            f"{widest(intervals)} of 32 pixels",
            *(f"{percent(share)} %" for share in shares),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def preset_table():
    """Returns rows with the receptive fields of the presets' discriminators."""
    lines = [
        "| image | blocks of D | map with attention | receptive field there | in the last map |",
        "|---|---:|---:|---:|---:|",
    ]
    for image_size, map_size, name in (
        (32, 16, ""),
        (64, 32, ""),
        (64, 16, " (`sagan_emoji_64`)"),
        (128, 32, ""),
    ):
        blocks, downsamples = discriminator_shape(image_size)
        before = int(math.log2(image_size // map_size))
        width = widest(receptive_field.by_formula(before, image_size, before))
        last = widest(receptive_field.by_formula(blocks, image_size, downsamples))
        cells = [f"{image_size} px{name}", blocks, f"{map_size} px", f"{width} px", f"{last} px"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def discriminator_shape(image_size):
    """Returns the number of blocks of the package's discriminator, and how many halve the map."""
    from keras_sagan.models import blocks

    return len(blocks.DISCRIMINATOR_WIDTHS[image_size]), blocks.NUM_DOWNSAMPLES[image_size]


def widest(intervals):
    return max(last - first + 1 for first, last in intervals)


def part_rows(records, part):
    """Returns `effect_rows` of a part for each distance, or for the faces."""
    name, blocks = part
    places = attention_study.PARTS[part]
    distances = {
        "pairs": [str(d) for d in planted.PAIR_PLACES],
        "figures": [str(d) for d in planted.FIGURE_PLACES],
        "emoji": [None],
    }[name]
    return {d: effect_rows(records, part, [p for p in places if p != "none"], d) for d in distances}


def progress(records):
    """Returns rows that say how many runs of each part are finished."""
    lines = ["| set | discriminator | finished runs |", "|---|---|---:|"]
    for (name, blocks), places in attention_study.PARTS.items():
        done = sum((x["set"], x["blocks"]) == (name, blocks) for x in records.values())
        total = len(places) * attention_study.SEEDS
        lines.append(f"| {name} | {blocks} blocks | {done} of {total} |")
    return lines


def is_finished(records, part):
    name, blocks = part
    done = sum((x["set"], x["blocks"]) == (name, blocks) for x in records.values())
    return done == attention_study.SEEDS * len(attention_study.PARTS[part])


def page(records):
    """The Markdown of docs/attention_study.md."""
    settings = attention_study.DEFAULTS
    total = len(attention_study.all_runs(attention_study.SEEDS))
    lines = ["# Does attention help, and where?", "", *answer(records), "", *expectations(records)]
    lines += [
        "## When convolutions can't compare two parts",
        "",
        "The discriminator sums its last feature map over all positions. Without attention, its",
        "logit is therefore a sum of terms, and each term depends only on the pixels in the",
        "receptive field of one position. If no receptive field contains pixels of both squares of",
        "a pair, the logit is a sum of two terms, one for each square. Such a logit can't reward",
        "squares of equal color. The squares are 8 pixels wide. The table shows how much of both",
        "squares can fit into one receptive field, for three distances between their centers:",
        "",
        *sight_table(),
        "",
        "The generator doesn't have this limit. Its dense layer turns the latents into a 4 × 4",
        "map, so all parts of an image depend on the same latents, with or without attention.",
        "",
        "## What it means for `attention_resolutions`",
        "",
        *advice(records),
        "",
        *preset_table(),
        "",
        "## The sets",
        "",
        "- **Pairs**: each image has three pairs of 8 × 8-pixel squares on a gray background. Both",
        "  squares of a pair have the same random color. The three colors are independent. All",
        "  squares have the same shape, so the study doesn't test whether shapes agree.",
        "- **Figures**: each image has 4 × 4 cells of 8 × 8 pixels. Each cell has a random color,",
        "  and the right half of the image mirrors the left half.",
        "- **Emoji**: the faces of `keras_sagan.data.load_emoji` at 32 pixels. The score is the",
        "  **asymmetry**, the mean difference between an image and its mirror image, divided by",
        "  the mean difference between an image and the mirror image of a different image.",
        "  Symmetric images have an asymmetry of 0.",
        "",
        "The scores don't use a neural network. **Agreement** is the concordance correlation",
        "between the mean colors of the two squares of a pair, or of a cell and its mirror cell,",
        "over all generated images. Agreement is 1 if the two colors are always equal, and 0 if",
        "they are independent. **Spread** is the standard deviation of the generated colors,",
        "divided by the standard deviation of the training images' colors. The spread is near 0 if",
        "a model always generates the same image. The scores in the tables are percentages.",
        "",
        "## Results",
        "",
    ]
    if records:
        lines += [
            "![Scores of each seed](images/attention_study.png)",
            "",
            "*Each dot is one run. Each bar is the mean of the dots in its row. Runs without",
            "attention are blue.*",
            "",
        ]
    titles = {
        ("pairs", 2): "### Pairs, discriminator of two blocks",
        ("pairs", 4): "### Pairs, the presets' discriminator of four blocks",
        ("figures", 4): "### Figures",
        ("emoji", 4): "### Emoji",
    }
    for part, title in titles.items():
        found = {d: rows for d, rows in part_rows(records, part).items() if rows[0]["pairs"] > 1}
        if found:
            lines += [title, ""]
        for distance, rows in found.items():
            if distance is None:
                real = mean(
                    x["scores"]["held_out"] for x in records.values() if "held_out" in x["scores"]
                )
                lines += [f"Asymmetry, which is {percent(real)} % for held-out real faces:", ""]
            else:
                lines += [f"Agreement at {distance} pixels:", ""]
            lines += [*effect_table(records, part, distance, rows), ""]
    if failed := [f"`{name}`" for name, record in records.items() if record["not_finite"]]:
        lines += [f"These runs became NaN or infinite and have no score: {', '.join(failed)}.", ""]
    lines += [
        f"{len(records)} of {total} runs have finished. `python benchmarks/attention_study.py`",
        "resumes the study, and `python benchmarks/attention_study_page.py` updates this page. The",
        f"runs took at least {sum(x['cpu_seconds'] for x in records.values()) / 3600:.1f} hours of",
        "processor time in all (of a run that was resumed, only the last part is counted).",
        "",
        *progress(records),
        "",
        "## Protocol",
        "",
        "- The plan, `benchmarks/attention_study.md`, was written before the first run. The plan",
        "  contains the questions, the test and the smallest effect that the test can show.",
        "- `build_generator` and `build_discriminator` build the networks, which are narrower than",
        "  the presets. Networks without attention have a wider block, and therefore at least as",
        "  many parameters as networks with attention.",
        f"- Each network is trained for {settings['steps']:,} steps with a batch size of "
        f"{settings['batch_size']}, one",
        "  discriminator update per step, the relativistic loss, R1 and R2 with a weight of "
        f"{attention_study.PENALTY_WEIGHT:g},",
        f"  and Adam with a learning rate of {attention_study.RATE:g}.",
        f"- The scores are computed from {settings['num_samples']:,} images of the averaged "
        "generator.",
        "- Each run with attention is compared with the run without attention that has the same",
        "  seed. The interval is the bootstrap interval of the mean difference. The p-value comes",
        "  from the exact sign-flip test, with Holm's correction for all rows of a table. A",
        "  difference counts as an effect if p is at most 0.05 and the interval excludes 0.",
        *power(records),
        "",
        "Next: [Add attention to your own GAN](guides/add_attention.md).",
    ]
    return "\n".join([*lines, ""])


def answer(records):
    """Returns the first lines of the page: the answer of the primary comparison."""
    if not is_finished(records, ("pairs", 2)):
        return [
            "This page will show whether self-attention helps a small SAGAN, and at which",
            "distances. The study isn't finished, so draw no conclusions from the numbers below.",
        ]
    rows = part_rows(records, ("pairs", 2))[FAR]
    said = []
    for result, verb in (("helps", "helps"), ("**hurts**", "hurts")):
        if places := [LABELS[row["place"]] for row in rows if verdict(row) == result]:
            said.append(f"Attention {verb} between distant parts: {', '.join(places)}.")
    ends = list(zip(*(row["interval"] for row in rows)))
    low, high = percent(min(ends[0])), percent(max(ends[1]))
    return said or [
        "The study doesn't show an effect of attention in these small networks, even if two parts",
        "of an image are never in the same receptive field. Training was short, and runs vary: for",
        f"squares {FAR} px apart and discriminators of two blocks, the 95 % intervals of the",
        f"differences range from {low} to {high} percentage points, so effects within this range",
        "can't be excluded.",
    ]


def power(records):
    """Returns what the test can find, from the standard deviations that the runs have."""
    parts = [("pairs", blocks) for blocks in (2, 4)]
    if not all(is_finished(records, part) for part in parts):
        return []
    deviations, effects = [], []
    for part in parts:
        rows = part_rows(records, part)[FAR]
        factor = smallest_effect(attention_study.SEEDS, len(rows))
        deviations += [row["deviation"] for row in rows]
        effects += [factor * row["deviation"] for row in rows]
    low, high, least, most = map(percent, (*span(deviations), *span(effects)))
    text = (
        "The plan assumed that the difference of two runs has a standard deviation of 7 percentage "
        f"points. At {FAR} pixels, it is {low} to {high} points, depending on the row. Therefore, "
        "the test finds a true difference in 80 % of the cases only if the difference is at least "
        f"{least} to {most} points. Smaller effects can stay hidden."
    )
    return textwrap.wrap(text, WIDTH, initial_indent="- ", subsequent_indent="  ")


def span(values):
    return min(values), max(values)


def expectations(records):
    """Returns a table of what the plan expected, and whether the records show it."""
    unfinished = {part for part in attention_study.PARTS if not is_finished(records, part)}
    if unfinished - {("emoji", 4)}:
        return []
    near = str(min(planted.PAIR_PLACES))
    two, four = (part_rows(records, ("pairs", blocks)) for blocks in (2, 4))
    in_d = [[x for x in two[d] if not x["place"].startswith("g_")] for d in (near, FAR)]
    in_g = [x for x in two[FAR] if x["place"].startswith("g_")]
    in_both = next(x for x in two[FAR] if x["place"] == "both_16")
    figures = part_rows(records, ("figures", 4))[str(max(planted.FIGURE_PLACES))][0]
    faces = part_rows(records, ("emoji", 4))[None][0]
    helpful = [LABELS[row["place"]] for row in in_d[1] if verdict(row) == "helps"]
    gains = [mean(row["difference"] for row in rows) for rows in in_d]
    changes = [in_both["difference"], four[FAR][0]["difference"]]
    lines = {
        f"In D, attention increases the agreement at {FAR} pixels (the primary question)": (
            bool(helpful),
            f"helps: {', '.join(helpful)}" if helpful else "no difference shown",
        ),
        f"In G alone, attention doesn't increase the agreement at {FAR} pixels": (
            not any(verdict(row) == "helps" for row in in_g) and "not contradicted",
            "; ".join(f"{LABELS[row['place']]}: {verdict(row)}" for row in in_g),
        ),
        f"In D, the gain at {FAR} pixels is larger than at {near}": (
            gains[1] > gains[0] if helpful else None,
            f"mean gain {percent(gains[1])} and {percent(gains[0])} points",
        ),
        f"With four blocks, attention changes the agreement at {FAR} pixels by less": (
            abs(changes[1]) < abs(changes[0]) if helpful else None,
            f"{percent(changes[1])} points, and {percent(changes[0])} with two blocks",
        ),
        "Distant mirror cells of figures agree more with attention": (
            verdict(figures) == "helps",
            verdict(figures),
        ),
        "Faces are more symmetric with attention": (
            None if verdict(faces) == "not finished" else verdict(faces) == "helps",
            verdict(faces),
        ),
    }
    words = {None: "-", True: "yes", False: "no"}
    rows = []
    for text, (held, why) in lines.items():
        is_open = held is False and why == "no difference shown"
        rows += [f"| {text} | {'not shown' if is_open else words.get(held, held)} | {why} |"]
    if not helpful:
        rows += ["", f"Rows with `-` have no answer: D shows no difference at {FAR} px."]
    return ["| expected before the first run | held | result |", "|---|---|---|", *rows, ""]


def advice(records):
    """Returns what the study says about the argument."""
    lines = textwrap.wrap(
        "In both networks of a preset, `attention_resolutions` selects the feature maps that get "
        "an attention layer. In the presets' discriminators, the receptive field of the last map "
        "covers the full image, so convolutions alone can compare distant parts, but only in the "
        "last blocks. At the attention layer, the receptive field of the convolutions is smaller:",
        WIDTH,
    )
    if not is_finished(records, ("pairs", 4)):
        return lines
    row = part_rows(records, ("pairs", 4))[FAR][0]
    unit = percent(row["difference"])
    low, high = map(percent, row["interval"])
    found = textwrap.wrap(
        "With four blocks in the discriminator, as in the presets, attention on the 16 × 16 maps "
        f"of both networks changes the agreement of squares {FAR} pixels apart by {unit} "
        f"percentage points on average (95 % interval: {low} to {high}; result: {verdict(row)}). "
        + "The study therefore gives no reason to add or remove attention layers. Compare the "
        "preset with `attention_resolutions=()` on your own images."
        * (verdict(row) == "no difference shown"),
        WIDTH,
    )
    return [*found, "", *lines]


def draw(records, path):
    """A panel for each set and distance with runs: a point for each seed, a bar at the mean."""
    from matplotlib.figure import Figure

    panels = []
    for (name, blocks), places in attention_study.PARTS.items():
        for distance in part_rows({}, (name, blocks)):
            if any(scores(records, (name, blocks), place, distance) for place in places):
                panels.append((name, blocks, places, distance))
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(9, 2.2 * rows), dpi=160, layout="constrained")
    grid = figure.subplots(rows, 3, squeeze=False)
    for axes, (name, blocks, places, distance) in itertools.zip_longest(
        grid.flat, panels, fillvalue=(None,) * 4
    ):
        if name is None:
            axes.set_axis_off()
            continue
        lowest = 0.0
        for row, place in enumerate(places[::-1]):
            values = list(scores(records, (name, blocks), place, distance).values())
            color = "#0072B2" if place == "none" else "#D55E00"
            axes.plot(values, [row] * len(values), "o", color=color, markersize=3, alpha=0.7)
            axes.plot([mean(values)], [row], "|", color=color, markersize=12, mew=2)
            lowest = min([lowest, *values])
        axes.set_yticks(range(len(places)), [LABELS[x] for x in places[::-1]], fontsize=6)
        axes.set_ylim(-0.7, len(places) - 0.3)
        axes.tick_params(axis="x", labelsize=6)
        title = f"{name}, {blocks} blocks" + ("" if distance is None else f", {distance} px")
        axes.set_title(title, fontsize=7, fontweight="bold")
        axes.set_xlabel("asymmetry" if distance is None else "agreement", fontsize=6)
        if distance is not None:
            axes.set_xlim(lowest - 0.1, 1.02)
        axes.grid(axis="x", color="#dddddd", linewidth=0.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(arguments=None):
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    records = load()
    PAGE.write_text(page(records), encoding="utf-8")
    if records:
        draw(records, FIGURE)


if __name__ == "__main__":
    main()
