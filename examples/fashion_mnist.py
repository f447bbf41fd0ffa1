"""Trains a SAGAN on Fashion-MNIST and says how good it is.

Command:   python examples/fashion_mnist.py
Data:      the 10,000 images of Fashion-MNIST's test set, which ship with the package
Result:    runs/fashion_mnist/ with a sample grid per epoch, the attention figure, training curves,
           the model and results.json; the README shows a recorded run with its figures

Ctrl-C saves the run where it stands; `--resume` goes on from there, to the same result as if it
had never stopped, and after a kill from the newest checkpoint. `--data_dir` trains on the 60,000
training images of the full IDX files, `--dataset NAME` on any data set of images of TensorFlow
Datasets, by class where they have class labels.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

# Twice as fast on CPUs without AVX-512, where TensorFlow leaves oneDNN off.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf

import keras_sagan
from keras_sagan import callbacks, data, metrics, visualization

PRESET = "sagan_fashion_mnist_32"


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--workdir", default="runs/fashion_mnist", help="where the run is kept")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --workdir")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps_per_epoch", type=int, help="default: all full batches of the data")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--base_filters", type=int, default=12, help="the width of both networks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fid_images", type=int, default=5000, help="images of a FID, each side")
    parser.add_argument("--fid_every", type=int, default=3, help="epochs from one FID to the next")
    parser.add_argument("--data_dir", help="folder of the full IDX files, or of TFDS's data")
    parser.add_argument("--dataset", help="a data set of TensorFlow Datasets, such as cifar10")
    text = "for colour: folder of TF-GAN's Inception; default: TF-Hub's, which needs its digest"
    parser.add_argument("--inception", default=metrics.TFGAN_INCEPTION_HANDLE, help=text)
    parser.add_argument("--inception_sha256", help="the digest of its files")
    return parser.parse_args(arguments)


def load_data(settings):
    """Returns the batches, what is known of them, and images for the FID with their name."""
    if settings.dataset:
        common = {"image_size": 32, "data_dir": settings.data_dir, "seed": settings.seed}
        dataset, info = data.load_tfds(settings.dataset, batch_size=settings.batch_size, **common)
        count = min(settings.fid_images, info.num_images)
        first, _ = data.load_tfds(settings.dataset, batch_size=count, shuffle=False, **common)
        reference = next(iter(first))
        reference = (reference if info.num_classes is None else reference[0]).numpy()
        return dataset, info, reference, f"first {count} images of TFDS {settings.dataset}, train"
    split = "test" if settings.data_dir is None else "train"
    images, labels = data.load_fashion_mnist(settings.data_dir, split)
    images = data.pad_to_32(images)
    dataset = data.make_dataset(images, labels, settings.batch_size, seed=settings.seed)
    info = data.DatasetInfo(
        num_images=len(images),
        steps_per_epoch=data.steps_per_epoch(len(images), settings.batch_size),
        image_shape=images.shape[1:],
        num_classes=len(data.FASHION_MNIST_CLASSES),
        class_names=data.FASHION_MNIST_CLASSES,
    )
    reference = images[: settings.fid_images]
    return dataset, info, reference, f"first {len(reference)} images of Fashion-MNIST, {split}"


def build_model(settings, info):
    keras.utils.set_random_seed(settings.seed)
    model = keras_sagan.SAGAN.from_preset(
        PRESET,
        base_filters=settings.base_filters,
        num_classes=info.num_classes,
        channels=info.image_shape[-1],
        seed=settings.seed,
    )
    model.compile()
    return model


def fid_metric(channels, settings):
    """The small classifier that ships with the package for grey images, Inception for colour."""
    if channels == 1:
        extractor = metrics.GreyClassifierFeatures()
    else:
        extractor = metrics.TFGANInception(settings.inception, settings.inception_sha256)
    return metrics.FrechetInceptionDistance(extractor, batch_size=250)


class RunRecord(keras.callbacks.Callback):
    """Keeps the figures of every epoch, and the seconds so far, in a file of the run's folder."""

    def __init__(self, path, fid):
        super().__init__()
        self.path, self.fid = path, fid
        past = json.loads(path.read_text()) if path.exists() else {"seconds": 0.0, "history": {}}
        self.history, self.past_seconds = past["history"], past["seconds"]
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            self.put(name, epoch + 1, value)
        self.save()

    def put(self, name, epoch, value):
        pairs = dict(self.history.get(name, []))
        pairs[epoch] = float(value)
        self.history[name] = sorted(pairs.items())

    def save(self):
        for epoch, value in self.fid.history:
            self.put(self.fid.name, epoch, value)
        write_json(self.path, {"seconds": self.seconds(), "history": self.history})

    def seconds(self):
        return self.past_seconds + time.perf_counter() - self.started


def write_json(path, value):
    beside = path.with_name("new_" + path.name)
    beside.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(beside, path)


