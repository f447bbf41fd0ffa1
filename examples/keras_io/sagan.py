"""
Title: Self-Attention GAN (SAGAN)
Author: The keras_sagan authors
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Train a class-conditional GAN with self-attention and look at where it attends.
Accelerator: GPU
"""

"""
## Introduction

A convolution sees a few pixels around each location. A generator made of convolutions alone draws
good textures, but it has trouble with structure: the two sleeves of a shirt are further apart than
any of its kernels reach. The Self-Attention GAN
([Zhang et al., 2019](https://arxiv.org/abs/1805.08318)) adds one layer in which every location
looks at all the others. It stabilizes training by three further means:

- **Spectral normalization** in both networks divides each kernel `W` by its largest singular value
  `sigma(W)`, which bounds how fast the output can change.
- **The hinge loss** stops rewarding the discriminator for logits beyond the margin of 1.
- **Two learning rates** (TTUR) let the discriminator learn faster than the generator.

In this example we build both networks from the layers of `keras_sagan`, train them with
`model.fit()` on Fashion-MNIST, measure the Fréchet distance, and draw the attention maps. The code
runs unchanged on TensorFlow, JAX and PyTorch.
"""

"""
## Setup

Install the package from a clone of its repository: `pip install ".[all]"`. Set `KERAS_BACKEND` to
`"tensorflow"`, `"jax"` or `"torch"` before you import Keras.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers, ops

from keras_sagan import (
    SAGAN,
    ConditionalBatchNorm,
    FrechetInceptionDistance,
    SelfAttention2D,
    SNConv2D,
    SNDense,
    SNEmbedding,
)
from keras_sagan.callbacks import AttentionMonitor
from keras_sagan.data import FASHION_MNIST_CLASSES, load_fashion_mnist, make_dataset, pad_to_32
from keras_sagan.metrics import GreyClassifierFeatures
from keras_sagan.visualization import plot_attention, sample_grid

EPOCHS = 6
BATCH_SIZE = 64
LATENT_DIM = 64
NUM_CLASSES = 10
FILTERS = 16
NUM_FID_IMAGES = 5000

keras.utils.set_random_seed(0)

"""
## Prepare the data

The package ships the 10,000 test images of Fashion-MNIST. We pad them from 28 to 32 pixels, so that
they can be halved five times. `make_dataset` shuffles them, batches them and scales them to
[-1, 1], and repeats without end: an epoch is as many steps as we say. It returns a
`tf.data.Dataset`, or a `keras.utils.PyDataset` where TensorFlow isn't the backend.
"""

images, labels = load_fashion_mnist()
images = pad_to_32(images)
dataset = make_dataset(images, labels, batch_size=BATCH_SIZE)
steps_per_epoch = len(images) // BATCH_SIZE
print(f"{len(images)} images of shape {images.shape[1:]}, {steps_per_epoch} steps per epoch")

"""
## How self-attention works

The layer reshapes a feature map of `height * width` locations to a list of vectors `x`, and
projects each to a query, a key and a value. In formulas, with one 1 x 1 convolution `W` for each:

```
query, key, value = W_query x, W_key x, W_value x
attention_scores  = softmax(query keyᵀ)          # (locations, locations), each row sums to 1
output            = x + gamma * W_output (attention_scores value)
```

`gamma` is a trained scalar that starts at 0: the layer is the identity at first, so the network
learns local structure before it learns to look further away. To keep the cost low, queries and keys
have an eighth of the channels, and keys and values are max-pooled to a quarter of the locations.

Let us check the identity, and the sum of each row:
"""

layer = SelfAttention2D()
features = np.random.default_rng(0).normal(size=(1, 16, 16, 32)).astype("float32")
output, scores = layer(features, return_attention_scores=True)
scores = ops.convert_to_numpy(scores)  # (batch, queries, keys)
print("The output equals the input:", np.allclose(ops.convert_to_numpy(output), features))
print(f"Scores of shape {scores.shape}; those of one query sum to {scores[0, 0].sum():.4f}")

"""
## The generator

Each residual block doubles the size of the map. `ConditionalBatchNorm` has a scale and an offset
for each class, which is how the generator learns what a class looks like. The attention layer works
on the 16 x 16 map: large enough to hold parts of a garment, small enough to be cheap.
"""


def upsampling_block(x, labels, filters):
    shortcut = SNConv2D(filters, 1)(layers.UpSampling2D()(x))
    x = layers.ReLU()(ConditionalBatchNorm(NUM_CLASSES, momentum=0.99)(x, labels))
    x = SNConv2D(filters, 3, padding="same")(layers.UpSampling2D()(x))
    x = layers.ReLU()(ConditionalBatchNorm(NUM_CLASSES, momentum=0.99)(x, labels))
    x = SNConv2D(filters, 3, padding="same")(x)
    return layers.Add()([x, shortcut])


def build_generator():
    latents = keras.Input((LATENT_DIM,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels")
    x = SNDense(4 * 4 * 4 * FILTERS)(latents)
    x = layers.Reshape((4, 4, 4 * FILTERS))(x)
    x = upsampling_block(x, labels, 4 * FILTERS)
    x = upsampling_block(x, labels, 2 * FILTERS)
    x = SelfAttention2D(name="attention_16")(x)
    x = upsampling_block(x, labels, FILTERS)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.99)(x))
    images = SNConv2D(1, 3, padding="same", activation="tanh")(x)
    return keras.Model([latents, labels], images, name="generator")


"""
## The discriminator

