"""Which pixels a position of a discriminator's last map depends on, without attention.

`by_formula` follows the blocks of `keras_sagan.models.discriminator` back to the image, and
`by_gradient` asks a network. Both return the first and the last pixel of each position along one
axis; the networks are the same along both.
"""

import numpy as np


def by_formula(num_blocks, image_size=32, num_downsamples=2):
    """Returns a list of `(first, last)` pixels, one pair per position of the last map."""
    found = []
    for index in range(image_size // 2**num_downsamples):
        first = last = index
        for block in reversed(range(num_blocks)):
            if block < num_downsamples:
                first, last = 2 * first, 2 * last + 1
            size = image_size // 2 ** min(block, num_downsamples)
            first, last = max(first - 2, 0), min(last + 2, size - 1)  # Two 3 x 3 convolutions.
        found.append((first, last))
    return found


def by_gradient(discriminator, layer="last_relu", num_images=8):
    """Returns the same list from the gradients of a network's map with respect to random images."""
    import keras
    import tensorflow as tf

    network = keras.Model(discriminator.inputs[0], discriminator.get_layer(layer).output)
    shape = (num_images, *discriminator.inputs[0].shape[1:])
    images = tf.constant(np.random.default_rng(0).normal(size=shape).astype("float32"))
    found = []
    for index in range(network.output_shape[1]):
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = tf.reduce_sum(network(images)[:, index, index] ** 2)
        gradient = np.abs(tape.gradient(value, images)).sum(axis=(0, 1, 3))
        columns = np.flatnonzero(gradient)
        found.append((int(columns[0]), int(columns[-1])))
    return found


def seen_together(intervals, distance, patch=8, image_size=32):
    """Returns the share of two patches that one position sees, of the less visible patch.

    It is the largest such share over all positions: 1 if a position sees both patches completely,
    and 0 if no position sees a pixel of each.
    """
    middle = image_size // 2
    starts = [middle - patch // 2 + side * distance // 2 for side in (-1, 1)]
    return max(
        min(
            max(0, min(last, start + patch - 1) - max(first, start) + 1) / patch for start in starts
        )
        for first, last in intervals
    )
