"""Trains SAGAN on ImageNet at 128 pixels on TPUs; the same file runs on GPUs and on a CPU.

Command:   KERAS_BACKEND=jax python examples/imagenet_tpu.py \
               --data_dir gs://BUCKET/tensorflow_datasets --workdir gs://BUCKET/runs/first
           on a TPU VM, and with --strategy multi_worker on each host of a larger TPU.
           Take JAX on today's TPUs: Keras's own tests run on TPUs with JAX, and TensorFlow's
           build for TPUs ended at version 2.20. On TensorFlow add --tpu NAME; on GPUs either
           backend does. On JAX, TensorFlow still reads the images, on the CPU.
           The same command again goes on from the newest checkpoint. For a FID add --inception
           FOLDER, TF-GAN's network as a SavedModel, or --inception_sha256 HEX, by which its
           download is checked; without either, training goes on without a FID, and says so
Data:      `imagenet2012` of TensorFlow Datasets, prepared in --data_dir, or by --dataset any other
           set of images with one label each
Result:    in --workdir: checkpoints/, tensorboard/, samples_epoch_*.png and fid.json. An epoch is
           --log_every steps, at whose end a checkpoint is written; all figures are per such epoch
Was run:   `--smoke`, the whole of this file with small networks and TFDS's mock images: a minute on
           2 CPU cores; by the tests on TensorFlow, on one device and on two replicas, and on JAX,
           on two devices.
Was not:   no TPU run and no ImageNet run has been made, so there is no time and no score to state.
Compiled:  the defaults' training step by the TPU's compiler, 32 images on a v5e in mixed_bfloat16:
           2,747 GFLOP and 36.3 GB accessed, 2.59 GB of 16 GB in use (83.8 % to spare). More in
           docs/guides/scaling.md; benchmarks/input_pipeline.py measures that the pipeline keeps
           ahead.
"""

import argparse
import importlib.util
import json
import math
import os
import sys
import tempfile
from pathlib import Path

# Twice as fast on CPUs without AVX-512, where TensorFlow leaves oneDNN off.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf

import keras_sagan
from keras_sagan import callbacks, data, metrics
from keras_sagan.distribution import STRATEGIES, check_workers_agree, is_chief, make_strategy
from keras_sagan.models import PRESETS

SMOKE = dict(base_filters=8, image_size=64, batch_size=8, log_every=2, grid_every=2)
SMOKE.update(fid="stand_in", fid_every=4, fid_images=16)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog="Several machines: docs/guides/scaling.md has the commands for two hosts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", default="runs/imagenet", help="where the run is kept, also gs://…")
    add("--data_dir", help="the folder of TFDS, also gs://…; ~/tensorflow_datasets if not given")
    add("--dataset", default="imagenet2012", help="an image classification set of TFDS")
    add("--split", default="train")
    add("--on_error", choices=("raise", "skip"), default="raise", help="on damaged images")
    add("--preset", choices=sorted(PRESETS), default="sagan_imagenet_128")
    add("--recipe", default="official", help="official, paper, tfgan, biggan: see PRESETS")
    add("--image_size", type=int, help="if not the preset's; there are presets for 32 pixels")
    add("--base_filters", type=int, help="the networks' width, if not the preset's")
    add("--batch_size", type=int, default=256, help="of all replicas together")
    add("--steps", type=int, default=1_000_000, help="to train in all")
    add("--log_every", type=int, default=1000, help="steps from one checkpoint to the next")
    add("--grid_every", type=int, default=5000, help="steps from one sample grid to the next")
    add("--fid_every", type=int, default=10_000, help="steps from one FID to the next")
    add("--fid_images", type=int, default=50_000, help="of a FID, on each side")
    fids = ("auto", "required", "off", "stand_in")
    add("--fid", choices=fids, default="auto", help="auto: if its network can be had")
    add("--inception", default=metrics.TFGAN_INCEPTION_HANDLE, help="or a folder with its files")
    add("--inception_sha256", help="the digest of the files; nothing is downloaded without")
    add("--strategy", choices=STRATEGIES, default="auto")
    add("--tpu", help='name or address of the TPU, or "local" on a TPU VM')
    add("--policy", help="mixed_bfloat16 on a TPU and float32 elsewhere if not given")
    add("--steps_per_execution", type=int, help="50 on a TPU and 1 elsewhere if not given")
    add("--seed", type=int, default=0)
    add("--smoke", action="store_true", help="a short run: small networks, mock images")
    settings = parser.parse_args(arguments)
    vars(settings).update(SMOKE if settings.smoke else {})
    for name in ("grid_every", "fid_every", "steps"):
        if getattr(settings, name) % settings.log_every:
            parser.error(f"--{name} must be a multiple of --log_every={settings.log_every}")
    return settings


