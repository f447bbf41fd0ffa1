"""What a trained model is used for: images, and where the attention looks."""

import numpy as np
from keras import ops

from keras_sagan.checks import (
    RangeWarning,
    check_boolean,
    check_float,
    check_images,
    check_integer,
    check_labels,
    check_values,
)
from keras_sagan.layers.self_attention2d import attention_layers, record_attention_scores
from keras_sagan.layers.spectral_norm import spectral_norms
from keras_sagan.models import batches
from keras_sagan.ops.latent import sample_labels, sample_latents
from keras_sagan.training import backend
from keras_sagan.training.step import call


class SamplingMixin:
    """The part of `SAGAN` that makes images and attention maps."""

    def generate(
        self,
        num_images,
        labels=None,
        seed=None,
        truncation=None,
        batch_size=64,
        latents=None,
        use_ema=True,
    ):
        """Generates images.

        Args:
            num_images: Positive integer.
            labels: Class id for all images, or array of `num_images` of them; `None` draws them
                evenly. Only for a model with classes.
            seed: Integer that determines latents and labels, whatever the batch size, or `None`
                for new ones at each call.
            truncation: Positive float: latents beyond it are drawn again (the truncation trick:
                better images, less variety). `None` for none.
            batch_size: Positive integer, the images computed at a time. Defaults to `64`.
            latents: Float array `(num_images, latent_dim)` to use in place of drawn ones.
            use_ema: Boolean, whether to use the averaged generator if there is one. Defaults to
                `True`.

        Returns:
            uint8 array of shape `(num_images, height, width, channels)` in [0, 255].

        Raises:
            ValueError: For labels or latents that don't fit, NaN in latents, counts that aren't
                positive integers, a `seed` or `truncation` out of range, or a `truncation` beside
                `latents`.
        """
        num_images = check_integer("num_images", num_images)
        expected = "a non-negative integer or None"
        seed = check_integer("seed", seed, 0, optional=True, expected=expected)
        truncation = check_float("truncation", truncation, above=0, optional=True)
        batch_size = check_integer("batch_size", batch_size)
        use_ema = check_boolean("use_ema", use_ema)
        rng = np.random.default_rng(seed)
        if latents is None:
            latents = sample_latents(num_images, self.latent_dim, rng, truncation)
        elif truncation is not None:
            raise ValueError(
                "`truncation` must be None beside `latents`, which are used as they are. "
                f"Received: truncation={truncation}"
            )
        latents = check_latents("latents", latents, num_images, self.latent_dim)
        labels = self._labels(labels, num_images, rng)
        use_ema = use_ema and self.ema_generator is not None
        inputs = [latents] if labels is None else [latents, labels]
        function = self._generate_function(use_ema)
        images = []
        for start in range(0, num_images, batch_size):
            parts = [ops.convert_to_tensor(x[start : start + batch_size]) for x in inputs]
            with self._step_lock:
                images.append(function(*parts))
        return np.concatenate([ops.convert_to_numpy(x) for x in images])

    def _labels(self, labels, count, rng):
        if self.num_classes is None:
            if labels is not None:
                raise ValueError(
                    "`labels` must not be given, as the model has num_classes=None. "
                    f"Received: labels={labels}"
                )
            return None
        if labels is None:
            return sample_labels(count, self.num_classes, rng)
        labels = np.asarray(labels)
        if labels.ndim == 0:
            labels = np.full(count, labels)
        check_labels(labels, self.num_classes)
        if len(labels) != count:
            raise ValueError(
                f"`labels` must be one class id or {count} of them. Received: {len(labels)} labels"
            )
        return labels.astype("int32")

    def _generate_function(self, use_ema):
        if use_ema not in self._generate_functions:
            generator = self.ema_generator if use_ema else self.generator

            def function(latents, labels=None):
                return batches.to_user_space(call(generator, latents, labels, training=False))

            self._generate_functions[use_ema] = backend.compiled(
                function, generator, self.latent_dim, self.num_classes
            )
        return self._generate_functions[use_ema]

    def attention_maps(self, inputs, labels=None, use_ema=True):
        """Returns the attention scores of every `SelfAttention2D` of a network.

        Args:
            inputs: Latents `(batch, latent_dim)` to see the generator's, or images
                `(batch, height, width, channels)`, uint8 or float in [-1, 1], to see the
                discriminator's.
            labels: Array of integer class ids `(batch,)`, for a model with classes.
            use_ema: Boolean, whether to use the averaged generator if there is one. Defaults to
                `True`.

        Returns:
            Tuple of the images, uint8 `(batch, height, width, channels)`, and a dictionary from
            layer name to scores, float32 `(batch, h, w, key_h, key_w)`. Each `[i, y, x]` sums to
            1: how much each key location matters where location `(y, x)` is drawn.

        Raises:
            ValueError: For inputs of another rank, or a network without attention.
        """
        use_ema = check_boolean("use_ema", use_ema)
        inputs = np.asarray(ops.convert_to_numpy(inputs))
        if inputs.ndim not in (2, 4) or not len(inputs):
            raise ValueError(
                "`inputs` must be latents of rank 2 or images of rank 4, at least one. "
                f"Received: inputs of shape {inputs.shape}"
            )
        is_latents = inputs.ndim == 2
        if is_latents and inputs.shape[1] != self.latent_dim:
            raise ValueError(
                f"`inputs` must be latents of shape (batch, {self.latent_dim}), or images. "
                f"Received: inputs of shape {inputs.shape}"
            )
        if not is_latents:
            check_images(inputs, "inputs")
            RangeWarning("inputs")(check_values(inputs, self.image_shape, "inputs"))
        if self.num_classes is not None and labels is None:
            raise ValueError(
                f"`labels` must be given, as the model has num_classes={self.num_classes}. "
                "Received: labels=None"
            )
        labels = self._labels(labels, len(inputs), None)
        labels = None if labels is None else ops.convert_to_tensor(labels)
        if is_latents:
            averaged = use_ema and self.ema_generator is not None
            network = self.ema_generator if averaged else self.generator
            inputs = check_latents("inputs", inputs, len(inputs), self.latent_dim)
            inputs = ops.convert_to_tensor(inputs)
        else:
            network = self.discriminator
            inputs = batches.to_model_space(inputs)
        if not attention_layers(network):
            raise ValueError(
                "`attention_maps` needs a network with a SelfAttention2D layer. "
                f"Received: {network.name} without one"
            )
        with self._step_lock, record_attention_scores(network) as scores:
            outputs = call(network, inputs, labels, training=False)
        images = batches.to_user_space(outputs if is_latents else inputs)
        scores = {name: ops.convert_to_numpy(value) for name, value in scores.items()}
        return ops.convert_to_numpy(images), scores

    def attention_gammas(self):
        """Returns the `gamma` of every attention layer: `{"generator/attention_32": 0.1, …}`."""
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        return {
            f"{name}/{layer.name}": float(ops.convert_to_numpy(layer.gamma))
            for name, network in networks.items()
            for layer in attention_layers(network)
        }

    def spectral_norms(self, normalized_only=True):
        """Returns the largest singular value of every kernel: `{"generator/start": 2.1, …}`.

        Args:
            normalized_only: Boolean. `False` adds kernels that aren't spectrally normalised.
                Defaults to `True`.

        Returns:
            Dictionary from a kernel's path to a float; see `keras_sagan.layers.spectral_norms`.
        """
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        return {
            f"{name}/{path}": value
            for name, network in networks.items()
            for path, value in spectral_norms(network, normalized_only).items()
        }


def check_latents(name, latents, count, latent_dim):
    """Returns latents as a float32 array, or raises unless they are finite and of the right shape.

    Args:
        name: String, the argument's name.
        latents: Array-like.
        count, latent_dim: Integers, the expected shape.

    Raises:
        ValueError: For another shape, or NaN or infinite values.
    """
    try:
        latents = np.asarray(latents, "float32")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be an array of numbers. Received: {name}={latents!r}"
        ) from error
    if latents.shape != (count, latent_dim):
        raise ValueError(
            f"`{name}` must have shape ({count}, {latent_dim}). "
            f"Received: {name} of shape {latents.shape}"
        )
    if not np.isfinite(latents).all():
        raise ValueError(
            f"`{name}` must be finite. Received: {name} with {latents[~np.isfinite(latents)][0]}"
        )
    return latents