It mirrors the generator. The last line is the projection of
[Miyato & Koyama, 2018](https://arxiv.org/abs/1802.05637): the logit is a linear function of the
features, plus their inner product with a vector that is learned for each class.
"""


def downsampling_block(x, filters):
    shortcut = layers.AveragePooling2D(2)(SNConv2D(filters, 1)(x))
    x = SNConv2D(filters, 3, padding="same")(layers.ReLU()(x))
    x = SNConv2D(filters, 3, padding="same")(layers.ReLU()(x))
    return layers.Add()([layers.AveragePooling2D(2)(x), shortcut])


def build_discriminator():
    images = keras.Input((32, 32, 1), name="images")
    labels = keras.Input((), dtype="int32", name="labels")
    x = downsampling_block(images, FILTERS)
    x = SelfAttention2D(name="attention_16")(x)
    x = downsampling_block(x, 2 * FILTERS)
    x = downsampling_block(x, 4 * FILTERS)
    features = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    projection = layers.Dot(axes=1)([features, SNEmbedding(NUM_CLASSES, 4 * FILTERS)(labels)])
    logits = layers.Add()([SNDense(1)(features), projection])
    return keras.Model([images, labels], logits, name="discriminator")


"""
## Compile and train

`SAGAN` is a `keras.Model` whose `train_step` trains the discriminator `d_steps` times and then the
generator once, on the hinge loss:

```
d_loss = mean(relu(1 - real_logits)) + mean(relu(1 + fake_logits))
g_loss = -mean(fake_logits)
```

It also keeps an exponential moving average of the generator, which draws better images than the
generator itself. `AttentionMonitor` logs each layer's `gamma`.
"""

model = SAGAN(
    build_generator(),
    build_discriminator(),
    latent_dim=LATENT_DIM,
    num_classes=NUM_CLASSES,
    d_steps=2,
    ema_momentum=0.99,
)
model.compile(
    g_optimizer=keras.optimizers.Adam(4e-4, beta_1=0.0, beta_2=0.99),
    d_optimizer=keras.optimizers.Adam(4e-4, beta_1=0.0, beta_2=0.99),
    loss="hinge",
)
model.fit(
    dataset,
    epochs=EPOCHS,
    steps_per_epoch=steps_per_epoch,
    callbacks=[AttentionMonitor()],
    verbose=2,
)

"""
## Look at the images

One row per class, drawn from the averaged generator. The same seed draws the same images.
"""

rows = np.repeat(np.arange(NUM_CLASSES), 8)
samples = model.generate(len(rows), labels=rows, seed=0)  # uint8 in [0, 255]
grid = sample_grid(samples, row_labels=FASHION_MNIST_CLASSES)
plt.figure(figsize=(8, 8))
plt.imshow(grid)
plt.axis("off")
plt.show()

"""
## Measure the distance

The Fréchet distance compares the features of real and generated images. Inception was trained on
color photographs; for small grey images the package has a classifier of its own. Its distances can
be compared with each other, not with distances from Inception.
"""

metric = FrechetInceptionDistance(GreyClassifierFeatures(), batch_size=250)
metric.update_state(images[:NUM_FID_IMAGES], real=True)
metric.update_state(model.generate(NUM_FID_IMAGES, seed=1), real=False)
print(f"Fréchet distance of {NUM_FID_IMAGES} images: {float(metric.result()):.1f}")

"""
## Look at the attention

For each colored point, the map shows where the generator looks when it draws that location. The
figure is also written to a file.
"""

latents = np.random.default_rng(1).normal(size=(4, LATENT_DIM)).astype("float32")
drawn, scores = model.attention_maps(latents, labels=[0, 3, 7, 8])
names = [FASHION_MNIST_CLASSES[label] for label in (0, 3, 7, 8)]
plot_attention(drawn, scores["attention_16"], row_labels=names, path="attention.png")

"""
## Where to go next

- `SAGAN.from_preset("sagan_imagenet_128")` builds the networks of the paper.
- `TFGANInception` in place of `GreyClassifierFeatures` measures the FID of color images.
- `TrainingCheckpoint` resumes a run exactly where it was interrupted, on any backend.
- `SelfAttention2D` and `SNConv2D` are ordinary layers: put them into a GAN that you already have.
"""
