"""Networks of 8 x 8 pixels that train in no time, and images and labels for them."""

import keras
import numpy as np
from keras import layers

from keras_sagan.layers import (
    ConditionalBatchNorm,
    SelfAttention2D,
    SNConv2D,
    SNDense,
    SNEmbedding,
)
from keras_sagan.models import SAGAN

SHAPE = (8, 8, 2)
LATENT_DIM = 3
CLASSES = 5


def build_generator(num_classes=CLASSES, on_call=None, gamma=0.5, smooth=False):
    """Every layer of SAGAN's generator once. `on_call(latents, labels)` sees each eager call.

    `smooth=True` has no kinks, at which a difference of rounding becomes one of the gradient. Its
    swish is computed in float32: JAX rounds its gradient after each operation.
    """
    latents, x = 2 * [keras.Input((LATENT_DIM,), name="latents")]
    labels = None if num_classes is None else keras.Input((), dtype="int32", name="labels")
    ids = labels
    if on_call is not None:
        x, ids = _spy(on_call, x, ids)
    x = SNDense(4 * 4 * 8, name="start")(x)
    x = layers.Reshape((4, 4, 8))(x)
    norm = ConditionalBatchNorm(num_classes or 1, momentum=0.9, name="norm")
    x = norm(x) if ids is None else norm(x, ids)
    x = layers.Activation("swish", dtype="float32")(x) if smooth else layers.ReLU()(x)
    x = layers.UpSampling2D()(x)
    x = attention(x, gamma, pool_size=1 if smooth else 2)
    x = SNConv2D(SHAPE[-1], 3, padding="same", name="last")(x)
    images = layers.Activation("tanh", dtype="float32")(x)
    return keras.Model(latents if labels is None else [latents, labels], images, name="generator")


def build_discriminator(num_classes=CLASSES, on_call=None, gamma=0.5, smooth=False):
    """Every layer of SAGAN's discriminator once."""
    images, x = 2 * [keras.Input(SHAPE, name="images")]
    labels = None if num_classes is None else keras.Input((), dtype="int32", name="labels")
    ids = labels
    if on_call is not None:
        x, ids = _spy(on_call, x, ids)
    x = SNConv2D(8, 3, padding="same", name="first")(x)
    x = layers.Activation("swish", dtype="float32")(x) if smooth else layers.ReLU()(x)
    x = attention(x, gamma, pool_size=1 if smooth else 2)
    features = keras.ops.sum(x, axis=(1, 2))
    logits = SNDense(1, name="logits", dtype="float32")(features)
    if labels is None:
        return keras.Model(images, logits, name="discriminator")
    rows = SNEmbedding(num_classes, 8, name="rows")(ids)
    logits = layers.Add(dtype="float32")([logits, layers.Dot(axes=1)([features, rows])])
    return keras.Model([images, labels], logits, name="discriminator")


def _spy(on_call, x, ids):
    return Spy(on_call)(x, ids) if ids is not None else (Spy(on_call)(x), None)


def attention(x, gamma, pool_size=2):
    key_reduction = min(4, x.shape[-1])
    layer = SelfAttention2D(key_reduction=key_reduction, pool_size=pool_size, name="attention")
    x = layer(x)
    layer.gamma.assign(gamma)  # At 0 it would hide what the attention does.
    return x


def build_sagan(
    num_classes=CLASSES, on_generator=None, on_discriminator=None, smooth=False, **kwargs
):
    kwargs = {"seed": 7, **kwargs}
    return SAGAN(
        build_generator(num_classes, on_generator, smooth=smooth),
        build_discriminator(num_classes, on_discriminator, smooth=smooth),
        LATENT_DIM,
        num_classes,
        **kwargs,
    )


def build_small_sagan(num_classes=CLASSES, has_attention=False, **kwargs):
    """The least that has labels and every kind of state; a step is ten times as fast."""
    latents, images = keras.Input((LATENT_DIM,)), keras.Input(SHAPE)
    labels = None if num_classes is None else keras.Input((), dtype="int32")
    x = layers.Reshape(SHAPE)(SNDense(int(np.prod(SHAPE)))(latents))
    norm = ConditionalBatchNorm(num_classes or 1, momentum=0.9)
    x = norm(x) if labels is None else norm(x, labels)
    x = layers.Activation("tanh")(attention(x, 0.5) if has_attention else x)
    logits = layers.Flatten()(images)
    inputs = [latents], [images]
    if labels is not None:
        rows = SNEmbedding(num_classes, 4)(labels)
        logits = layers.Concatenate()([logits, rows])
        inputs = [latents, labels], [images, labels]
    logits = SNDense(1, dtype="float32")(logits)
    networks = keras.Model(inputs[0], x), keras.Model(inputs[1], logits)
    return SAGAN(*networks, LATENT_DIM, num_classes, **{"seed": 7, **kwargs})


def build_sagan_of_pictures(channels=1, latent_dim=4, **kwargs):
    """32 pixels and ten classes, as of Fashion-MNIST, by as little as all functions ask for."""
    labels = keras.Input((), dtype="int32")
    latents, x = 2 * [keras.Input((latent_dim,))]
    x = layers.Reshape((8, 8, 8))(layers.Dense(512)(x))
    x = ConditionalBatchNorm(10)(x, labels)
    x = SelfAttention2D(name="self_attention")(x)
    x = layers.Conv2DTranspose(channels, 4, 4, activation="tanh")(x)
    generator = keras.Model([latents, labels], x, name="generator")
    images, x = 2 * [keras.Input((32, 32, channels))]
    x = SNConv2D(8, 4, strides=4)(x)
    x = layers.Flatten()(SelfAttention2D(name="self_attention")(x))
    x = SNDense(1)(layers.Concatenate()([x, layers.Embedding(10, 4)(labels)]))
    discriminator = keras.Model([images, labels], x, name="discriminator")
    kwargs = {"seed": 0, "ema_momentum": 0.9, **kwargs}
    return SAGAN(generator, discriminator, latent_dim, 10, **kwargs)


def sgd(learning_rate=0.02):
    """Two optimisers, where a wrong factor in a gradient can't hide."""
    return {
        "g_optimizer": keras.optimizers.SGD(learning_rate),
        "d_optimizer": keras.optimizers.SGD(2.0 * learning_rate),
    }


def images(count, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, *SHAPE)).astype("float32")


def labels(count, seed=0):
    return np.random.default_rng(seed).integers(0, CLASSES, count).astype("int32")


def weights(model):
    return [keras.ops.convert_to_numpy(x).copy() for x in model.weights]


class Spy(layers.Layer):
    """Passes its inputs through and shows them to a function, where they are computed eagerly."""

    def __init__(self, on_call, **kwargs):
        super().__init__(**kwargs)
        self.on_call = on_call

    def call(self, x, labels=None):
        if hasattr(x, "numpy"):
            self.on_call(x.numpy(), None if labels is None else labels.numpy())
        return x if labels is None else (x, labels)