def check_workdir(workdir):
    """Ends the program unless files can be written, before hours are spent on them."""
    try:
        tf.io.gfile.makedirs(workdir)
        probe = f"{workdir}/.can_write_{os.getpid()}"
        with tf.io.gfile.GFile(probe, "w") as file:
            file.write("can be written")
        tf.io.gfile.remove(probe)
    except (tf.errors.OpError, OSError) as error:
        sys.exit(f"--workdir must be a folder that can be written. Received: {workdir} ({error})")


def load(settings, **kwargs):
    image_size = settings.image_size or PRESETS[settings.preset]["settings"]["image_size"]
    common = dict(data_dir=settings.data_dir, seed=settings.seed, on_error=settings.on_error)
    return data.load_tfds(settings.dataset, settings.split, image_size, **common, **kwargs)


def build_model(settings, info, is_tpu):
    changes = {"num_classes": info.num_classes, "channels": info.image_shape[-1]}
    changes["seed"] = settings.seed
    given = {name: getattr(settings, name) for name in ("image_size", "base_filters")}
    changes.update({name: value for name, value in given.items() if value})
    keras.utils.set_random_seed(settings.seed)
    model = keras_sagan.SAGAN.from_preset(settings.preset, settings.recipe, **changes)
    model.compile(steps_per_execution=settings.steps_per_execution or (50 if is_tpu else 1))
    return model


