"""Do the mixed policies train as float32 does? 200 steps of each, and the distance at the end.

Command:   python benchmarks/mixed_precision.py --json
Measures   for each seed and policy: `sagan_fashion_mnist_32` with its recipe but narrower (a CPU
           without units for them computes the half precisions slowly), from the same weights, on
           the same batches and latents, of the 10,000 images that ship with the package. Whether
           all figures and all state are finite; the Fréchet distance of generated images to as
           many training images by the grey-image classifier's features, which are computed in
           float32 under every policy, before training, and at its end with the generator's own
           weights and with the averaged ones
Result:    benchmarks/results/mixed_precision.json and a table; the exit code is 1 if something
           isn't finite, or if the mean distance over the seeds is more than 20 % from float32's
"""

import statistics
import sys
import time

import common
import keras
import numpy as np

import keras_sagan
from keras_sagan import data, metrics
from keras_sagan.callbacks import StopOnNonFinite

PRESET = "sagan_fashion_mnist_32"
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
LIMIT = 0.2


def loss_scales(model):
    """The loss scale of each optimiser that has one, and how many steps it left out."""
    scales = {}
    for side in ("g", "d"):
        optimizer = getattr(model, f"{side}_optimizer")
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            steps = int(model.steps.numpy()) * (model.d_steps if side == "d" else 1)
            done = int(optimizer.inner_optimizer.iterations.numpy())
            scale = float(optimizer.dynamic_scale.numpy())
            scales[side] = {"scale": scale, "left_out": steps - done}
    return scales


def distance(model, settings, seed, metric, use_ema=False):
    """The Fréchet distance of generated images, all classes in equal number."""
    classes = np.arange(settings.fid_images) % len(data.FASHION_MNIST_CLASSES)
    fakes = model.generate(settings.fid_images, classes, seed=seed, use_ema=use_ema)
    metric.reset_state(reset_real=False)
    metric.update_state(fakes, real=False)
    return common.rounded(float(metric.result()))


def train(policy, seed, settings, images, labels, metric):
    """Trains under a policy, and returns the figures of its end."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(seed)
    model = keras_sagan.SAGAN.from_preset(PRESET, seed=seed, base_filters=settings.base_filters)
    model.compile()
    keras.config.set_dtype_policy("float32")
    row = {"policy": policy, "seed": seed, "fid_before": distance(model, settings, seed, metric)}
    stop = StopOnNonFinite(every_steps=1)
    dataset = data.make_dataset(images, labels, settings.batch_size, seed=seed)
    start = time.perf_counter()
    fitted = model.fit(
        dataset, steps_per_epoch=settings.steps, epochs=1, callbacks=[stop], verbose=0
    )
    seconds = time.perf_counter() - start
    row |= {
        "steps": int(model.steps.numpy()),
        "finite": stop.reason is None,
        "losses": {name: common.rounded(fitted.history[name][0]) for name in ("g_loss", "d_loss")},
        "loss_scales": loss_scales(model),
        "seconds": round(seconds, 1),
    }
    row["fid"] = distance(model, settings, seed, metric)
    row["fid_averaged"] = distance(model, settings, seed, metric, use_ema=True)
    return row


def compare(runs):
    """Means over the seeds, and how far each policy's is from float32's."""
    rows = []
    for policy in POLICIES:
        own = [run for run in runs if run["policy"] == policy]
        row = {"policy": policy, "finite": all(run["finite"] for run in own)}
        for name in ("fid_before", "fid", "fid_averaged"):
            values = [run[name] for run in own]
            row[name] = common.rounded(statistics.mean(values))
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row[f"{name}_deviation"] = common.rounded(spread)
            reference = rows[0] if rows else row
            row[f"{name}_change"] = common.rounded(row[name] / reference[name] - 1.0)
        rows.append(row)
    return rows


def line(row):
    """A row of `compare` as one of the table in docs/compatibility.md."""
    cells = [row["policy"], "yes" if row["finite"] else "no", f"{row['fid_before']:.1f}"]
    for name in ("fid", "fid_averaged"):
        cells.append(f"{row[name]:.1f} ± {row[f'{name}_deviation']:.1f}")
        cells.append(f"{100 * row[f'{name}_change']:+.1f} %")
    return f"| {' | '.join(cells)} |"


def main(arguments=None):
    parser = common.argument_parser(__doc__, "mixed_precision")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--base_filters", type=int, default=4, help="the networks' width")
    parser.add_argument("--fid_images", type=int, default=1000, help="on each side")
    settings = parser.parse_args(arguments)
    images, labels = data.load_fashion_mnist()
    images = data.pad_to_32(images)
    metric = metrics.FrechetInceptionDistance(metrics.GreyClassifierFeatures(), batch_size=250)
    metric.update_state(images[: settings.fid_images], real=True)
    runs = []
    for seed in settings.seeds:
        for policy in POLICIES:
            runs.append(train(policy, seed, settings, images, labels, metric))
            print(runs[-1], flush=True)
            keras.backend.clear_session()
    result = common.record(
        __file__,
        settings.json,
        arguments,
        settings={k: v for k, v in vars(settings).items() if k != "json"},
        preset=PRESET,
        protocol={
            **metric.protocol,
            "reference": f"first {settings.fid_images} images of Fashion-MNIST's test set",
        },
        runs=runs,
        policies=compare(runs),
    )
    print("\n".join(map(line, result["policies"])))
    is_good = all(x["finite"] and abs(x["fid_change"]) <= LIMIT for x in result["policies"])
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
