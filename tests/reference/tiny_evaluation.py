"""An evaluation of a model without layers, in the pixels of its images."""

import keras
import numpy as np

from keras_sagan import metrics
from keras_sagan.metrics import evaluate_generator

ALL = list(metrics.METRICS)


class Pixels:
    """An extractor of both outputs that counts its images."""

    version = "Pixels"

    def __init__(self):
        self.images = 0

    def __call__(self, images):
        return self.named_outputs(images)["features"]

    def named_outputs(self, images):
        self.images += len(images)
        features = keras.ops.reshape(images, (-1, 16))
        return {"features": features, "logits": 3.0 * features[:, :4]}


class TinyGAN:
    """Has what the evaluation asks of a model; remembers what it was asked for."""

    name, latent_dim, num_classes = "tiny", 3, 2
    ema_generator = None

    def __init__(self):
        self.calls = []

    def made(self):
        """The labels of the images that were made."""
        return np.concatenate([labels for _, labels, _ in self.calls])

    def generate(self, num_images, labels=None, latents=None, batch_size=64, use_ema=True):
        self.calls.append((num_images, np.asarray(labels), use_ema))
        base = np.tanh(latents.sum(1) + np.asarray(labels))[:, None, None, None]
        images = np.tanh(
            base * np.linspace(-1, 1, 16).reshape(1, 4, 4, 1) + latents[:, :1, None, None]
        )
        return ((images + 1) * 127.5).astype("uint8")


def real_images(count=120, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 4, 4, 1)).astype("uint8")
    return images, (np.arange(count) % 3 == 0).astype("int32")


def measure(model=None, reference=None, extractor=None, **kwargs):
    settings = {"metrics": ALL, "num_images": 50, "verbose": False, "dataset": "digits"}
    return evaluate_generator(
        model or TinyGAN(),
        real_images() if reference is None else reference,
        feature_extractor=extractor or Pixels(),
        **{**settings, **kwargs},
    )


class MeanColors:
    """An extractor of three features: the mean of each channel."""

    version = "MeanColors"

    def __call__(self, images):
        return keras.ops.mean(images, axis=(1, 2))
