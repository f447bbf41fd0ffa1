"""Differentiable augmentation of the input images of a discriminator."""

from collections.abc import Callable

import keras
from keras import KerasTensor, ops

from keras_sagan.checks import check_boolean, check_float, check_integer, check_string

UPDATES = 4  # An adaptive probability changes once per 4 discriminator updates, as in ADA's code.


@keras.saving.register_keras_serializable(package="keras_sagan")
class DifferentiableAugmentation(keras.layers.Layer):
    """Changes images at random, so that a discriminator doesn't overfit (DiffAugment).

    Random augmentation of all real and fake images prevents a discriminator from memorizing a small
    training set. The augmentations are differentiable: the generator's gradient passes through
    them, so the generator doesn't learn to produce augmented images. Pass the layer to
    `SAGAN.compile` as `augmentation`, or make it the first layer of any discriminator. The
    augmentations are sampled separately for each image:

    - `color`: brightness `x + U(-0.5, 0.5)`, then saturation `mean + (x - mean) * U(0, 2)` around
      the mean of the channels, then contrast `mean + (x - mean) * U(0.5, 1.5)` around the mean of
      the image;
    - `translation`: a shift by up to 1/8 of the height and width;
    - `cutout`: a box of half the height and width, centered anywhere in the image, is erased.

    As in the authors' code, the sizes of shifts and boxes are rounded to whole pixels (half a pixel
    up), and `color` may produce values outside [-1, 1].

    Args:
        policy: String, a comma-separated list of augmentations, which are applied in this order.
        flip: Boolean, whether to first flip half of the images horizontally (the authors' code does
            this in the dataset).
        probability: Float in [0, 1], the share of images that are changed. `SAGAN.compile` also
            allows `"adaptive"` (ADA): the probability starts at 0, rises while the mean of
            `sign(real logit - threshold of the loss)` is above `target`, and falls while this mean
            is below `target`. With a relativistic loss, the threshold is the mean of the fake
            logits.
        target: Float in [-1, 1], the mean of the signs (see `probability`) at which an adaptive
            probability stays constant. With a higher target, fewer images are changed.
        speed: Positive integer, the smallest number of real images after which an adaptive
            probability can have risen from 0 to 1.
        fill: Float in [-1, 1], the value of the pixels that `translation` and `cutout` empty. The
            default, as in the authors' code, is gray. If real images have a plain background, use
            its value, such as 1 for white: a generator may copy areas of another color.

    Call arguments:
        images: Float tensor of shape `(batch, height, width, channels)`, with any number of
            channels. The height and width can't be `None`.
        uniform: Function `uniform(columns)` that returns random float32 numbers in [0, 1) of shape
            `(batch, columns)`; `SAGAN` passes this function. By default, the layer's
            `seed_generator` is used.
        training: Boolean, whether to change the images; ignored if `uniform` is given.

    Returns:
        Tensor with the same shape and dtype as `images`, computed in at least float32. Unaffected
        pixels keep their exact values.

    State:
        `seed_generator`, which is used unless `uniform` is given.

    Raises:
        ValueError: If the policy is unknown or empty, a number is out of range, images aren't
            floats of rank 4, or an adaptive probability is used outside `SAGAN.compile` or with a
            loss that has no threshold.

    Example:
    >>> import numpy as np
    >>> layer = DifferentiableAugmentation("translation,cutout")
    >>> images = np.ones((2, 8, 8, 3), "float32")
    >>> np.unique(layer(images, training=True)).tolist()
    [0.0, 1.0]

    Reference: [Zhao et al., 2020](https://arxiv.org/abs/2006.10738); for the adaptive probability,
    [Karras et al., 2020](https://arxiv.org/abs/2006.06676), section 3.1.
    """

    def __init__(
        self,
        policy: str = "color,translation,cutout",
        flip: bool = False,
        probability: float | str = 1.0,
        target: float = 0.6,
        speed: int = 500_000,
        fill: float = 0.0,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.policy = check_string("policy", policy)
        self.flip = check_boolean("flip", flip)
        if not (isinstance(probability, str) and probability == "adaptive"):
            probability = _checked_probability(probability)
        self.probability = probability
        self.target = check_float("target", target, -1, 1)
        self.speed = check_integer("speed", speed)
        self.fill = check_float("fill", fill, -1, 1)
        names = [name.strip() for name in policy.split(",")] if policy else []
        if not set(names) <= set(POLICIES) or not (names or flip):
            raise ValueError(
                f"`policy` must be names among {', '.join(POLICIES)}, separated by commas; it may "
                f'be "" with flip=True. Received: policy={policy!r}, flip={flip}'
            )
        self._changes = [_flip] * self.flip + [POLICIES[name] for name in names]

    def build(self, input_shape: tuple) -> None:
        self.seed_generator = keras.random.SeedGenerator()

    def __call__(self, images: KerasTensor, uniform: Callable | None = None, **kwargs):
        if uniform is None:
            return super().__call__(images, **kwargs)
        return self._change(images, uniform)  # Skip `build`, which fails while a step is compiled.

    def bind(self, add_variable: Callable, loss: tuple) -> Callable:
        """Returns the function that `SAGAN` calls: the layer, or an `AdaptiveAugmentation`."""
        is_adaptive = self.probability == "adaptive"
        return AdaptiveAugmentation(self, add_variable, loss) if is_adaptive else self

    def call(self, images: KerasTensor, training: bool = False) -> KerasTensor:
        def uniform(columns):
            shape = ops.shape(images)[0], columns
            return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

        return self._change(images, uniform) if training else images

    def _change(self, images: KerasTensor, uniform: Callable, probability: KerasTensor = None):
        probability = self.probability if probability is None else probability
        if isinstance(probability, str):
            raise ValueError(
                "`probability` must be a number unless the layer is the `augmentation` of "
                '`SAGAN.compile`. Received: probability="adaptive"'
            )
        shape, dtype = tuple(images.shape), keras.backend.standardize_dtype(images.dtype)
        if len(shape) != 4 or None in shape[1:] or "float" not in dtype:
            raise ValueError(
                "`images` must be floats of shape (batch, height, width, channels). "
                f"Received: images of shape {shape} and dtype {dtype}"
            )
        if shape[0] == 0:  # On PyTorch, `take` fails for an empty batch.
            return images
        wide = keras.backend.result_type(dtype, "float32")
        given = images = ops.cast(images, wide)
        for change in self._changes:
            images = change(images, lambda columns: ops.cast(uniform(columns), wide), self.fill)
        if not isinstance(probability, float) or probability < 1.0:
            is_changed = uniform(1)[:, :, None, None] < probability
            images = ops.where(is_changed, images, given)
        return ops.cast(images, dtype)

    def get_config(self) -> dict:
        names = ("policy", "flip", "probability", "target", "speed", "fill")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class AdaptiveAugmentation:
    """An adaptive `DifferentiableAugmentation` (ADA); see `keras_sagan.training.slots`."""

    def __init__(self, layer, add_variable, loss):
        self.layer, self.threshold = layer, loss.threshold
        if self.threshold is None and not loss.uses_real_logits:
            raise ValueError(
                '`augmentation` with probability="adaptive" needs a loss with a threshold between '
                "real and fake logits, or a relativistic loss. Received: loss with the "
                f"generator's function {getattr(loss.generator, '__name__', loss.generator)}"
            )
        names = ("augmentation_probability", "sum_of_signs", "num_signs")
        self.state = [add_variable(name) for name in names]
        self.logged = {names[0]: self.state[0]}

    def __call__(self, images, uniform):
        return self.layer._change(images, uniform, self.state[0].value)

    def moved(self, real_logits, fake_logits, num_images, mean):
        """Returns the new state; the probability changes once every `UPDATES` updates."""
        probability, signs, seen = (x.value for x in self.state)
        threshold = mean(fake_logits) if self.threshold is None else self.threshold
        signs = signs + num_images * mean(ops.sign(real_logits - threshold))
        seen = seen + num_images
        is_time = seen >= UPDATES * num_images
        step = ops.sign(signs / seen - self.layer.target) * seen / self.layer.speed
        moved = ops.clip(probability + step, 0.0, 1.0)
        values = (moved, probability), (0.0, signs), (0.0, seen)
        return [ops.where(is_time, new, old) for new, old in values]


def _checked_probability(probability):
    try:
        return check_float("probability", probability, 0, 1)
    except ValueError as error:
        raise ValueError(
            '`probability` must be a number in [0, 1] or "adaptive". '
            f"Received: probability={probability!r}"
        ) from error


def _flip(images, uniform, fill):
    is_flipped = uniform(1)[:, :, None, None] < 0.5
    return ops.where(is_flipped, ops.flip(images, axis=2), images)


def _color(images, uniform, fill):
    brightness, saturation, contrast = ops.split(uniform(3)[:, :, None, None], 3, axis=1)
    images = images + (brightness - 0.5)
    mean = ops.mean(images, axis=3, keepdims=True)
    images = (images - mean) * (2.0 * saturation) + mean
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * (contrast + 0.5) + mean


def _translation(images, uniform, fill):
    draws = uniform(2)
    for axis in (1, 2):
        size = images.shape[axis]
        most = (size + 4) // 8  # Rounded.
        start = ops.floor(draws[:, axis - 1 : axis] * (2 * most + 1))
        padding = [(most, most) if i == axis else (0, 0) for i in range(4)]
        places = ops.cast(start, "int32") + ops.arange(size, dtype="int32")
        images = _take(ops.pad(images, padding, constant_values=fill), places, axis)
    return images


def _cutout(images, uniform, fill):
    draws, inside = uniform(2), []
    for column, size in enumerate(images.shape[1:3]):
        side = (size + 1) // 2
        # The center of a box with an even side lies between two pixels, or on the image border.
        center = ops.floor(draws[:, column] * (size + 1 - side % 2))[:, None]
        row = ops.arange(size, dtype=images.dtype) - (center - side // 2)
        inside.append(ops.logical_and(row >= 0, row < side))
    is_cut = ops.logical_and(inside[0][:, :, None, None], inside[1][:, None, :, None])
    return ops.where(is_cut, ops.cast(fill, images.dtype), images)


def _take(images, indices, axis):
    """Takes rows or columns at `indices` of shape `(batch, size)`, separately for each image."""
    return ops.vectorized_map(lambda x: ops.take(x[0], x[1], axis=axis - 1), (images, indices))


POLICIES = {"color": _color, "translation": _translation, "cutout": _cutout}
