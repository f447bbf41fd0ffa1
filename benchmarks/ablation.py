"""What do attention, spectral norm and two learning rates do, at the size of Fashion-MNIST?

Command:   python benchmarks/ablation.py --json
Measures   the FID after equally many steps of all eight combinations of attention on and off,
           spectral norm in the discriminator only and in both networks, and one or two learning
           rates, each with three seeds; CPU only
Result:    a file for each run in --workdir, benchmarks/results/ablation.json, docs/ablation.md,
           benchmarks/logs/ablation.md and docs/images/ablation.png

Each run is a process of its own with one thread, --jobs at a time. A run that has its file is not
made again: the same command goes on after an interruption. Files of other settings are refused.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
from ablation_page import FACTORS, RATES, by_setting, draw, log, mean_and_spread, page

TABLE = common.ROOT / "docs" / "ablation.md"
LOG = common.ROOT / "benchmarks" / "logs" / "ablation.md"
FIGURE = common.ROOT / "docs" / "images" / "ablation.png"
PACKAGES = ("keras", "tensorflow", "numpy")
DEFAULTS = {
    "base_filters": 8,
    "batch_size": 16,
    "steps": 1200,
    "num_images": 5000,
    "num_real": 10_000,
}
EPOCHS = 4  # at whose ends the monitors look


def all_runs(seeds):
    """Dictionary from the name of a run to its factors and its seed.

    The paper's setting and those that differ from it in one factor come first.
    """
    settings = [dict(zip(FACTORS, levels)) for levels in itertools.product(*FACTORS.values())]
    runs = [(factors, seed) for seed in range(seeds) for factors in settings]
    runs.sort(key=lambda run: departures(run[0]) > 1)
    return {f"{name_of(factors)}_seed-{seed}": {**factors, "seed": seed} for factors, seed in runs}


def departures(factors):
    """In how many factors a setting differs from the paper's, the last level of each."""
    return sum(factors[name] != levels[-1] for name, levels in FACTORS.items())


def name_of(factors):
    return "_".join(f"{factor.replace('_', '-')}-{factors[factor]}" for factor in FACTORS)


def build(run, settings):
    import keras

    import keras_sagan

    seed, (g_rate, d_rate) = run["seed"], RATES[run["rates"]]
    keras.utils.set_random_seed(seed)
    preset = keras_sagan.models.preset_settings("sagan_fashion_mnist_32")
    common_to_both = {
        "image_size": preset["image_size"],
        "base_filters": settings["base_filters"],
        "num_classes": preset["num_classes"],
        "attention_resolutions": (16,) if run["attention"] == "with" else (),
        "channels": preset["channels"],
    }
    generator = keras_sagan.build_generator(
        latent_dim=preset["latent_dim"],
        use_spectral_norm=run["spectral_norm"] == "both",
        batch_norm=preset["batch_norm"],
        **common_to_both,
    )
    model = keras_sagan.SAGAN(
        generator,
        keras_sagan.build_discriminator(**common_to_both),
        preset["latent_dim"],
        preset["num_classes"],
        ema_momentum=preset["ema_momentum"],
        seed=seed,
        ttur={
            "g_learning_rate": g_rate,
            "d_learning_rate": d_rate,
            "beta_1": preset["beta_1"],
            "beta_2": preset["beta_2"],
        },
    )
    model.compile()
    return model


