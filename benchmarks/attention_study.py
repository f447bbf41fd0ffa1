"""Does attention help, and where?

Command:   python benchmarks/attention_study.py
Measures   pairs: images with three pairs of squares, 8, 16 and 24 pixels apart; the squares of a
           pair must have the same color; attention in neither network, in the generator, in the
           discriminator and in both, at 8 and at 16 pixels, with a discriminator of two blocks
           that sees 16 pixels; without attention and with it in both networks at 16 pixels, with
           the presets' discriminator of four blocks;
           figures, emoji: patterns and faces that must equal their mirror images; without
           attention and with it in both networks at 16 pixels, with four blocks;
           networks without attention have wider blocks and at least as many parameters
Result:    benchmarks/results/attention_study/NAME.json for each run; then
           `python benchmarks/attention_study_page.py` writes docs/attention_study.md

`attention_study.md` is the plan, which was written before the first run. Each run is a process with
one thread, --jobs at a time. It saves a checkpoint every 250 steps, so the same command resumes
after an interruption, within a run too.
"""

import os
import time
from unittest import mock

import common
import planted
import study

SEEDS = 8
DEFAULTS = {
    "batch_size": 16,
    "steps": 2000,
    "num_training": 8192,
    "num_samples": 3000,
}
# The maps with attention in the generator and in the discriminator.
ATTENTION = {
    "none": ((), ()),
    "g_8": ((8,), ()),
    "g_16": ((16,), ()),
    "d_8": ((), (8,)),
    "d_16": ((), (16,)),
    "both_8": ((8,), (8,)),
    "both_16": ((16,), (16,)),
}
SMALL = ("none", "both_16")
# From set and blocks of the discriminator to places of attention, in the order of the runs.
PARTS = {
    ("pairs", 2): tuple(ATTENTION),
    ("pairs", 4): SMALL,
    ("figures", 4): SMALL,
    ("emoji", 4): SMALL,
}
# Channels of the generator's maps of 4, 8, 16 and 32 pixels, and of the discriminator's blocks.
# Without attention, some blocks are wider, for at least as many parameters as with any attention.
G_WIDTHS = {"with": (24, 24, 24, 8), "without": (24, 24, 25, 8)}
D_WIDTHS = {
    2: {"with": (16, 24), "without": (17, 25)},
    4: {"with": (16, 24, 24, 24), "without": (17, 24, 24, 24)},
}
LATENT_DIM = 32
RATE = 5e-4  # Of both networks.
PENALTY_WEIGHT = 1.0  # Of R1 and of R2.


def all_runs(seeds):
    """Returns a dictionary from the name of a run to its factors; first seeds come first."""
    runs = {}
    for (name, blocks), places in PARTS.items():
        for seed in range(seeds):
            for place in places:
                run = {"set": name, "blocks": blocks, "attention": place, "seed": seed}
                runs["_".join(map(str, run.values()))] = run
    return runs


def training_images(run, settings, emoji_folder=None):
    """Returns the uint8 images of a run."""
    if run["set"] == "emoji":
        return faces(emoji_folder, "train")
    make_images = {"pairs": planted.pairs, "figures": planted.figures}[run["set"]]
    return make_images(settings["num_training"], seed=0)


def faces(folder, split):
    """Returns the emoji of faces at 32 pixels, with half of the contrast, as in the other sets."""
    import numpy as np

    from keras_sagan import data

    emoji = data.load_emoji(folder, planted.SIZE, split)
    return emoji.images[np.char.startswith(emoji.subcategories, "face-")] // 2 + planted.DARK


def build(run):
    """Builds the package's networks with the study's widths."""
    import keras

    import keras_sagan
    from keras_sagan.models import blocks
    from keras_sagan.penalties import R1, R2

    keras.utils.set_random_seed(run["seed"])
    in_g, in_d = ATTENTION[run["attention"]]
    widths = G_WIDTHS["with" if in_g else "without"]
    d_widths = D_WIDTHS[run["blocks"]]["with" if in_d else "without"]
    shared = {"image_size": planted.SIZE, "base_filters": 1}
    with (
        mock.patch.dict(blocks.GENERATOR_WIDTHS, {planted.SIZE: widths}),
        mock.patch.dict(blocks.DISCRIMINATOR_WIDTHS, {planted.SIZE: d_widths}),
    ):
        generator = keras_sagan.build_generator(
            latent_dim=LATENT_DIM,
            attention_resolutions=in_g,
            batch_norm={"momentum": 0.99},
            **shared,
        )
        discriminator = keras_sagan.build_discriminator(attention_resolutions=in_d, **shared)
    model = keras_sagan.SAGAN(
        generator,
        discriminator,
        LATENT_DIM,
        ema_momentum=0.995,
        seed=run["seed"],
        ttur={
            "g_learning_rate": RATE,
            "d_learning_rate": RATE,
            "beta_1": 0.0,
            "beta_2": 0.99,
        },
    )
    model.compile(loss="relativistic", penalty=R1(PENALTY_WEIGHT) + R2(PENALTY_WEIGHT))
    return model


def make(run, settings, scratch, options):
    """Trains a model, or resumes its training, and returns its scores."""
    from keras_sagan import data

    began = time.process_time()
    images = training_images(run, settings, options.emoji)
    model = build(run)
    dataset = data.make_dataset(images, None, settings["batch_size"], seed=run["seed"])
    name = "_".join(map(str, run.values()))
    reason = study.train(model, dataset, settings["steps"], scratch / "checkpoints" / name)
    return {
        "steps": int(model.steps.numpy()),
        "not_finite": reason,
        "parameters": [n.count_params() for n in (model.generator, model.discriminator)],
        "attention_gamma": {
            name: common.rounded(value) for name, value in model.attention_gammas().items()
        },
        "scores": {} if reason else measure(model, run, settings, options.emoji),
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", "all"),
        "cpu_seconds": round(time.process_time() - began, 1),  # Of the last start.
    }


def measure(model, run, settings, emoji_folder):
    """Returns the scores of generated images, from the averaged generator."""
    images = model.generate(settings["num_samples"], seed=0, batch_size=250)
    if run["set"] == "pairs":
        return planted.score_pairs(images)
    if run["set"] == "figures":
        return planted.score_figures(images)
    real = faces(emoji_folder, "held_out")
    return {"asymmetry": planted.asymmetry(images), "held_out": planted.asymmetry(real)}


def add_arguments(parser):
    text = "the folder of the two archives of `keras_sagan.data.load_emoji`; default: download them"
    parser.add_argument("--emoji", help=text)


def main(arguments=None):
    _, _, records = study.main(
        __file__, __doc__, DEFAULTS, all_runs, make, arguments, add_arguments, SEEDS
    )
    rows = [
        {"run": name, "seconds": record["cpu_seconds"], "score": headline(record["scores"])}
        for name, record in records.items()
    ]
    common.print_table(rows)
    return records


def headline(scores):
    """Returns the scores of a run in words."""
    if "asymmetry" in scores:
        return f"asymmetry {scores['asymmetry']:.2f}"
    each = [f"{distance}: {score['agreement']:.2f}" for distance, score in scores.items()]
    return f"agreement {', '.join(each) or '-'}"


if __name__ == "__main__":
    main()
