"""The generator of a self-attention GAN."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_sagan.checks import check_dict, check_integer
from keras_sagan.models import blocks


def build_generator(
    image_size: int = 128,
    base_filters: int = 64,
    latent_dim: int = 128,
    num_classes: int | None = None,
    attention_resolutions: Sequence[int] = (32,),
    channels: int = 3,
    use_spectral_norm: bool = True,
    spectral_norm: dict | None = None,
    attention: dict | None = None,
    batch_norm: dict | None = None,
    name: str = "generator",
) -> keras.Model:
    """Builds the residual generator of SAGAN as a functional Keras model.

    A dense layer converts the latents to a 4 x 4 map, and residual blocks double the size of the
    map up to the image size. A `SelfAttention2D` follows each map whose size is in
    `attention_resolutions`. The default generator matches the authors' code, including the number
    of parameters.

    Args:
        image_size: A power of two from 8 to 1024, in pixels.
        base_filters: Positive integer. The number of filters of each block is a multiple of this
            number (`ch` in the papers' code).
        latent_dim: Positive integer.
        num_classes: Positive integer, or `None` for an unconditional generator.
        attention_resolutions: Sizes, in pixels, of the maps with attention. `()` means no
            attention.
        channels: Positive integer, 3 for RGB images and 1 for gray images.
        use_spectral_norm: Boolean, whether kernels are spectrally normalized.
        spectral_norm: Dictionary of arguments of `SNConv2D`, such as `{"epsilon": 1e-8}`.
        attention: Dictionary of arguments of `SelfAttention2D`, such as `{"pool_size": 1}`.
        batch_norm: Dictionary of arguments of `ConditionalBatchNorm`, such as
            `{"synchronized": True}`.
        name: String, the name of the model.

    Returns:
        A `keras.Model` that maps latents `(batch, latent_dim)`, or `[latents, labels]` with labels
        of shape `(batch,)`, to images `(batch, size, size, channels)` in [-1, 1]. The images are
        float32 under every mixed-precision policy.

    Raises:
        ValueError: If an argument is out of range, or `attention_resolutions` contains a size that
            no feature map of the network has.

    Example:
    >>> generator = build_generator(32, base_filters=8, num_classes=10, attention_resolutions=(16,))
    >>> generator.output_shape
    (None, 32, 32, 3)

    Reference: [Zhang et al., 2019](https://arxiv.org/abs/1805.08318). The widths for other image
    sizes come from SNGAN (32) and BigGAN (64, 256, 512); the widths for 8, 16 and 1024 are
    extrapolated.
    """
    image_size = blocks.check_image_size(image_size)
    base_filters = check_integer("base_filters", base_filters)
    latent_dim = check_integer("latent_dim", latent_dim)
    num_classes = check_integer("num_classes", num_classes, optional=True)
    channels = check_integer("channels", channels)
    attention = check_dict("attention", attention)
    widths = [base_filters * width for width in blocks.GENERATOR_WIDTHS[image_size]]
    blocks.check_widths(widths, channels, base_filters, num_classes, latent_dim)
    sizes = [4 * 2**i for i in range(len(widths))]
    attention_resolutions = blocks.check_resolutions(attention_resolutions, sizes)
    conv, dense, _ = blocks.normalized_layers(use_spectral_norm, spectral_norm)
    norm = blocks.batch_norm(num_classes, batch_norm, momentum=0.999)
    last_norm = blocks.batch_norm(None, batch_norm, momentum=0.9999)

    latents = keras.Input((latent_dim,), name="latents")
    labels = None if num_classes is None else keras.Input((), dtype="int32", name="labels")
    x = dense(4 * 4 * widths[0], name="start")(latents)
    x = layers.Reshape((4, 4, widths[0]), name="start_map")(x)
    for size, filters in zip(sizes, widths):
        if size > 4:
            x = blocks.up_block(x, labels, filters, conv, norm, name=f"block_{size}")
        if size in attention_resolutions:
            x = blocks.self_attention(x, size, use_spectral_norm, attention)
    x = last_norm(name="last_norm")(x)
    x = layers.ReLU(name="last_relu")(x)
    x = conv(channels, 3, name="last_conv")(x)
    images = layers.Activation("tanh", dtype=blocks.at_least_float32(), name="images")(x)
    inputs = latents if labels is None else [latents, labels]
    return keras.Model(inputs, images, name=name)
