"""Trains a SAGAN with custom networks.

Command:   python examples/custom_networks.py
Data:      the 10,000 images of Fashion-MNIST's test set, which ship with the package
Result:    runs/custom/ with a grid of samples per epoch and the model, and the Fréchet distance

You can use any two functional, sequential or subclassed Keras models: a generator that maps latents
(and labels) to images in [-1, 1], and a discriminator that maps images (and labels) to logits.
`SAGAN` adds the rest: the losses, two optimizers, labels, averaging, any number of devices,
checkpoints and the callbacks.
"""

import argparse
import os
from pathlib import Path

# This is twice as fast on CPUs without AVX-512, where TensorFlow doesn't enable oneDNN.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
from keras import layers, ops

from keras_sagan import SAGAN, ConditionalBatchNorm, SelfAttention2D, SNConv2D, SNDense, SNEmbedding
from keras_sagan.callbacks import AttentionMonitor, FIDEvaluator, SampleGrid
from keras_sagan.data import FASHION_MNIST_CLASSES, load_fashion_mnist, make_dataset
from keras_sagan.metrics import FrechetInceptionDistance, GreyClassifierFeatures

LATENT_DIM, NUM_CLASSES = 64, 10


def my_generator():
    """Builds a functional model for images of 28 pixels, a size that no preset has."""
    latents = keras.Input((LATENT_DIM,))
    labels = keras.Input((), dtype="int32")
    x = layers.Dense(7 * 7 * 64)(latents)
    x = layers.Reshape((7, 7, 64))(x)
    for filters in (64, 32):
        x = ConditionalBatchNorm(NUM_CLASSES, momentum=0.99)(x, labels)
        x = layers.ReLU()(x)
        x = layers.Conv2DTranspose(filters, 4, strides=2, padding="same")(x)
        if filters == 64:
            x = SelfAttention2D(name="attention_14")(x)
    x = layers.LayerNormalization()(x)
    x = layers.ReLU()(x)
    return keras.Model([latents, labels], layers.Conv2D(1, 3, padding="same", activation="tanh")(x))


@keras.saving.register_keras_serializable(package="custom_networks")
class MyDiscriminator(keras.Model):
    """A subclassed model, registered so that the SAGAN can be saved and loaded."""

    def __init__(self, filters=32, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.convs = [
            SNConv2D(filters * 2**i, 4, strides=2, padding="same", activation="leaky_relu")
            for i in range(3)
        ]
        self.attention = SelfAttention2D(name="attention_14")
        self.logits = SNDense(1)
        self.rows = SNEmbedding(NUM_CLASSES, filters * 4)

    def call(self, inputs, training=False):
        x, labels = inputs
        for index, conv in enumerate(self.convs):
            x = conv(x, training=training)
            if index == 0:
                x = self.attention(x, training=training)
        features = ops.sum(x, axis=(1, 2))
        rows = self.rows(labels, training=training)
        projection = ops.sum(features * rows, axis=1, keepdims=True)
        return self.logits(features, training=training) + projection

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps_per_epoch", type=int, default=156)
    parser.add_argument("--fid_images", type=int, default=5000)
    parser.add_argument("--workdir", default="runs/custom")
    settings = parser.parse_args(arguments)
    workdir = Path(settings.workdir)

    keras.utils.set_random_seed(0)
    model = SAGAN(
        my_generator(),
        MyDiscriminator(),
        latent_dim=LATENT_DIM,
        num_classes=NUM_CLASSES,
        d_steps=2,
        ema_momentum=0.99,
    )
    # Use any Keras optimizers. Without arguments, `model.compile()` uses the paper's optimizers.
    model.compile(
        g_optimizer=keras.optimizers.Adam(4e-4, beta_1=0.0, beta_2=0.99),
        d_optimizer=keras.optimizers.Adam(4e-4, beta_1=0.0, beta_2=0.99),
        loss="hinge",
    )
    images, labels = load_fashion_mnist()
    dataset = make_dataset(images, labels, batch_size=64)
    metric = FrechetInceptionDistance(GreyClassifierFeatures(), batch_size=250)
    reference = images[: settings.fid_images]
    fid = FIDEvaluator(metric, reference, len(reference), settings.epochs, at_start=True)
    grid = SampleGrid(workdir, class_names=FASHION_MNIST_CLASSES)
    model.fit(
        dataset,
        epochs=settings.epochs,
        steps_per_epoch=settings.steps_per_epoch,
        callbacks=[AttentionMonitor(), grid, fid],
    )
    model.save(workdir / "model.keras")
    loaded = keras.saving.load_model(workdir / "model.keras")
    assert (loaded.generate(4, labels=1, seed=0) == model.generate(4, labels=1, seed=0)).all()
    for epoch, value in fid.history:
        print(f"{fid.name} after {epoch} epochs: {value:.1f}")
    print(f"Samples and model.keras, which loads to the same images, are in {workdir}/")


if __name__ == "__main__":
    main()