def fid_callback(settings, info, strategy=None):
    """The FID each `fid_every` steps, or `None` and a word on why not."""
    if settings.fid == "off":
        return None
    size, channels = info.image_shape[1:]
    if settings.fid == "stand_in":
        pool = keras.layers.AveragePooling2D(size // 4, dtype="float32")
        extractor = keras.Sequential([pool, keras.layers.Flatten()], name="mean_colours_no_fid")
    elif (size, channels) == (32, 1):
        extractor = metrics.GreyClassifierFeatures()
    else:
        extractor = metrics.TFGANInception(settings.inception, settings.inception_sha256)
    try:
        extractor(np.zeros((1, *info.image_shape), "float32"))
    except (RuntimeError, ImportError) as error:
        if settings.fid == "required":
            sys.exit(f"--fid required, but: {error}")
        print(f"Training goes on without a FID: {error}", flush=True)
        return None
    count = min(settings.fid_images, info.num_images)
    batch_size = math.gcd(count, 250)
    real_images, _ = load(settings, batch_size=batch_size, shuffle=False)
    return callbacks.FIDEvaluator(
        keras_sagan.FrechetInceptionDistance(extractor, batch_size=batch_size),
        real_images.take(count // batch_size),
        num_images=count,
        name="stand_in_distance" if settings.fid == "stand_in" else None,
        every_epochs=settings.fid_every // settings.log_every,
        batch_size=batch_size,
        seed=settings.seed,
        # On a TPU the host measures; several workers each measure all.
        strategy=strategy if isinstance(strategy, tf.distribute.MirroredStrategy) else None,
        dataset=f"{settings.dataset}, {size} pixels",
        split=f"{settings.split}, first {count} images as stored",
    )


def agreed_fid(strategy, settings, info):
    """What `fid_callback` returns, if all workers have it: all take part in measuring."""
    fid = fid_callback(settings, info, strategy)
    check_workers_agree(strategy, fid=fid.name if fid else None)
    return fid


class Record(keras.callbacks.Callback):
    """Keeps fid.json, and brings the pictures to a workdir that is no local folder."""

    def __init__(self, workdir, pictures, fid):
        super().__init__()
        self.workdir, self.pictures, self.fid = workdir, pictures, fid
        self.path = f"{workdir}/fid.json"
        self.known = {"by_step": {}}
        if tf.io.gfile.exists(self.path):
            with tf.io.gfile.GFile(self.path) as file:
                self.known = json.load(file)

    def on_epoch_end(self, epoch, logs=None):
        if self.fid and self.fid.name in logs:
            step = (epoch + 1) * self.params["steps"]
            self.known["by_step"][str(step)] = {self.fid.name: logs[self.fid.name]}
            self.known["protocol"] = self.fid.protocol
            with tf.io.gfile.GFile(self.path + ".new", "w") as file:
                file.write(json.dumps(self.known, indent=2) + "\n")
            tf.io.gfile.rename(self.path + ".new", self.path, overwrite=True)
        for path in self.pictures.glob("*.png") if "://" in self.workdir else ():
            tf.io.gfile.copy(str(path), f"{self.workdir}/{path.name}", overwrite=True)
            path.unlink()


def run(settings):
    check_workdir(settings.workdir)
    strategy = make_strategy(settings.strategy, tpu=settings.tpu)
    if keras.backend.backend() == "jax":
        replicas = strategy.num_model_replicas
        is_tpu = keras.distribution.list_devices()[0].startswith("tpu")
    else:
        replicas = strategy.num_replicas_in_sync
        is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    is_first = is_chief(strategy)
    keras.config.set_dtype_policy(settings.policy or ("mixed_bfloat16" if is_tpu else "float32"))
    _, info = load(settings, batch_size=settings.batch_size)
    with strategy.scope():
        model = build_model(settings, info, is_tpu)
    if settings.log_every % model.steps_per_execution:
        sys.exit(f"--log_every must be a multiple of {model.steps_per_execution} steps at once")
    fid = agreed_fid(strategy, settings, info)
    checkpoint = callbacks.TrainingCheckpoint(
        f"{settings.workdir}/checkpoints", monitor=fid.name if fid else None
    )
    step = checkpoint.restore_latest(model)
    if step and step >= settings.steps:
        print(f"The run in {settings.workdir} is finished at step {step}. Give more --steps.")
        return
    dataset, info = load(settings, batch_size=settings.batch_size, start_step=step)

    # All workers take part in measuring; the first one draws and keeps the results.
    pictures = Path(tempfile.mkdtemp() if "://" in settings.workdir else settings.workdir)
    grid_every = settings.grid_every // settings.log_every
    names = list(info.class_names)
    beside = [callbacks.SampleGrid(pictures, class_names=names, every_epochs=grid_every)]
    beside += [fid] if fid else []
    stop = callbacks.StopOnNonFinite()
    beside += [stop]
    beside += [Record(settings.workdir, pictures, fid)] if is_first else []
    if is_first and importlib.util.find_spec("tensorboard"):
        beside.append(keras.callbacks.TensorBoard(f"{settings.workdir}/tensorboard"))
    elif is_first:
        print("Training goes on without TensorBoard's logs: pip install tensorboard", flush=True)
    print(
        f"{settings.preset}, recipe {settings.recipe}, on {info.num_images} images of "
        f"{settings.dataset} at {info.image_shape[0]} pixels: steps {step} to {settings.steps}, "
        f"{settings.batch_size} images each over {replicas} replicas, "
        f"{keras.config.dtype_policy().name}",
        flush=True,
    )
    model.fit(
        dataset,
        epochs=settings.steps // settings.log_every,  # An epoch is --log_every steps.
        steps_per_epoch=settings.log_every,
        callbacks=[*beside, checkpoint],
        verbose="auto" if is_first else 0,
    )
    if stop.reason:
        sys.exit(f"{stop.reason} The newest of {checkpoint.directory} is from before.")
    print(f"Step {keras.ops.convert_to_numpy(model.steps)}, all in {settings.workdir}")
    if info.skipped:
        print(f"{info.skipped.total()} times a damaged image was skipped: {dict(info.skipped)}")


def main(arguments=None):
    settings = parse_arguments(arguments)
    if not settings.smoke:
        run(settings)
        return
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=64):
        for starts in (1, 2):  # The second one goes on where the first one ended.
            settings.steps = starts * settings.log_every
            run(settings)
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
