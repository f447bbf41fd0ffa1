"""Whose emoji are better after the same training: this package's or those of another program?

Command:   python benchmarks/against_studiogan.py --peer "StudioGAN=COMMAND" --json
Measures   KID and FID of images of 64 pixels, from the preset sagan_emoji_64 and from a peer such
           as StudioGAN's SAGAN, against emoji of held-out concepts, with
           EfficientNetLite0Features; both train on the same images, for the same number of steps
           and with the same batch size
Result:    benchmarks/results/against_studiogan/NAME.json for each run, and
           benchmarks/results/against_studiogan.json

A peer is a command outside of this project. It gets the path of a folder as its last argument:
    images.npy     the training images, uint8 of shape (num_images, 64, 64, 3)
    labels.npy     their classes, int32 of shape (num_images,)
    settings.json  "steps", "batch_size", "seed", "num_classes", "num_samples", "sample_labels"
It makes "steps" updates of each network with batches of "batch_size" of these images, which it
doesn't mirror or change in another way. Then it generates one image of each class in the list
"sample_labels", writes them to the same folder and ends with status 0:
    samples.npy    uint8 of shape (num_samples, 64, 64, 3), in [0, 255]
It can keep checkpoints in the folder. After an interruption it gets the same folder again.

Each run is a process with one thread, --jobs at a time; a peer's command should keep to
OMP_NUM_THREADS. The same command resumes after an interruption, within a run too.
"""

import argparse
import functools
import json
import os
import shlex
import statistics
import subprocess

import common
import numpy as np
import study

DEFAULTS = {"batch_size": 16, "steps": 10_000, "num_samples": 2000}
OWN = "keras_sagan"
SCORES = ("kid", "fid")


def all_runs(peer, seeds):
    """Returns a dictionary from the name of a run to its factors; first seeds come first."""
    runs = [{"network": x, "seed": seed} for seed in range(seeds) for x in (OWN, peer)]
    return {f"{run['network']}_{run['seed']}": run for run in runs}


def make(run, settings, scratch, options):
    """Trains one of the networks, or resumes its training, and returns its scores."""
    from keras_sagan import data, metrics

    training = data.load_emoji(options.emoji)
    held_out = data.load_emoji(options.emoji, split="held_out")
    labels = np.random.default_rng(0).choice(held_out.labels, settings["num_samples"])
    folder = scratch / f"{run['network']}_{run['seed']}"
    began = sum(os.times()[:4])  # With the peer's process.
    found = {"not_finite": None}
    if run["network"] == OWN:
        samples, found["not_finite"] = own_samples(run, settings, folder, training, labels)
    else:
        _, command = common.named_command(options.peer)
        samples = peer_samples(command, run, settings, folder, training, labels)
    # Of the last start, without the scores.
    found["cpu_seconds"] = round(sum(os.times()[:4]) - began, 1)
    found["threads"] = os.environ.get("OMP_NUM_THREADS", "all")
    if found["not_finite"]:
        return {**found, "scores": {}, "baselines": {}, "protocol": {}}
    report = metrics.evaluate_images(
        samples,
        held_out.images,
        SCORES,
        metrics.EfficientNetLite0Features(),
        dataset="emoji",
        split="held-out concepts",
        held_out=training.images,
        verbose=False,
    )
    parts = {"scores": report.values, **report.baselines}
    # So few images give no standard error of KID, and JSON has no NaN.
    parts = {name: {key: values[key] for key in SCORES} for name, values in parts.items()}
    return {**found, "scores": parts.pop("scores"), "baselines": parts, "protocol": report.protocol}


def own_samples(run, settings, folder, training, labels):
    """Returns images of this package's network, or why there are none."""
    import keras

    from keras_sagan import SAGAN, data

    keras.utils.set_random_seed(run["seed"])
    kind = {"num_classes": len(training.class_names), "seed": run["seed"]}
    model = SAGAN.from_preset("sagan_emoji_64", **kind)
    model.compile()
    batches = data.make_dataset(
        training.images, training.labels, settings["batch_size"], seed=run["seed"]
    )
    if reason := study.train(model, batches, settings["steps"], folder):
        return None, reason
    return model.generate(len(labels), labels, seed=0), None


def peer_samples(command, run, settings, folder, training, labels):
    """Has the peer train, and returns the images that it generated."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", training.images)
    np.save(folder / "labels.npy", training.labels)
    task = {**settings, "seed": run["seed"], "num_classes": len(training.class_names)}
    task["sample_labels"] = labels.tolist()
    (folder / "settings.json").write_text(json.dumps(task))
    path = folder / "samples.npy"
    path.unlink(missing_ok=True)  # It would hide that the peer writes nothing.
    status = subprocess.run([*shlex.split(command), str(folder.resolve())]).returncode
    if status or not path.exists():
        raise RuntimeError(
            "The peer must write samples.npy and end with status 0. "
            f"Received: status {status} of {command}"
        )
    samples, shape = np.load(path), (len(labels), *training.images.shape[1:])
    if samples.dtype != np.uint8 or samples.shape != shape:
        raise ValueError(
            f"The peer must write samples.npy as uint8 of shape {shape}. "
            f"Received: {samples.dtype} of shape {samples.shape}"
        )
    return samples


def rows_of(runs):
    """Returns for each network the mean score of its seeds, the lowest and the highest."""
    rows = []
    for network in dict.fromkeys(run["network"] for run in runs):
        found = [x["scores"] for x in runs if x["network"] == network and x["scores"]]
        row = {"network": network, "seeds": len(found)}
        for key in SCORES if found else ():
            each = [scores[key] for scores in found]
            row |= {key: statistics.mean(each), f"lowest {key}": min(each)}
            row[f"highest {key}"] = max(each)
        rows += [row] if found else []
    return rows


def add_arguments(parser):
    text = "the folder of the two archives of `keras_sagan.data.load_emoji`; default: download them"
    parser.add_argument("--emoji", help=text)
    text = "NAME=COMMAND; the docstring says what the command gets and must write"
    parser.add_argument("--peer", required=True, help=text)


def main(arguments=None):
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--peer", type=common.named_command, default=("peer", ""))
    known, _ = parser.parse_known_args(arguments)
    runs = functools.partial(all_runs, known.peer[0])
    options, _, records = study.main(
        __file__, __doc__, DEFAULTS, runs, make, arguments, add_arguments
    )
    shared = ("settings", "protocol", "baselines")
    found = study.collect(records, shared, ("versions", "protocol"), ("load_average",))
    rows = rows_of(list(records.values()))
    ratios = {key: rows[0][key] / rows[1][key] for key in SCORES if len(rows) == 2}
    command = ["--peer", options.peer]  # The settings are in the record.
    result = common.record(
        __file__, options.json, command, study.PACKAGES, **found, rows=rows, ratios=ratios
    )
    common.print_table(rows)
    for key, ratio in ratios.items():
        print(f"{key}: {ratio:.3f} times the peer's")
    return result


if __name__ == "__main__":
    main()