def hardware():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    devices = [device.device_type for device in tf.config.list_physical_devices()]
    return {"cpu": name, "cores": os.cpu_count(), "devices": devices}


def describe_run(settings, info, model, steps_per_epoch):
    """All that another needs to run it again."""
    return {
        "command": "python " + " ".join(["examples/fashion_mnist.py", *sys.argv[1:]]),
        "settings": {**vars(settings), "steps_per_epoch": steps_per_epoch},
        "preset": PRESET,
        "recipe": {
            **keras_sagan.models.preset_settings(PRESET),
            "base_filters": settings.base_filters,
            "num_classes": info.num_classes,
            "channels": info.image_shape[-1],
        },
        "dtype_policy": model.dtype_policy.name,
        "parameters": {n.name: n.count_params() for n in (model.generator, model.discriminator)},
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "keras_sagan": keras_sagan.__version__,
        },
        "hardware": hardware(),
        "seed": settings.seed,
        "steps": int(model.steps.numpy()),
    }


def main(arguments=None):
    settings = parse_arguments(arguments)
    workdir = Path(settings.workdir)
    settings_path = workdir / "settings.json"
    if settings_path.exists() != settings.resume:
        known = f"no run is in {workdir}" if settings.resume else f"{workdir} holds a run"
        sys.exit(f"{known}. Use --resume to go on with a run, or another --workdir for a new one.")
    if settings.resume:  # as the run began, but for its length
        begun = json.loads(settings_path.read_text())
        vars(settings).update({**begun, "resume": True, "epochs": settings.epochs})

    dataset, info, reference, reference_name = load_data(settings)
    metric = fid_metric(info.image_shape[-1], settings)
    print(f"The FID looks through {metric.protocol['feature_extractor']}")
    # Only now: a folder or a network that isn't there leaves nothing behind, nor does a wrong
    # setting leave a run: its file comes last.
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"--workdir must be a folder that can be written. Received: {workdir} ({error})")
    steps_per_epoch = settings.steps_per_epoch or info.steps_per_epoch
    model = build_model(settings, info)
    checkpoint = callbacks.TrainingCheckpoint(workdir / "checkpoints")
    fid = callbacks.FIDEvaluator(
        metric,
        reference,
        num_images=settings.fid_images,
        every_epochs=settings.fid_every,
        batch_size=250,
        seed=settings.seed,
        dataset=reference_name,
    )
    record = RunRecord(workdir / "history.json", fid)
    names = list(info.class_names) if info.class_names else None
    grid = callbacks.SampleGrid(workdir, class_names=names, seed=settings.seed)
    attention = callbacks.AttentionFigure(workdir, class_names=names, seed=settings.seed)
    for callback in (fid, grid, attention, checkpoint):
        callback.set_model(model)
    results_path = workdir / "results.json"
    known = json.loads(results_path.read_text()) if results_path.exists() else {}
    if known and known["steps"] >= settings.epochs * steps_per_epoch:
        print(f"The run in {workdir}/ is finished. Give more --epochs to train on.")
        return
    stop = callbacks.StopOnNonFinite()
    if not settings.resume:
        write_json(settings_path, vars(settings))
    print(
        f"Training on {info.num_images} images, {steps_per_epoch} steps an epoch, "
        f"{settings.epochs} epochs, into {workdir}/"
    )
    try:
        model.fit(
            dataset,
            epochs=settings.epochs,
            steps_per_epoch=steps_per_epoch,
            # The checkpoint comes last: it says that all before it was done.
            callbacks=[stop, callbacks.AttentionMonitor(), grid, fid, record, checkpoint],
        )
        if stop.reason:
            sys.exit(f"{stop.reason} The newest of {checkpoint.directory} is from before.")
        model.save(workdir / "model.keras")
        epochs_done = int(model.steps.numpy()) // steps_per_epoch
        attention.save(epochs_done)
        if epochs_done not in dict(fid.history):  # The run had ended before.
            fid.record(epochs_done)
        if 0 not in dict(record.history.get(fid.name, [])):
            # The distance before training comes last, so that training starts at once.
            fid.set_model(build_model(settings, info))
            fid.record(0)
    except KeyboardInterrupt:
        checkpoint.save()
        record.save()
        sys.exit(f"\nInterrupted after step {int(model.steps.numpy())}; --resume goes on.")

    record.save()
    visualization.plot_curves(record.history, workdir / "curves.png", title="Training")
    start, end = (record.history[fid.name][i][1] for i in (0, -1))
    results = {
        **describe_run(settings, info, model, steps_per_epoch),
        "seconds": round(record.seconds(), 1),
        "fid": {"start": start, "end": end, "protocol": fid.protocol},
        "attention_gamma": model.attention_gammas(),
    }
    write_json(workdir / "results.json", results)
    print(
        f"{fid.name}: {start:.1f} before training, {end:.1f} after {results['steps']} steps "
        f"({results['seconds']:.0f} s). Pictures, model and results.json are in {workdir}/"
    )


if __name__ == "__main__":
    main()
