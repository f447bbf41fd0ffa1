"""Methods of a model that return images, the averaged generator, attention maps and norms."""

import contextlib
import functools

import keras
import numpy as np
from keras import ops

from keras_sagan.checks import (
    RangeWarning,
    check_boolean,
    check_choice,
    check_class_ids,
    check_float,
    check_images,
    check_integer,
    check_values,
    known_values,
)
from keras_sagan.layers.conditional_batch_norm import ConditionalNormBase
from keras_sagan.layers.self_attention import attention_layers, record_attention_scores
from keras_sagan.layers.sn_embedding import SNEmbedding
from keras_sagan.layers.spectral_norm import spectral_norms
from keras_sagan.models import batches, selection
from keras_sagan.ops.latent import sample_labels, sample_latents, slerp
from keras_sagan.private_keras import layers_of, refresh_constants
from keras_sagan.training import backend, step

NETWORKS = ("generator", "discriminator")


class SamplingMixin:
    """The methods of `SAGAN` that generate images and inspect the networks."""

    _averaged_from: int | None = None  # The hash of the weights that were copied to the average.

    def generate(
        self,
        num_images: int,
        labels: int | np.ndarray | None = None,
        seed: int | None = None,
        truncation: float | None = None,
        batch_size: int = 64,
        latents: np.ndarray | None = None,
        use_ema: bool = True,
        method: str | None = None,
        gamma: float | None = None,
        percentile: float = 80.0,
        ratio: int = 4,
        return_details: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, dict]:
        """Generates images, optionally only those that the discriminator rates as realistic.

        Args:
            num_images: Positive integer.
            labels: Class id for all images, or an array of `num_images` class ids; `None` draws
                them uniformly at random. A model without classes doesn't accept labels.
            seed: Integer, the seed of latents and labels, or `None` for different results in each
                call. The results don't depend on `batch_size`.
            truncation: Positive float. Latent values with a larger magnitude are drawn again (the
                truncation trick), so images are better but less varied. `None` means no truncation.
            batch_size: Positive integer, the number of images to generate at a time.
            latents: Float array `(num_images, latent_dim)` to use instead of random latents.
            use_ema: Boolean, whether to use the averaged generator if there is one.
            method: `"rejection"` for discriminator rejection sampling, `"top"` to generate `ratio`
                times as many images and keep those with the largest discriminator logits, or `None`
                to keep all. Images are selected within each class, so the labels don't change.
            gamma: Float, for `"rejection"`: a larger value rejects more images. `None` computes
                `gamma` from `percentile`.
            percentile: Float in [0, 100), for `"rejection"`: an image whose acceptance score is at
                this percentile is accepted with probability 1/2. The largest logit and the
                percentile are estimated from 1000 additional images of each class.
            ratio: Positive integer, the factor for `"top"`.
            return_details: Boolean, whether to also return a dictionary of details.

        Returns:
            uint8 array of shape `(num_images, height, width, channels)` in [0, 255]. With
            `return_details`, a tuple of this array and a dictionary with `latents`, `labels`,
            `logits` (`None` without a method) and `acceptance_rate`, the share of candidate images
            that were accepted.

        Raises:
            ValueError: If an argument is out of range, labels or latents don't match the model,
                latents contain NaN, `truncation` or `method` is combined with `latents`, logits
                aren't finite, `gamma`, `percentile` or `ratio` doesn't belong to the method, or
                `gamma` or `percentile` is so high that hardly any image is accepted.

        Reference: [Azadi et al., 2019](https://arxiv.org/abs/1810.06758) for rejection sampling.
        """
        num_images = check_integer("num_images", num_images)
        expected = "a non-negative integer or None"
        seed = check_integer("seed", seed, 0, optional=True, expected=expected)
        truncation = check_float("truncation", truncation, above=0, optional=True)
        batch_size = check_integer("batch_size", batch_size)
        use_ema = check_boolean("use_ema", use_ema)
        method = check_choice("method", method, (None, *selection.METHODS))
        gamma = check_float("gamma", gamma, optional=True)
        percentile = check_float("percentile", percentile, 0, below=100)
        ratio = check_integer("ratio", ratio)
        given = {"gamma": gamma, "percentile": percentile, "ratio": ratio}
        for other, defaults in selection.METHODS.items():
            for name, default in defaults.items():
                if method != other and given[name] != default:
                    raise ValueError(
                        f"`{name}` needs method={other!r}. "
                        f"Received: {name}={given[name]} with method={method!r}"
                    )
        return_details = check_boolean("return_details", return_details)
        generator, rng = self._generator_in_use(use_ema), np.random.default_rng(seed)
        logits, rate = None, 1.0
        if method is not None:
            if latents is not None:
                raise ValueError(
                    "`method` must be None if `latents` are given, as it chooses among its own. "
                    f"Received: method={method!r}"
                )
            if self.num_classes is not None and labels is None:
                labels = sample_labels(num_images, self.num_classes, rng)
            labels = check_class_ids(labels, self.num_classes, num_images)
            judge = self._generate_function(generator, judges=True)

            def candidates(count, label, rng):
                found = [sample_latents(count, self.latent_dim, rng, truncation)]
                found += [] if label is None else [np.full(count, label, "int32")]
                return found[0], self._in_batches(judge, found, batch_size)

            search = functools.partial(selection.accepted, gamma=gamma, percentile=percentile)
            if method == "top":
                search = functools.partial(selection.best, ratio=ratio)
            latents, logits, rate = selection.select(search, candidates, labels, num_images, rng)
        elif latents is None:
            latents = sample_latents(num_images, self.latent_dim, rng, truncation)
        elif truncation is not None:
            raise ValueError(
                "`truncation` must be None if `latents` are given, which are used as they are. "
                f"Received: truncation={truncation}"
            )
        inputs = [check_latents("latents", latents, num_images, self.latent_dim)]
        if self.num_classes is not None and labels is None:
            labels = sample_labels(num_images, self.num_classes, rng)
        labels = check_class_ids(labels, self.num_classes, num_images)
        inputs += [] if labels is None else [labels]
        made = self._in_batches(self._generate_function(generator), inputs, batch_size)
        details = {"latents": inputs[0], "labels": labels, "logits": logits}
        return (made, {**details, "acceptance_rate": rate}) if return_details else made

    def _in_batches(self, function, inputs, batch_size):
        outputs = []
        for start in range(0, len(inputs[0]), batch_size):
            parts = [ops.convert_to_tensor(x[start : start + batch_size]) for x in inputs]
            with self._step_lock:
                outputs.append(function(*parts))
        return np.concatenate([ops.convert_to_numpy(x) for x in outputs])

    @property
    def ema_generator(self) -> keras.Model | None:
        """The averaged generator, or `None`. Until the first step, it equals the generator."""
        steps = known_values(self.steps) if self._average is not None else None
        if steps is not None and steps == 0:
            # Copy only new weights, because copying overwrites recomputed batch statistics.
            values = map(ops.convert_to_numpy, self.generator.variables)
            weights = hash(tuple(value.tobytes() for value in values))
            if weights != self._averaged_from:
                self.restart_average()
                self._averaged_from = weights
        return self._average

    def restart_average(self) -> None:
        """Copies the generator to the averaged generator; averaging continues from these weights.

        Call this method after you load new weights into the `generator` of a trained model. Raises
        a ValueError if the model has no averaged generator.
        """
        if self._average is None:
            raise ValueError(
                "`restart_average` needs a model with an `ema_momentum` or `ema_half_life`. "
                "Received: ema_momentum=None"
            )
        for mean, variable in zip(self._average.variables, self.generator.variables):
            mean.assign(ops.copy(variable))  # Copying on the device needs no communication.
        refresh_constants(self._average)

    def _generator_in_use(self, use_ema):
        average = self.ema_generator if use_ema else None
        return self.generator if average is None else average

    def _generate_function(self, generator, judges=False):
        """Returns a compiled function that maps latents and labels to images or their logits."""
        variables = [*generator.variables, *(self.discriminator.variables if judges else ())]
        # Quantization and LoRA replace or add variables. Keep ids, because Keras would track
        # variables in this dictionary as weights of the model.
        key = generator is self._average, judges, *map(id, variables)
        if key not in self._generate_functions:

            def function(latents, labels=None):
                images = step.call(generator, latents, labels, training=False)
                if not judges:
                    return batches.to_user_space(images)
                logits = step.judge(self.discriminator, images, labels, training=False)
                return ops.mean(ops.reshape(logits, (ops.shape(latents)[0], -1)), axis=1)

            self._generate_functions[key] = backend.compiled(
                function, variables, self.latent_dim, self.num_classes
            )
        return self._generate_functions[key]

    def interpolate(
        self,
        rows: int = 4,
        steps: int = 8,
        labels: int | np.ndarray | None = None,
        to_labels: int | np.ndarray | None = None,
        latents: np.ndarray | None = None,
        to_latents: np.ndarray | None = None,
        seed: int | None = None,
        truncation: float | None = None,
        use_ema: bool = True,
    ) -> np.ndarray:
        """Generates images that interpolate between latents, or between classes.

        Latents are interpolated spherically (`keras_sagan.ops.latent.slerp`). If `to_labels` is
        given, the method interpolates linearly between the weights of the two classes in
        conditional norms and embeddings, and the latents don't change unless `to_latents` is given.

        Args:
            rows: Positive integer, the number of interpolations, one per row.
            steps: Integer of at least 2, the number of images in a row, including both ends.
            labels: Class id for all rows, or an array of `rows` class ids. `None` distributes the
                rows over all classes.
            to_labels: Class id at the right end of all rows, or an array of `rows` class ids. With
                `None`, the class doesn't change.
            latents, to_latents: Float arrays `(rows, latent_dim)`, or `None` for random latents.
            seed, truncation, use_ema: As in `generate`.

        Returns:
            uint8 array of shape `(rows, steps, height, width, channels)` in [0, 255].

        Raises:
            ValueError: If an argument is invalid, or the generator's classes can't be interpolated.

        Example:
        >>> from keras_sagan import SAGAN
        >>> model = SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4)
        >>> model.interpolate(rows=2, steps=3, labels=0, to_labels=[1, 2]).shape
        (2, 3, 32, 32, 1)
        """
        rows = check_integer("rows", rows, 1)
        steps = check_integer("steps", steps, 2)
        seed = check_integer("seed", seed, 0, optional=True)
        truncation = check_float("truncation", truncation, above=0, optional=True)
        use_ema = check_boolean("use_ema", use_ema)
        if truncation is not None and latents is not None and to_latents is not None:
            raise ValueError(
                "`truncation` must be None if `latents` and `to_latents` are given, which are "
                f"used as they are. Received: truncation={truncation}"
            )
        if labels is None and self.num_classes is not None:
            labels = np.arange(rows) * self.num_classes // rows
        is_mixed = to_labels is not None
        labels = check_class_ids(labels, self.num_classes, rows)
        to_labels = to_labels if is_mixed else labels
        to_labels = check_class_ids(to_labels, self.num_classes, rows, "to_labels")
        rng = np.random.default_rng(seed)

        def ends(name, given):
            if given is None:
                return sample_latents(rows, self.latent_dim, rng, truncation)
            return check_latents(name, given, rows, self.latent_dim)

        latents = ends("latents", latents)
        if to_latents is None and is_mixed:
            to_latents = latents
        to_latents = ends("to_latents", to_latents)
        fractions = np.linspace(0.0, 1.0, steps)
        paths = np.stack([slerp(a, b, fractions) for a, b in zip(latents, to_latents)])
        if not is_mixed:
            ids = None if labels is None else labels.repeat(steps)
            flat = paths.reshape(rows * steps, -1)
            images = list(self.generate(len(flat), ids, latents=flat, use_ema=use_ema))
            return np.stack(images).reshape(rows, steps, *images[0].shape)
        network, images = self._generator_in_use(use_ema), []
        for start, end, path in zip(labels, to_labels, paths):
            for share, latent in zip(fractions, path):
                with mixed_class(network, start, end, share):
                    images.append(self.generate(1, start, latents=latent[None], use_ema=use_ema)[0])
        walks = np.stack(images).reshape(rows, steps, *images[0].shape)
        given = {"latents": paths[:, -1], "batch_size": 1, "use_ema": use_ema}
        expected = np.asarray(self.generate(rows, to_labels, **given), int)
        if np.abs(walks[:, -1] - expected).max() > 2:  # Labels have an effect elsewhere too.
            raise _not_mixed(network)
        return walks

    def attention_maps(
        self, inputs: np.ndarray, labels: np.ndarray | None = None, use_ema: bool = True
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns the attention scores of every self-attention layer of a network.

        Args:
            inputs: Latents `(batch, latent_dim)` for the generator's scores, or images
                `(batch, height, width, channels)`, uint8 in [0, 255] or float in [-1, 1], for the
                discriminator's scores.
            labels: Array of integer class ids `(batch,)`, for a model with classes.
            use_ema: As in `generate`.

        Returns:
            Tuple of the images, uint8 `(batch, height, width, channels)`, and a dictionary that
            maps layer names to scores, float32 `(batch, h, w, key_h, key_w)`. `scores[i, y, x]`
            contains the weights with which location `(y, x)` attends to all key locations. They
            are averaged over the heads and sum to 1.

        Raises:
            ValueError: If `inputs` isn't of rank 2 or 4, or the network has no attention layer.
        """
        use_ema = check_boolean("use_ema", use_ema)
        inputs = np.asarray(ops.convert_to_numpy(inputs))
        is_latents = inputs.ndim == 2
        if inputs.ndim not in (2, 4) or not len(inputs):
            raise ValueError(
                "`inputs` must be latents of rank 2 or images of rank 4, at least one. "
                f"Received: inputs of shape {inputs.shape}"
            )
        labels = check_class_ids(labels, self.num_classes, len(inputs))
        labels = None if labels is None else ops.convert_to_tensor(labels)
        if is_latents:
            network = self._generator_in_use(use_ema)
            inputs = check_latents("inputs", inputs, len(inputs), self.latent_dim)
            inputs = ops.convert_to_tensor(inputs)
        else:
            network = self.discriminator
            check_images(inputs, "inputs")
            RangeWarning("inputs")(check_values(inputs, self.image_shape, "inputs"))
            inputs = batches.to_model_space(inputs)
        if not attention_layers(network):
            raise ValueError(
                "`attention_maps` needs a network with a SelfAttention2D layer. "
                f"Received: {network.name} without one"
            )
        with self._step_lock, record_attention_scores(network) as scores:
            outputs = step.call(network, inputs, labels, training=False)
        images = batches.to_user_space(outputs if is_latents else inputs)
        scores = {name: ops.convert_to_numpy(value) for name, value in scores.items()}
        return ops.convert_to_numpy(images), scores

    def attention_gammas(self) -> dict[str, float]:
        """Returns the `gamma` of every attention layer: `{"generator/attention_32": 0.1, …}`."""
        return {
            f"{name}/{path}": float(ops.convert_to_numpy(layer.gamma))
            for name in NETWORKS
            for path, layer in attention_layers(getattr(self, name)).items()
        }

    def spectral_norms(self, normalized_only: bool = True) -> dict[str, float]:
        """Returns the largest singular value of each kernel: `{"generator/start": 2.1, …}`.

        See `keras_sagan.layers.spectral_norms` for `normalized_only` and the possible warning.
        """
        return {
            f"{name}/{path}": value
            for name in NETWORKS
            for path, value in spectral_norms(getattr(self, name), normalized_only).items()
        }


def check_latents(name, latents, count, latent_dim):
    """Checks the shape and the values of latents, and returns a float32 array."""
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


@contextlib.contextmanager
def mixed_class(generator, label, other, share):
    """In its `with` block, mixes class `other`, with weight `share`, into class `label`."""
    tables = []
    for layer in layers_of(generator):
        if isinstance(layer, ConditionalNormBase) and (layer.num_classes or 1) > 1:
            tables += [layer.gamma, layer.beta]
        elif isinstance(layer, SNEmbedding):
            tables = []  # Changing one row would change the normalization of all rows.
            break
        elif isinstance(layer, keras.layers.Embedding):
            tables.append(layer.embeddings)
    if not tables or max(label, other) >= min(table.shape[0] for table in tables):
        raise _not_mixed(generator)
    values = [ops.convert_to_numpy(table) for table in tables]
    try:
        for table, value in zip(tables, values):
            mixed = value.copy()
            mixed[label] = (1.0 - share) * value[label] + share * value[other]
            table.assign(mixed)
        yield
    finally:
        for table, value in zip(tables, values):
            table.assign(value)


def _not_mixed(generator):
    return ValueError(
        "`to_labels` needs a generator that keeps its classes in conditional norms or "
        f"Embedding layers only. Received: {generator.name}, which doesn't"
    )
