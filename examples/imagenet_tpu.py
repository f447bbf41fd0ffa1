"""Trains SAGAN on ImageNet at 128 pixels on TPUs; the same file runs on GPUs and on a CPU.

Command:   KERAS_BACKEND=jax python examples/imagenet_tpu.py --precision mixed_bfloat16 \
               --steps-per-execution 50 --data-dir gs://BUCKET/tensorflow_datasets \
               --checkpoints gs://BUCKET/runs/first
           on a TPU VM, and with --strategy multi_worker on each host of a larger TPU.
           Use JAX on current TPUs: Keras's own tests run on TPUs with JAX, and TensorFlow 2.20 was
           the last version with builds for TPUs. On TensorFlow, add --tpu NAME; on GPUs, either
           backend works. On JAX, TensorFlow still reads the images, on the CPU.
           The FID uses EfficientNet-Lite0. For a FID that can be compared with published ones, add
           --inception FOLDER, TF-GAN's network as a SavedModel, or --inception-sha256 HEX, the
           digest that its download must have
Data:      `imagenet2012` of TensorFlow Datasets, prepared in --data-dir, or with --dataset any
           other dataset of images with one label each
Result:    runs/imagenet/, a local folder, with the files of `keras-sagan train`. An epoch has 5,000
           steps, and a checkpoint is saved every 1,000 steps; the one with the best FID is kept.
           Add --tensorboard for TensorBoard's logs
Tested:    `--smoke` trains small networks on mock images of TFDS, in a minute on 2 CPU cores. The
           tests run it on TensorFlow, on one device and two replicas, and on JAX, on two devices.
Untested:  no run on a TPU or on ImageNet has been made, so times and scores aren't known.
Compiled:  the TPU's compiler compiled the default training step, 32 images on a v5e in
           mixed_bfloat16: 2,747 GFLOP and 36.3 GB accessed, 2.59 GB of 16 GB in use (83.8 % to
           spare). See docs/guides/scaling.md. According to benchmarks/input_pipeline.py, the input
           pipeline is faster than the training step.

This is `keras-sagan train` with different defaults and the same options, which `--help` lists. The
same command resumes a stopped run. docs/guides/scaling.md has the commands for several hosts.
"""

import sys

from keras_sagan import cli

DEFAULTS = {
    "output": "runs/imagenet",
    "dataset": "imagenet2012",
    "preset": "sagan_imagenet_128",
    "recipe": "official",
    "strategy": "auto",
    "batch_size": 256,
    "epochs": 200,
    "steps_per_epoch": 5000,
    "save_every": 1000,
    "fid_images": 50_000,
    "fid_every": 2,
    "keep_best": True,
}
SMOKE = """
    --base-filters 8 --image-size 64 --batch-size 8 --steps-per-epoch 2
    --fid-images 16 --fid-every 1
""".split()


def main(arguments=None):
    arguments = [str(x) for x in (sys.argv[1:] if arguments is None else arguments)]
    if "--smoke" not in arguments:
        return cli.main(["train", *arguments], DEFAULTS)
    import tensorflow_datasets as tfds

    arguments.remove("--smoke")
    with tfds.testing.mock_data(num_examples=64):
        for epochs in ("1", "2"):  # The second call resumes the first.
            command = ["train", *SMOKE, *arguments, "--epochs", epochs]
            if code := cli.main(command, DEFAULTS):
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
