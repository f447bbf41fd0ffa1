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

import itertools
import os
import time
import warnings

import common
import study
from ablation_page import FACTORS, RATES, by_setting, draw, log, mean_and_spread, page

TABLE = common.ROOT / "docs" / "ablation.md"
LOG = common.ROOT / "benchmarks" / "logs" / "ablation.md"
FIGURE = common.ROOT / "docs" / "images" / "ablation.png"
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
    return {
        f"{name_of(factors)}_seed-{seed}": {
            **factors,
            "seed": seed,
            "learning_rates": dict(zip(("generator", "discriminator"), RATES[factors["rates"]])),
        }
        for factors, seed in runs
    }


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


def train_and_measure(run, settings, workdir, options):
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
            cache_dir=workdir / "reference",
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
        "seconds": round(time.perf_counter() - started, 1),
        "training_seconds": round(trained - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "history": {k: [common.rounded(v) for v in values] for k, values in history.items()},
        "protocol": protocol,
        "baselines": baselines,
    }


def main(arguments=None):
    options, _, records = study.main(
        __file__, __doc__, DEFAULTS, all_runs, train_and_measure, arguments
    )
    found = study.collect(
        records, ("settings", "protocol", "baselines"), comparable=("protocol", "versions")
    )
    found["learning_rates"] = dict(RATES)
    result = common.record(__file__, options.json, arguments, study.PACKAGES, **found)
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
