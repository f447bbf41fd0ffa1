"""The way from one image to another, through latents or through classes."""

import contextlib

import keras
import numpy as np

from keras_sagan.checks import check_boolean, check_float, check_integer, check_labels
from keras_sagan.layers.conditional_batch_norm import ConditionalBatchNorm
from keras_sagan.layers.sn_embedding import SNEmbedding
from keras_sagan.models.sampling import check_latents
from keras_sagan.ops.latent import sample_latents, slerp


class InterpolationMixin:
    """The part of `SAGAN` that makes images in between."""

    def interpolate(
        self,
        rows=4,
        steps=8,
        labels=None,
        to_labels=None,
        latents=None,
        to_latents=None,
        seed=None,
        truncation=None,
        use_ema=True,
    ):
        """Generates images on the way from one latent to another, or from one class to another.

        Latents go along an arc (`keras_sagan.ops.latent.slerp`). Between classes, the rows of the
        conditional batch norms' tables, and of plain embeddings, are mixed linearly; the latents
        then stay unless `to_latents` is given. The model is as before afterwards.

        Args:
            rows: Positive integer, how many ways. Defaults to `4`.
            steps: Integer of at least 2, the images of each way, both ends included. Defaults to
                `8`.
            labels: Class id for all rows, or an array of `rows` of them. Defaults to classes
                spread over all there are.
            to_labels: The same, where each row ends. Defaults to `None`: the class stays.
            latents, to_latents: Float arrays `(rows, latent_dim)`. Drawn by default.
            seed: Integer that determines what is drawn, or `None` for new ones at each call.
            truncation: Positive float, as in `generate`.
            use_ema: Boolean, as in `generate`.

        Returns:
            uint8 array of shape `(rows, steps, height, width, channels)` in [0, 255].

        Raises:
            ValueError: For arguments that don't fit, or a generator whose classes can't be mixed.

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
                "`truncation` must be None beside `latents` and `to_latents`, which are used as "
                f"they are. Received: truncation={truncation}"
            )
        rng = np.random.default_rng(seed)
        labels = self._ends_of_classes(labels, to_labels, rows)
        latents = self._end_of_latents("latents", latents, rows, rng, truncation)
        if to_latents is None and to_labels is not None:
            to_latents = latents
        to_latents = self._end_of_latents("to_latents", to_latents, rows, rng, truncation)
        fractions = np.linspace(0.0, 1.0, steps)
        paths = np.stack([slerp(a, b, fractions) for a, b in zip(latents, to_latents)])
        if to_labels is None:
            ids = None if labels is None else labels[0].repeat(steps)
            flat = paths.reshape(rows * steps, -1)
            images = self.generate(len(flat), ids, latents=flat, use_ema=use_ema)
            return images.reshape(rows, steps, *images.shape[1:])
        network = self.ema_generator if use_ema and self.ema_generator else self.generator
        images = []
        for start, end, path in zip(*labels, paths):
            for share, latent in zip(fractions, path):
                with mixed_class(network, start, end, share):
                    images.append(self.generate(1, start, latents=latent[None], use_ema=use_ema)[0])
        return np.stack(images).reshape(rows, steps, *images[0].shape)

    def _ends_of_classes(self, labels, to_labels, rows):
        if self.num_classes is None:
            for name, value in (("labels", labels), ("to_labels", to_labels)):
                if value is not None:
                    raise ValueError(
                        f"`{name}` must not be given, as the model has num_classes=None. "
                        f"Received: {name}={value}"
                    )
            return None
        if labels is None:
            labels = np.arange(rows) * self.num_classes // rows
        ends = []
        for name, value in (("labels", labels), ("to_labels", to_labels)):
            value = np.asarray(labels if value is None else value)
            if value.ndim == 0:
                value = np.full(rows, value)
            check_labels(value, self.num_classes)
            if len(value) != rows:
                raise ValueError(
                    f"`{name}` must be one class id or {rows} of them. "
                    f"Received: {len(value)} labels"
                )
            ends.append(value.astype("int32"))
        return ends

    def _end_of_latents(self, name, latents, rows, rng, truncation):
        if latents is None:
            return sample_latents(rows, self.latent_dim, rng, truncation)
        return check_latents(name, latents, rows, self.latent_dim)


@contextlib.contextmanager
def mixed_class(generator, label, other, share):
    """Makes one class of a generator a mixture of two, inside.

    Args:
        generator: Keras model.
        label: Integer, the class that changes.
        other: Integer, the class that it goes towards.
        share: Float in [0, 1], how far.

    Raises:
        ValueError: If the generator keeps its classes in other layers than `ConditionalBatchNorm`
            and `keras.layers.Embedding`.
    """
    tables = _tables(generator)
    values = [keras.ops.convert_to_numpy(table) for table in tables]
    try:
        for table, value in zip(tables, values):
            mixed = value.copy()
            mixed[label] = (1.0 - share) * value[label] + share * value[other]
            table.assign(mixed)
        yield
    finally:
        for table, value in zip(tables, values):
            table.assign(value)


def _tables(generator):
    tables = []
    for layer in generator._flatten_layers():
        if isinstance(layer, ConditionalBatchNorm) and layer.num_classes > 1:
            tables += [layer.gamma, layer.beta]
        elif isinstance(layer, SNEmbedding):
            tables = []  # A mixed row would change how all rows are normalised.
            break
        elif isinstance(layer, keras.layers.Embedding):
            tables.append(layer.embeddings)
    if not tables:
        raise ValueError(
            "`to_labels` needs a generator that keeps its classes in ConditionalBatchNorm or "
            f"Embedding layers alone. Received: {generator.name}, which doesn't"
        )
    return tables