def train_and_measure(run, settings, cache_dir):
    """Trains one model; returns what became of it."""
    from keras_sagan import callbacks, data, metrics

    started = time.perf_counter()
    images, labels = data.load_fashion_mnist()
    images = data.pad_to_32(images)
    dataset = data.make_dataset(images, labels, settings["batch_size"], seed=run["seed"])
    model = build(run, settings)
    monitors = [callbacks.StopOnNonFinite(every_steps=25), callbacks.CollapseMonitor()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # What they say is kept below.
        history = model.fit(
            dataset,
            epochs=EPOCHS,
            steps_per_epoch=-(-settings["steps"] // EPOCHS),
            verbose=0,
            callbacks=monitors,
        ).history
    trained = time.perf_counter()
    not_finite, collapsed = (monitor.reason for monitor in monitors)
    values, protocol, baselines = {}, {}, {}
    if not not_finite:
        report = metrics.evaluate_generator(
            model,
            (images[: settings["num_real"]], labels[: settings["num_real"]]),
            metrics=("fid",),
            feature_extractor=metrics.GreyClassifierFeatures(),
            num_images=settings["num_images"],
            batch_size=250,
            dataset="Fashion-MNIST",
            split=f"test, its first {settings['num_real']} images, which were trained on",
            cache_dir=cache_dir,
            verbose=False,
        )
        values, protocol, baselines = report.values, report.protocol, report.baselines
    return {
        "fid": values.get("fid"),
        "not_finite": not_finite,
        "collapsed": collapsed,
        "parameters": {n.name: n.count_params() for n in (model.generator, model.discriminator)},
        "attention_gamma": model.attention_gammas(),
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", "all"),
        "learning_rates": dict(zip(("generator", "discriminator"), RATES[run["rates"]])),
        "seconds": round(time.perf_counter() - started, 1),
        "training_seconds": round(trained - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "history": {k: [common.rounded(v) for v in values] for k, values in history.items()},
        "protocol": protocol,
        "baselines": baselines,
    }


def command_of(name, settings):
    arguments = ["--only", name, "--jobs", "1"]
    for key, value in settings.items():
        if value != DEFAULTS[key]:
            arguments += [f"--{key}", str(value)]
    return arguments


def perform(name, run, settings, workdir):
    """Makes one run in this process, and its file."""
    result = train_and_measure(run, settings, workdir / "reference")
    path = workdir / f"{name}.json"
    arguments = command_of(name, settings)
    beside = path.with_suffix(".part")
    common.record(__file__, beside, arguments, **run, settings=settings, **result)
    os.replace(beside, path)


def perform_elsewhere(name, settings, workdir):
    """Makes one run in a process of its own, with one thread."""
    command = [sys.executable, __file__, *command_of(name, settings), "--workdir", str(workdir)]
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env={**os.environ, **threads})


def read(name, settings, workdir):
    """The record of a run, or `None`; an error if it is of other settings."""
    path = workdir / f"{name}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    rates = dict(zip(("generator", "discriminator"), RATES[record["rates"]]))
    if record["settings"] != settings or record["learning_rates"] != rates:
        raise ValueError(
            "--workdir must hold runs of the same settings. Received: "
            f"{path} of {record['settings']} and {record['learning_rates']}, and now {settings} "
            f"and {rates}"
        )
    return record


def collect(records):
    """One record of all runs; what they have in common, the protocol first of all, stands once."""
    first = max(records.values(), key=lambda record: record["fid"] is not None)
    shared = ("settings", "protocol", "baselines", "versions", "hardware")
    for name, record in records.items():
        for key in ("protocol", "versions"):
            if record["fid"] is not None and record[key] != first[key]:
                raise ValueError(
                    f"Runs must have one `{key}` to be compared. Received: {name} with "
                    f"{record[key]}, and {first[key]}"
                )
    left_out = (*shared, "history", "date")
    return {
        **{key: first[key] for key in shared[:3]},
        "learning_rates": dict(RATES),
        "runs": {
            name: {key: value for key, value in record.items() if key not in left_out}
            for name, record in records.items()
        },
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="names of runs; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once; 1: this one alone")
    parser.add_argument("--workdir", type=Path, default=Path("runs/ablation"))
    common.add_json_argument(parser, "ablation")
    options = parser.parse_args(arguments)
    settings = {name: getattr(options, name) for name in DEFAULTS}
    runs = all_runs(options.seeds)
    unknown = sorted(set(options.only or ()) - set(runs))
    if unknown:
        parser.error(f"--only must name runs among {list(runs)}. Received: {unknown}")
    runs = {name: runs[name] for name in options.only or runs}
    missing = [name for name in runs if read(name, settings, options.workdir) is None]
    if options.jobs == 1:
        for name in missing:
            perform(name, runs[name], settings, options.workdir)
    else:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda name: perform_elsewhere(name, settings, options.workdir), missing))
    records = {name: read(name, settings, options.workdir) for name in runs}
    result = common.record(__file__, options.json, arguments, PACKAGES, **collect(records))
    if options.json == common.RESULTS / "ablation.json":
        TABLE.write_text(page(result), encoding="utf-8")
        LOG.write_text(log(result), encoding="utf-8")
        draw(result, FIGURE)
    rows = [
        {**factors, "fid": mean_and_spread(values)[0], "spread": mean_and_spread(values)[1]}
        for factors, values in by_setting(result["runs"])
    ]
    common.print_table(rows)
    return result


if __name__ == "__main__":
    main()
