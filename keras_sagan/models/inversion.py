"""GAN inversion: finds latents and classes for given images, with fixed weights."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sagan.checks import (
    RangeWarning,
    check_boolean,
    check_class_ids,
    check_float,
    check_images,
    check_integer,
    check_string,
    check_values,
)
from keras_sagan.models import batches
from keras_sagan.ops.latent import sample_latents
from keras_sagan.training import backend
from keras_sagan.training.step import call

EXPLORING = 5  # The first round, which tries all classes, takes `steps / EXPLORING` steps.
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Inversion(NamedTuple):
    """The result of `SAGAN.invert`.

    Attributes:
        latents: float32 array `(num_images, latent_dim)`.
        labels: int32 array `(num_images,)`, or `None` for a model without classes.
        images: uint8 array `(num_images, height, width, channels)` in [0, 255], the images that
            `generate` returns for these latents and labels.
        psnr: float32 array `(num_images,)`, the peak signal-to-noise ratio of the uint8 images, in
            decibels. The ratio is infinite for an exact match.
    """

    latents: np.ndarray
    labels: np.ndarray | None
    images: np.ndarray
    psnr: np.ndarray


class InversionMixin:
    """Gives `SAGAN` the method `invert`, which finds latents for images."""

    def invert(
        self,
        images: np.ndarray,
        labels: int | np.ndarray | None = None,
        restarts: int = 4,
        steps: int = 300,
        learning_rate: float = 0.1,
        feature_layer: str | None = None,
        feature_weight: float = 1.0,
        batch_size: int = 128,
        seed: int | None = None,
        use_ema: bool = True,
    ) -> Inversion:
        """Finds latents and classes from which the generator reproduces the given images.

        Adam optimizes the latents to minimize the mean squared error of the pixels in [-1, 1]; the
        weights are fixed. For each image and class, `restarts` random latents are optimized for
        `steps / 5` steps. Then, for each image, the `restarts` latents with the lowest losses are
        optimized for `steps` more steps. Finally, the best latent of each image is optimized for
        `2 * steps` more steps.

        Args:
            images: uint8 array in [0, 255] or float array in [-1, 1], of shape
                `(num_images, height, width, channels)`.
            labels: Class id for all images, or array of `num_images` class ids. `None` tries every
                class.
            restarts, steps: Positive integers, described above.
            learning_rate: Positive float, Adam's initial learning rate, with cosine decay to 0.
            feature_layer: String, the name of a discriminator layer. The loss also compares the
                outputs of this layer for the given and the generated image. `None` compares only
                pixels.
            feature_weight: Non-negative float, the weight of the mean squared error of the outputs
                of `feature_layer`.
            batch_size: Positive integer, the number of latents to optimize at a time.
            seed: Integer, the seed of the initial latents, or `None` for different latents in each
                call.
            use_ema: As in `generate`.

        Raises:
            ValueError: If an argument is out of range, images or labels don't match the model, or
                the discriminator has no layer named `feature_layer`.

        Example:
        >>> from keras_sagan import SAGAN
        >>> model = SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4)
        >>> found = model.invert(model.generate(1, labels=3), labels=3, restarts=1, steps=2)
        >>> found.latents.shape, found.labels.tolist(), found.images.shape
        ((1, 64), [3], (1, 32, 32, 1))

        Reference: [Lipton & Tripathi, 2017](https://arxiv.org/abs/1702.04782).
        """
        restarts, steps = check_integer("restarts", restarts), check_integer("steps", steps)
        learning_rate = check_float("learning_rate", learning_rate, above=0)
        feature_layer = check_string("feature_layer", feature_layer, optional=True)
        feature_weight = check_float("feature_weight", feature_weight, minimum=0)
        batch_size = check_integer("batch_size", batch_size)
        seed = check_integer("seed", seed, 0, optional=True)
        generator = self._generator_in_use(check_boolean("use_ema", use_ema))
        images = np.asarray(ops.convert_to_numpy(images))
        check_images(images)
        RangeWarning("images")(check_values(images, self.image_shape))
        if not len(images):
            raise ValueError("`images` must be at least one. Received: images of none")
        targets = ops.convert_to_numpy(batches.to_model_space(images))
        count, tried = len(images), 1
        if labels is None and self.num_classes is not None:
            tried = self.num_classes
            labels = np.tile(np.arange(tried, dtype="int32"), count)
        else:
            labels = check_class_ids(labels, self.num_classes, count)
        labels = None if labels is None else labels.repeat(restarts)
        owners = np.arange(count).repeat(tried * restarts)
        rng = np.random.default_rng(seed)
        latents = sample_latents(len(owners), self.latent_dim, rng)
        features = _features_of(self.discriminator, feature_layer)
        search = _Search(self, generator, features, feature_weight, learning_rate, batch_size)
        for turn, kept in ((-(-steps // EXPLORING), restarts), (steps, 1), (2 * steps, 1)):
            latents, losses = search(latents, labels, targets, owners, turn)
            order = np.lexsort((losses, owners)).reshape(count, -1)[:, :kept].ravel()
            latents, owners = latents[order], owners[order]
            labels = None if labels is None else labels[order]
        made = self.generate(count, labels, latents=latents, use_ema=use_ema)
        real = ops.convert_to_numpy(batches.to_user_space(targets)).astype("float64")
        errors = np.mean(np.square(made - real), axis=(1, 2, 3))
        with np.errstate(divide="ignore"):
            psnr = 10.0 * np.log10(255.0**2 / errors)
        return Inversion(latents, labels, made, psnr.astype("float32"))


class _Search:
    """Optimizes each latent independently with Adam, and returns the best values."""

    def __init__(self, model, generator, features, weight, learning_rate, batch_size):
        def losses(latents, targets, labels=None):
            made = ops.cast(call(generator, latents, labels, training=False), "float32")
            found = ops.mean(ops.square(made - targets), axis=(1, 2, 3))
            if features is not None:
                both = [features(x, labels) for x in (made, targets)]
                errors = ops.square(both[0] - both[1])
                rows = ops.reshape(errors, (ops.shape(errors)[0], -1))
                found = found + weight * ops.mean(rows, axis=1)
            return found

        variables = [*generator.variables, *model.discriminator.variables]
        self.gradient = backend.compiled_gradient(losses, variables)
        self.lock, self.learning_rate, self.size = model._step_lock, learning_rate, batch_size

    def __call__(self, latents, labels, targets, owners, steps):
        found = []
        for start in range(0, len(latents), self.size):
            # Pad the last batch, because each batch size would be compiled separately.
            places = np.arange(start, start + min(self.size, len(latents))) % len(latents)
            others = [targets[owners[places]]] + ([] if labels is None else [labels[places]])
            found.append(self.move(latents[places], others, steps))
        return (np.concatenate(parts)[: len(latents)] for parts in zip(*found))

    def move(self, latents, others, steps):
        others = [ops.convert_to_tensor(x) for x in others]
        first, second = np.zeros((2, *latents.shape), "float32")
        best, least = latents.copy(), np.full(len(latents), np.inf, "float32")
        for step in range(steps + 1):
            with self.lock:
                found = self.gradient(ops.convert_to_tensor(latents), *others)
            gradient, losses = (ops.convert_to_numpy(x) for x in found)
            is_better = losses < least
            best[is_better], least[is_better] = latents[is_better], losses[is_better]
            rate = 0.5 * self.learning_rate * (1.0 + np.cos(np.pi * step / steps))
            first = BETAS[0] * first + (1.0 - BETAS[0]) * gradient
            second = BETAS[1] * second + (1.0 - BETAS[1]) * np.square(gradient)
            sizes = [1.0 - beta ** (step + 1) for beta in BETAS]
            move = first / sizes[0] / (np.sqrt(second / sizes[1]) + EPSILON)
            latents = (latents - rate * move).astype("float32")
        return best, least


def _features_of(discriminator, name):
    """Returns a function that computes a layer's outputs, or `None` if `name` is `None`."""
    if name is None:
        return None
    layers = {layer.name: layer for layer in getattr(discriminator, "layers", [])}
    if name not in layers or not hasattr(discriminator, "inputs"):
        raise ValueError(
            "`feature_layer` must be a layer of the discriminator, a functional model. "
            f"Received: feature_layer={name!r}; its layers are {list(layers)}"
        )
    network = keras.Model(discriminator.inputs, layers[name].output)

    def features(images, labels):
        return ops.cast(call(network, images, labels, training=False), "float32")

    return features
