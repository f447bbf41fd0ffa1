"""What helps with few images, and which losses cover all modes?

Command:   python benchmarks/small_data.py --data_dir /usr/share/datasets/fashion-mnist --json
Measures   garments: Fashion-MNIST with 1,000 and 10,000 training images, the hinge loss against
           the relativistic one with R1 and R2, each with and without DifferentiableAugmentation:
           FID, KID, precision and recall against the 10,000 test images, which no run sees, and
           how many samples are nearer to a training image than to a test image;
           leaky: the same with leaky ReLUs in the discriminator, the relativistic loss and no
           augmentation;
           stacked: three garments in the red, green and blue channel, 1,000 modes without labels:
           how many of them 25,600 samples show, and the reverse KL divergence from equal shares
Result:    benchmarks/results/small_data/NAME.json for each run, benchmarks/results/small_data.json

Each run is a process of its own with one thread, --jobs at a time. It saves a checkpoint every 250
steps, so the same command goes on within a run after an interruption.
"""

import itertools
import os
import statistics
import time

import common
import numpy as np
import study

DEFAULTS = {
    "base_filters": 12,
    "batch_size": 32,
    "steps": 3000,
    "num_images": 10_000,
    "num_real": 10_000,
    "num_stacked": 25_600,
    "num_triples": 50_000,
}
GARMENTS = {
    "images": (1000, 10_000),
    "loss": ("hinge", "relativistic"),
    "augmentation": ("without", "with"),
}
LEAKY = {"images": (1000, 10_000), "loss": ("relativistic",), "augmentation": ("without",)}
STACKED = {"loss": ("hinge", "relativistic"), "penalty": ("without", "with")}
TASKS = {"garments": GARMENTS, "leaky": LEAKY, "stacked": STACKED}
STACKED_SEEDS = 2
SLOPE = 0.2  # Of leaky ReLUs.
PENALTY_WEIGHT = 0.5  # Of R1 and of R2.
MODES = 1000
DECIMALS = {"fid": 1, "kid": 1, "precision": 2, "recall": 3, "nearer to training": 2}
DECIMALS |= {"modes": 0, "reverse KL": 2}


def all_runs(seeds):
    """Returns a dictionary from the name of a run to its factors; first seeds come first."""
    runs = {}
    for seed in range(seeds):
        for task, factors in TASKS.items():
            if task == "stacked" and seed >= STACKED_SEEDS:
                continue
            for levels in itertools.product(*factors.values()):
                run = {"task": task, **dict(zip(factors, levels)), "seed": seed}
                runs["_".join(map(str, run.values()))] = run
    return runs


def training_images(run, settings, data_dir):
    """Returns the uint8 images of a run and their labels, which stacked ones don't have."""
    from keras_sagan import data

    images, labels = data.load_fashion_mnist(data_dir, "train")
    images = data.pad_to_32(images)
    if run["task"] != "stacked":
        return images[: run["images"]], labels[: run["images"]]
    which = np.random.default_rng(0).integers(0, len(images), (settings["num_triples"], 3))
    return np.concatenate([images[which[:, i]] for i in range(3)], axis=-1), None


def build(run, settings):
    import keras

    import keras_sagan
    from keras_sagan.penalties import R1, R2

    keras.utils.set_random_seed(run["seed"])
    is_stacked = run["task"] == "stacked"
    kind = {"channels": 3, "num_classes": None} if is_stacked else {}
    model = keras_sagan.SAGAN.from_preset(
        "sagan_fashion_mnist_32",
        base_filters=settings["base_filters"],
        d_steps=1,
        negative_slope=SLOPE if run["task"] == "leaky" else 0.0,
        seed=run["seed"],
        **kind,
    )
    has_penalty = run["penalty"] == "with" if is_stacked else run["loss"] == "relativistic"
    augmentation = None
    if run.get("augmentation") == "with":
        augmentation = keras_sagan.layers.DifferentiableAugmentation()
    model.compile(
        loss=run["loss"],
        augmentation=augmentation,
        penalty=R1(PENALTY_WEIGHT) + R2(PENALTY_WEIGHT) if has_penalty else None,
    )
    return model


def make(run, settings, scratch, options):
    """Trains a model, or goes on with it, and returns its scores."""
    from keras_sagan import data

    began = time.process_time()
    images, labels = training_images(run, settings, options.data_dir)
    model = build(run, settings)
    dataset = data.make_dataset(images, labels, settings["batch_size"], seed=run["seed"])
    name = "_".join(map(str, run.values()))
    reason = study.train(model, dataset, settings["steps"], scratch / "checkpoints" / name)
    measure = measure_stacked if run["task"] == "stacked" else measure_garments
    found = {} if reason else measure(model, run, settings, scratch, images)
    return {
        "steps": int(model.steps.numpy()),
        "not_finite": reason,
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", "all"),
        "cpu_seconds": round(time.process_time() - began, 1),  # Of the last start.
        **found,
    }


