"""Trains a SAGAN on any folder of images, with or without classes.

Command:   python examples/image_folder.py --images DIR [--labels-from-folders]
Data:      all images below DIR, cropped to their central square and resized to --image_size, a
           power of two from 8 to 1024; images that can't be read are named, other files counted
Result:    runs/image_folder/ with a sample grid per epoch, a GIF of them, attention figures of both
           networks, curves, the model and results.json

Run the same command again to resume a run that was stopped. The FID of grey images of 32 pixels
is in the features of the classifier that ships with the package; all others need TF-GAN's Inception
network: with --inception from a local copy, or from TF-Hub with --inception_sha256. --fid_images 0
leaves the FID out.
"""

import argparse
import json
import os
import sys
from pathlib import Path

# Twice as fast on CPUs without AVX-512, where TensorFlow leaves oneDNN off.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras

from keras_sagan import SAGAN, callbacks, data, metrics, models, visualization


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--images", required=True, help="the folder of images")
    parser.add_argument(
        "--labels-from-folders",
        "--labels_from_folders",
        action="store_true",
        help="the folders right below are classes",
    )
    parser.add_argument("--image_size", type=int, choices=models.IMAGE_SIZES, default=64)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3, help="1 makes grey")
    parser.add_argument("--base_filters", type=int, default=32, help="the width of both networks")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--fid_images", type=int, default=1000, help="images of a FID, each side")
    text = "folder of TF-GAN's Inception; default: TF-Hub's, which needs its digest"
    parser.add_argument("--inception", default=metrics.TFGAN_INCEPTION_HANDLE, help=text)
    parser.add_argument("--inception_sha256", help="the digest of its files")
    parser.add_argument("--workdir", default="runs/image_folder")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments=None):
    settings = parse_arguments(arguments)
    workdir = Path(settings.workdir)
    found = data.load_image_folder(
        settings.images, settings.image_size, settings.channels, settings.labels_from_folders
    )
    print(f"{len(found.images)} images of {settings.image_size} pixels from {settings.images}")
    if found.broken:
        print(f"{len(found.broken)} files can't be read and are left out:")
        for path, reason in found.broken.items():
            print(f"  {path}: {reason}")
    if found.class_names:
        print(f"{len(found.class_names)} classes: {', '.join(found.class_names)}")

    num_classes = len(found.class_names) if found.class_names else None
    names = list(found.class_names) if found.class_names else None
    keras.utils.set_random_seed(settings.seed)
    model = SAGAN.from_preset(
        "sagan_imagenet_128",
        image_size=settings.image_size,
        base_filters=settings.base_filters,
        num_classes=num_classes,
        channels=settings.channels,
        attention_resolutions=(min(32, settings.image_size // 2),),
        batch_norm={"momentum": 0.99},
        ema_momentum=0.999,
        seed=settings.seed,
    )
    model.compile()
    steps = data.steps_per_epoch(len(found.images), settings.batch_size)
    checkpoint = callbacks.TrainingCheckpoint(workdir / "checkpoints")
    step = checkpoint.restore_latest(model)
    results_path = workdir / "results.json"
    if step and step >= settings.epochs * steps and results_path.exists():
        if json.loads(results_path.read_text())["steps"] == step:
            print(f"The run in {workdir}/ is finished. Give more --epochs to train on.")
            return
    dataset = data.make_dataset(
        found.images, found.labels, settings.batch_size, settings.seed, start_step=step
    )

    few = data.spread_indices(4, len(found.images))  # a folder stands class by class
    attention = callbacks.AttentionFigure(
        workdir,
        class_names=names,
        real_images=found.images[few],
        real_labels=None if found.labels is None else found.labels[few],
    )
    stop = callbacks.StopOnNonFinite()
    run = [
        stop,
        callbacks.AttentionMonitor(),
        callbacks.SampleGrid(workdir, class_names=names, gif=True),
        attention,
    ]
    fid = extractor = None
    if settings.fid_images:
        is_small_and_grey = (settings.image_size, settings.channels) == (32, 1)
        if is_small_and_grey:
            extractor = metrics.GreyClassifierFeatures()
        else:
            extractor = metrics.TFGANInception(settings.inception, settings.inception_sha256)
            is_asked_for = settings.inception_sha256 or "://" not in settings.inception
            if not is_asked_for and not extractor.is_at_hand:
                print("No FID is measured: it needs --inception, or --inception_sha256.")
                extractor = None
    if extractor:
        metric = metrics.FrechetInceptionDistance(extractor)
        count = min(settings.fid_images, len(found.images))
        every = max(1, settings.epochs // 5)
        reference = found.images[data.spread_indices(count, len(found.images))]
        fid = callbacks.FIDEvaluator(
            metric,
            reference,
            count,
            every,
            at_start=not step,
            dataset=f"folder {settings.images}, {settings.image_size} pixels",
            split=f"{count} of {len(found.images)} images, spread evenly",
        )
        run.append(fid)
    workdir.mkdir(parents=True, exist_ok=True)
    log = keras.callbacks.CSVLogger(workdir / "log.csv", append=True)
    history = callbacks.RunHistory(workdir / "history.json", [fid] if fid else [])
    # The checkpoint comes last: it says that all before it was done.
    run += [log, history, checkpoint]
    try:
        model.fit(dataset, epochs=settings.epochs, steps_per_epoch=steps, callbacks=run)
    except KeyboardInterrupt:
        if int(model.steps):
            checkpoint.save()
            history.save()
        sys.exit(f"\nStopped after step {int(model.steps)}; the same command again goes on.")
    if stop.reason:
        sys.exit(f"{stop.reason} The newest of {checkpoint.directory} is from before.")

    model.save(workdir / "model.keras")
    results = {"settings": vars(settings), "broken": found.broken, "skipped": found.skipped}
    results["steps"] = int(model.steps)
    if fid is not None and fid.history:
        results["fid"] = {"by_epoch": fid.history, "protocol": fid.protocol}
        print(f"{fid.name}: {fid.history[0][1]:.1f} at first, {fid.history[-1][1]:.1f} at the end")
    if history.history:
        visualization.plot_curves(history.history, workdir / "curves.png")
    results_path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"Pictures, model and results.json are in {workdir}/")


if __name__ == "__main__":
    main()
