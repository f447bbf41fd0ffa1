"""Residual blocks and their layers."""

import functools

import keras
from keras import layers

from keras_sagan.checks import (
    check_boolean,
    check_choice,
    check_choices,
    check_dict,
    check_weight,
)
from keras_sagan.layers import ConditionalBatchNorm, SelfAttention2D, SNConv2D, SNDense, SNEmbedding

# Maps each image size to the channels of the blocks, divided by `base_filters`. The generator's
# first entry is for its 4 x 4 map. The channels for 8, 16 and 1024 pixels are extrapolated.
GENERATOR_WIDTHS = {
    8: (4, 4),
    16: (4, 4, 4),
    32: (4, 4, 4, 4),
    64: (16, 8, 4, 2, 1),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
    1024: (16, 16, 8, 8, 4, 2, 1, 1, 1),
}
DISCRIMINATOR_WIDTHS = {
    8: (2, 2, 2),
    16: (2, 2, 2),
    32: (2, 2, 2, 2),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
    1024: (1, 1, 1, 2, 4, 8, 8, 16, 16),
}
# Maps image sizes to the number of initial discriminator blocks, which halve the map.
NUM_DOWNSAMPLES = {8: 1, 16: 1, 32: 2, 64: 4, 128: 5, 256: 6, 512: 7, 1024: 8}
IMAGE_SIZES = tuple(GENERATOR_WIDTHS)
CHANNELS_LAST = {"data_format": "channels_last"}  # Regardless of Keras's global setting.


def check_image_size(image_size):
    """Returns the image size, or raises an error if networks can't be built for this size."""
    expected = f"one of {IMAGE_SIZES} pixels"
    return check_choice("image_size", image_size, IMAGE_SIZES, expected)


def check_widths(widths, channels, base_filters, num_classes, latent_dim=1):
    """Raises an error if a network's largest weights would not fit into memory."""
    widest = max(widths)
    check_weight((3, 3, widest, widest), base_filters=base_filters)
    check_weight((3, 3, channels, widest), channels=channels, base_filters=base_filters)
    check_weight((num_classes or 1, widest), num_classes=num_classes, base_filters=base_filters)
    check_weight((latent_dim, 16 * widths[0]), latent_dim=latent_dim, base_filters=base_filters)


def check_resolutions(attention_resolutions, available):
    """Returns the attention resolutions. Raises an error if the network has no such map size."""
    if not isinstance(attention_resolutions, (list, tuple, set)):
        raise ValueError(
            "`attention_resolutions` must be a list or tuple of map sizes in pixels, () for none. "
            f"Received: attention_resolutions={attention_resolutions!r}"
        )
    sizes = sorted(set(available))
    expected = f"among {sizes}, the map sizes of this network"
    return check_choices("attention_resolutions", attention_resolutions, sizes, expected)


def normalized_layers(use_spectral_norm, spectral_norm):
    """Returns functions that create convolution, dense and embedding layers."""
    use_spectral_norm = check_boolean("use_spectral_norm", use_spectral_norm)
    spectral_norm = check_dict("spectral_norm", spectral_norm)
    if use_spectral_norm:
        kinds, settings = (SNConv2D, SNDense, SNEmbedding), spectral_norm
    else:
        kinds, settings = (_resampling_conv, layers.Dense, layers.Embedding), {}
    conv, dense, embedding = (functools.partial(kind, **settings) for kind in kinds)
    conv = functools.partial(conv, padding="same", **CHANNELS_LAST)
    embedding = functools.partial(embedding, embeddings_initializer="glorot_uniform")
    return conv, dense, embedding


def _resampling_conv(filters, kernel_size, resample=None, name=None, **arguments):
    """Returns a function that applies a `Conv2D` and, if `resample` is given, resampling."""
    steps = [layers.Conv2D(filters, kernel_size, name=name, **arguments)]
    # A 1 x 1 convolution commutes with resampling, so compute it on the smaller map.
    if resample == "up":
        steps.insert(kernel_size == 1, layers.UpSampling2D(name=f"{name}_up", **CHANNELS_LAST))
    if resample == "down":
        steps.insert(
            kernel_size != 1, layers.AveragePooling2D(2, name=f"{name}_pool", **CHANNELS_LAST)
        )
    return lambda x: functools.reduce(lambda x, step: step(x), steps, x)


def self_attention(x, size, use_spectral_norm, attention):
    """Applies attention to a map of `size` x `size`."""
    settings = {"use_spectral_norm": use_spectral_norm, **CHANNELS_LAST, **attention}
    layer = SelfAttention2D(name=f"attention_{size}", **settings)
    if x.shape[-1] < layer.key_reduction:
        raise ValueError(
            "`base_filters` must give each map with attention at least "
            f"key_reduction={layer.key_reduction} channels; `attention` can lower `key_reduction`. "
            f"Received: {x.shape[-1]} channels at {size} pixels"
        )
    return layer(x)


def up_block(x, labels, filters, conv, norm, name):
    """Doubles the map size in a residual block: norm, ReLU, upsampling, conv, norm, ReLU, conv."""

    def normalized(x, layer):
        return layer(x) if labels is None else layer(x, labels)

    shortcut = conv(filters, 1, resample="up", name=f"{name}_shortcut")(x)
    x = normalized(x, norm(name=f"{name}_norm_1"))
    x = layers.ReLU(name=f"{name}_relu_1")(x)
    x = conv(filters, 3, resample="up", name=f"{name}_conv_1")(x)
    x = normalized(x, norm(name=f"{name}_norm_2"))
    x = layers.ReLU(name=f"{name}_relu_2")(x)
    x = conv(filters, 3, name=f"{name}_conv_2")(x)
    return layers.Add(name=f"{name}_sum")([x, shortcut])


def down_block(x, filters, conv, downsample, first, name, slope=0.0):
    """Applies a residual block without norms; the `first` block has no ReLU on its input."""
    resample = "down" if downsample else None
    shortcut = x
    if downsample or x.shape[-1] != filters:
        shortcut = conv(filters, 1, resample=resample, name=f"{name}_shortcut")(x)
    if not first:
        x = layers.ReLU(negative_slope=slope, name=f"{name}_relu_1")(x)
    x = conv(filters, 3, name=f"{name}_conv_1")(x)
    x = layers.ReLU(negative_slope=slope, name=f"{name}_relu_2")(x)
    x = conv(filters, 3, resample=resample, name=f"{name}_conv_2")(x)
    return layers.Add(name=f"{name}_sum")([x, shortcut])


def project(logits, features, labels, embedding, num_classes):
    """Adds the dot product of the features and the label's embedding to the logits."""
    dtype = at_least_float32()
    rows = embedding(num_classes, features.shape[-1], dtype=dtype, name="label_embedding")(labels)
    projection = layers.Dot(axes=1, dtype=dtype, name="projection")([features, rows])
    return layers.Add(dtype=dtype, name="conditional_logits")([logits, projection])


def batch_norm(num_classes, settings, **defaults):
    """Returns a function `(name) -> ConditionalBatchNorm`. `num_classes=None` means one class."""
    settings = {**defaults, **check_dict("batch_norm", settings)}
    return functools.partial(ConditionalBatchNorm, num_classes or 1, **settings)


def at_least_float32():
    """Returns the dtype for sums, logits and pixels: float32 if the policy uses half precision."""
    return keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")