def measure_garments(model, run, settings, scratch, training):
    from keras_sagan import data, metrics
    from keras_sagan.metrics.memorization import nearest

    images, labels = (x[: settings["num_real"]] for x in data.load_fashion_mnist())
    images = data.pad_to_32(images)
    report = metrics.evaluate_generator(
        model,
        (images, labels),
        metrics=("fid", "kid", "precision_recall"),
        feature_extractor=metrics.GreyClassifierFeatures(),
        num_images=settings["num_images"],
        batch_size=250,
        dataset="Fashion-MNIST",
        split=f"test, {len(images)} images, none of which was trained on",
        cache_dir=scratch / "reference",
        verbose=False,
    )
    count = min(len(training), len(images), settings["num_images"])
    samples = model.generate(count, labels[:count], seed=0, batch_size=250)
    parts = [features_of(x[:count]) for x in (samples, training, images)]
    to_training, to_test = (nearest(parts[0], part)[0] for part in parts[1:])
    return {
        "scores": report.values,
        "baselines": report.baselines,
        "protocol": report.protocol,
        # 0.5 where training images are no nearer than others of the same kind.
        "nearer_to_training": float(np.mean(to_training < to_test)),
        "distance_to_training": float(np.median(to_training)),
        "distance_to_test": float(np.median(to_test)),
    }


def measure_stacked(model, run, settings, scratch, training):
    classes = [[], [], []]
    for start in range(0, settings["num_stacked"], 2560):
        count = min(2560, settings["num_stacked"] - start)
        images = model.generate(count, seed=start, batch_size=256)
        for channel, found in enumerate(classes):
            found.append(classes_of(images[..., channel : channel + 1]))
    red, green, blue = map(np.concatenate, classes)
    return dict(zip(("modes", "reverse_kl"), modes_of(red, green, blue)), protocol={})


def modes_of(red, green, blue):
    """Returns how many of 1,000 modes appear, and the KL divergence of shares from equal ones."""
    shares = np.bincount(red * 100 + green * 10 + blue, minlength=MODES) / len(red)
    seen = shares[shares > 0]
    return len(seen), float(np.sum(seen * np.log(seen * MODES)))


def outputs_of(images):
    """Yields the outputs of the shipped classifier for uint8 images, a batch at a time."""
    from keras_sagan import metrics

    extractor = metrics.GreyClassifierFeatures()
    for start in range(0, len(images), 500):
        yield extractor.named_outputs(images[start : start + 500].astype("float32") / 127.5 - 1)


def features_of(images):
    return np.concatenate([np.asarray(x["features"]) for x in outputs_of(images)])


def classes_of(images):
    return np.concatenate([np.argmax(x["logits"], axis=-1) for x in outputs_of(images)])


def rows_of(runs):
    """Returns rows of a table: for each setting the mean over seeds, and their spread."""
    rows = {task: [] for task in TASKS}
    for task, names in TASKS.items():
        for levels in itertools.product(*names.values()):
            factors = {"task": task, **dict(zip(names, levels))}
            found = [x for x in runs.values() if all(x.get(k) == v for k, v in factors.items())]
            values = [values_of(x) for x in found if not x["not_finite"]]
            if values:
                row = dict(zip(names, levels)) | {"seeds": len(values)}
                for key in values[0]:
                    each = [x[key] for x in values]
                    row[key] = statistics.mean(each)
                    row[f"{key} ±"] = statistics.stdev(each) if len(each) > 1 else float("nan")
                rows[task].append(row)
    return rows


def markdown(rows):
    """Returns the lines of a Markdown table, with means and, of several seeds, their spread."""
    names = [name for name in rows[0] if name != "seeds" and not name.endswith(" ±")]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = []
        for name in names:
            places, spread = DECIMALS.get(name), row.get(f"{name} ±", float("nan"))
            cell = f"{row[name]:,}" if isinstance(row[name], int) else str(row[name])
            cell = cell if places is None else f"{row[name]:.{places}f}"
            cells.append(cell if np.isnan(spread) else f"{cell} ± {spread:.{places}f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def values_of(run):
    if run["task"] == "stacked":
        return {"modes": run["modes"], "reverse KL": run["reverse_kl"]}
    scores = {name: run["scores"][name] for name in ("fid", "kid", "precision", "recall")}
    return {**scores, "nearer to training": run["nearer_to_training"]}


def add_arguments(parser):
    text = "the folder of Fashion-MNIST's IDX files, such as Debian's dataset-fashion-mnist has"
    parser.add_argument("--data_dir", required=True, help=text)


def main(arguments=None):
    options, _, records = study.main(
        __file__, __doc__, DEFAULTS, all_runs, make, arguments, add_arguments
    )
    found = study.collect(records, left_out=("protocol", "baselines", "load_average"))
    found["penalty_weight"] = PENALTY_WEIGHT
    garments = [x for x in records.values() if x.get("scores")]
    for key in ("protocol", "baselines"):
        found[key] = garments[0][key] if garments else {}
    rows = rows_of(found["runs"])
    result = common.record(
        __file__, options.json, without_folder(arguments), study.PACKAGES, **found, rows=rows
    )
    for part in filter(None, rows.values()):
        print("\n".join(markdown(part)), end="\n\n")
    return result


def without_folder(arguments):
    """Returns the arguments as they can be published, without this machine's folders."""
    import sys

    words = list(sys.argv[1:] if arguments is None else arguments)
    for option in ("--data_dir", "--workdir", "--scratch"):
        if option in words:
            words[words.index(option) + 1] = option[2:].upper()
    return words


if __name__ == "__main__":
    main()
