"""The discriminator of a self-attention GAN."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from keras_sagan.checks import check_dict, check_float, check_integer
from keras_sagan.models import blocks


def build_discriminator(
    image_size: int = 128,
    base_filters: int = 64,
    num_classes: int | None = None,
    attention_resolutions: Sequence[int] = (32,),
    channels: int = 3,
    use_spectral_norm: bool = True,
    spectral_norm: dict | None = None,
    attention: dict | None = None,
    negative_slope: float = 0.0,
    name: str = "discriminator",
) -> keras.Model:
    """Builds the residual projection discriminator of SAGAN as a functional Keras model.

    Residual blocks halve the image size repeatedly, down to 4 x 4 (8 x 8 if `image_size` is 16 or
    32). For each size in `attention_resolutions`, a `SelfAttention2D` follows the first block whose
    output has that size. The features are summed over the map, not averaged, and passed to a
    dense layer. For a model with classes, the dot product of the features and the label's embedding
    is added to the logit. The network has no batch norm.

    Args:
        image_size, base_filters, num_classes, channels, name: As in `build_generator`.
        attention_resolutions, use_spectral_norm, spectral_norm, attention: As in `build_generator`.
        negative_slope: Float in [0, 1), the slope of all ReLUs for negative inputs; 0.2 for leaky
            ReLUs. If the last ReLU returns 0 for all images, the discriminator has no gradient and
            can't recover; this can happen with the penalties `R1` and `R2`. The gradient of a leaky
            ReLU is never 0.

    Returns:
        A `keras.Model` that maps images `(batch, size, size, channels)` in [-1, 1], or
        `[images, labels]` with labels of shape `(batch,)`, to logits `(batch, 1)`. The logits are
        float32 under every mixed-precision policy.

    Raises:
        ValueError: As in `build_generator`, or if `negative_slope` is out of range.

    Example:
    >>> discriminator = build_discriminator(32, base_filters=8, attention_resolutions=(16,))
    >>> discriminator.output_shape
    (None, 1)

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318). The projection is from
    [Miyato & Koyama, 2018](https://arxiv.org/abs/1802.05637).
    """
    image_size = blocks.check_image_size(image_size)
    base_filters = check_integer("base_filters", base_filters)
    num_classes = check_integer("num_classes", num_classes, optional=True)
    channels = check_integer("channels", channels)
    attention = check_dict("attention", attention)
    slope = check_float("negative_slope", negative_slope, minimum=0, below=1)
    widths = [base_filters * width for width in blocks.DISCRIMINATOR_WIDTHS[image_size]]
    blocks.check_widths(widths, channels, base_filters, num_classes)
    num_downsamples = blocks.NUM_DOWNSAMPLES[image_size]
    sizes = [image_size // 2 ** min(i + 1, num_downsamples) for i in range(len(widths))]
    attention_resolutions = blocks.check_resolutions(attention_resolutions, sizes)
    conv, dense, embedding = blocks.normalized_layers(use_spectral_norm, spectral_norm)

    images = keras.Input((image_size, image_size, channels), name="images")
    labels = None if num_classes is None else keras.Input((), dtype="int32", name="labels")
    x = images
    for i, (size, filters) in enumerate(zip(sizes, widths)):
        has_pool, name_of_block = i < num_downsamples, f"block_{i + 1}"
        x = blocks.down_block(x, filters, conv, has_pool, i == 0, name_of_block, slope)
        if size in attention_resolutions and size not in sizes[:i]:
            x = blocks.self_attention(x, size, use_spectral_norm, attention)
    dtype = blocks.at_least_float32()
    relu = layers.ReLU(negative_slope=slope, dtype=dtype, name="last_relu")
    if not slope:  # Earlier checkpoints contain the name of this class.
        relu = layers.Activation("relu", dtype=dtype, name="last_relu")
    x = relu(x)
    features = ops.sum(x, axis=(1, 2))
    logits = dense(1, dtype=dtype, name="logits")(features)
    if labels is None:
        return keras.Model(images, logits, name=name)
    logits = blocks.project(logits, features, labels, embedding, num_classes)
    return keras.Model([images, labels], logits, name=name)
