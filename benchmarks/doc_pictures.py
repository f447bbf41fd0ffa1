"""Trains a healthy run and one made to collapse, and draws the pictures of the documentation.

Command:   python examples/fashion_mnist.py && python benchmarks/doc_pictures.py
Result:    docs/images/*.png and *.gif, and benchmarks/results/collapse_monitor.json: what
           CollapseMonitor said of each run, with settings, versions and hardware

Walks, truncation, neighbours and the discriminator's attention are of the main example's model.

Both runs have the embedded Fashion-MNIST images, the same width, seed and number of steps, and the
same learning rate for both networks. The second one's discriminator has no spectral norm, and its
rate is twice as high.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import common
import keras

import keras_sagan
from keras_sagan import callbacks, data, metrics, visualization

HEALTHY_RATE, COLLAPSING_RATE = 2e-3, 4e-3


def build(collapses, base_filters):
    rate = COLLAPSING_RATE if collapses else HEALTHY_RATE
    keras.utils.set_random_seed(0)
    model = keras_sagan.SAGAN.from_preset(
        "sagan_fashion_mnist_32",
        base_filters=base_filters,
        seed=0,
        g_learning_rate=rate,
        d_learning_rate=rate,
    )
    if collapses:
        discriminator = keras_sagan.build_discriminator(
            32, base_filters, 10, (16,), channels=1, use_spectral_norm=False
        )
        model = keras_sagan.SAGAN(
            model.generator,
            discriminator,
            model.latent_dim,
            10,
            d_steps=model.d_steps,
            ema_momentum=model.ema_momentum,
            seed=0,
            ttur=model.ttur,
        )
    model.compile()
    return model


def train(model, dataset, settings, extra=()):
    collapse, spectral = callbacks.CollapseMonitor(), callbacks.SpectralMonitor(False)
    monitors = [callbacks.AttentionMonitor(), spectral, collapse, *extra]
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        history = model.fit(
            dataset,
            epochs=settings.epochs,
            steps_per_epoch=settings.steps_per_epoch,
            verbose=2,
            callbacks=monitors,
        ).history
    history = {k: v for k, v in history.items() if not k.endswith("learning_rate")}  # Constant.
    largest = {name for name in history if name.startswith("sigma/")}
    curves = {name: values for name, values in history.items() if name not in largest}
    record = {
        "warning": collapse.reason,
        "seconds": round(time.perf_counter() - started),
        "figures": {name: [round(float(v), 4) for v in values] for name, values in history.items()},
        "sigmas": {
            name: [round(float(v), 4) for _, v in pairs] for name, pairs in spectral.history.items()
        },
    }
    return {**curves, **spectral.history}, record


def draw_pictures(model, images, labels, output):
    """Draws what needs a generator that has learned something."""
    named = {"class_names": list(data.FASHION_MNIST_CLASSES)}
    visualization.draw_attention(
        model, output, images[:4], labels[:4], name="attention_discriminator", **named
    )
    for name, ways in {
        "walk_latents": {"labels": [0, 2, 5, 8]},
        "walk_classes": {"labels": [0, 3, 5, 8], "to_labels": [1, 4, 9, 0]},
    }.items():
        visualization.draw_interpolation(model, output / f"{name}.png", **ways, **named)
        visualization.draw_interpolation(model, output / f"{name}.gif", steps=16, **ways, **named)
    # At 0.1 this small model is so far from its training that most samples are nearly black.
    visualization.draw_truncation(model, output / "truncation.png", (0.5, 1.0, 2.0, None))
    pictures = model.generate(6, labels=[0, 1, 3, 5, 7, 8], seed=0)
    extractor = metrics.GreyClassifierFeatures()
    return visualization.draw_neighbours(pictures, images, output / "neighbours.png", extractor)[1]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", default=str(common.ROOT / "docs" / "images"))
    parser.add_argument("--record", default=str(common.RESULTS / "collapse_monitor.json"))
    parser.add_argument(
        "--model",
        default="runs/fashion_mnist/model.keras",
        help="that of the pictures; the main example makes it",
    )
    parser.add_argument("--base_filters", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps_per_epoch", type=int, default=40)
    settings = parser.parse_args(arguments)
    if not Path(settings.model).is_file():
        parser.error(f"--model must be a file. Received: {settings.model}, which isn't there")
    output = Path(settings.output)
    images, labels = data.load_fashion_mnist()
    images = data.pad_to_32(images)
    names = list(data.FASHION_MNIST_CLASSES)
    dataset = data.make_dataset(images, labels, settings.batch_size, seed=0)

    runs = {}
    for name in ("collapsed", "healthy"):
        model = build(name == "collapsed", settings.base_filters)
        scratch = output / f"scratch_{name}"
        grid = callbacks.SampleGrid(scratch, images_per_class=8, class_names=names, gif=True)
        curves, runs[name] = train(model, dataset, settings, [grid])
        visualization.plot_curves(curves, output / f"curves_{name}.png", title=f"A {name} run")
        os.replace(scratch / "samples.gif", output / f"samples_{name}.gif")
        for path in scratch.iterdir():
            path.unlink()
        scratch.rmdir()

    multiples = draw_pictures(keras.saving.load_model(settings.model), images, labels, output)
    common.record(
        __file__,
        settings.record,
        arguments,
        settings={
            k: v for k, v in vars(settings).items() if k not in ("output", "record", "model")
        },
        learning_rates={"healthy": HEALTHY_RATE, "collapsed": COLLAPSING_RATE},
        neighbour_multiples=[round(float(x), 3) for x in multiples],
        runs=runs,
    )
    for name, run in runs.items():
        print(f"{name}: {run['warning'] or 'CollapseMonitor stayed silent.'}")


if __name__ == "__main__":
    main()
