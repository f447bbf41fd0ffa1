"""Sets in which distant parts of an image must agree, with scores that no network judges.

`pairs` draws three pairs of squares of one color, whose centers are 8, 16 and 24 pixels apart.
`figures` draws cells of random colors that equal their mirror images. Both are scored in the same
way: `agreement` compares the mean colors of two places. Images are uint8 with values from 64 to
192. In pilots with 0 and 255, the discriminator won by the saturated values.
"""

import numpy as np

SIZE = 32
PATCH = 8
DARK, LIGHT = 64, 192
# Row and column of the first pixel of the left and the right square of each pair, by the distance
# between their centers.
PAIR_PLACES = {8: ((12, 8), (12, 16)), 16: ((24, 4), (24, 20)), 24: ((0, 0), (0, 24))}
# The cells of a figure and their mirror images; the key is the distance between their centers.
FIGURE_PLACES = {
    d: [((row, 12 - d // 2), (row, 12 + d // 2)) for row in range(0, SIZE, PATCH)] for d in (8, 24)
}


def pairs(num_images, seed):
    """Returns images with three pairs of squares; each pair has a random color of its own."""
    images = np.full((num_images, SIZE, SIZE, 3), (DARK + LIGHT) // 2, "uint8")
    for places, color in zip(PAIR_PLACES.values(), colors(num_images, len(PAIR_PLACES), seed)):
        for row, column in places:
            images[:, row : row + PATCH, column : column + PATCH] = color[:, None, None]
    return images


def figures(num_images, seed):
    """Returns images of 4 x 4 cells of random colors, equal to their mirror images."""
    left = colors(num_images, 8, seed).reshape(4, 2, num_images, 3).transpose(2, 0, 1, 3)
    cells = np.concatenate([left, left[:, :, ::-1]], axis=2)
    return cells.repeat(PATCH, axis=1).repeat(PATCH, axis=2)


def colors(num_images, count, seed):
    """Returns uniformly random colors of shape `(count, num_images, 3)`."""
    return np.random.default_rng(seed).integers(DARK, LIGHT + 1, (count, num_images, 3), "uint8")


def read(images, place):
    """Returns the mean color of the inner 4 x 4 pixels of a place, of shape `(num_images, 3)`."""
    row, column = place[0] + 2, place[1] + 2
    return np.mean(images[:, row : row + 4, column : column + 4], axis=(1, 2))


def agreement(left, right):
    """Scores the colors of one place against those of the place that must agree.

    The score is the concordance correlation coefficient, `2 cov / (var + var + (mean - mean)^2)`,
    with sums over the color channels. It is 1 if all colors are equal, and 0 if left and right are
    independent, or if one of them is always the same.

    Args:
        left, right: Arrays of shape `(num_images, channels)`.

    Returns:
        Dictionary: `agreement`, and `spread`, the standard deviations of left and right, divided by
        the one of the training images. A spread near 0 means that the model has collapsed.

    Reference: Lin, 1989, "A concordance correlation coefficient to evaluate reproducibility".
    """
    means, variances = zip(*((x.mean(axis=0), x.var(axis=0).sum()) for x in (left, right)))
    covariance = np.sum(np.mean((left - means[0]) * (right - means[1]), axis=0))
    below = sum(variances) + np.sum((means[0] - means[1]) ** 2)
    # Of integers from DARK to LIGHT, for each of the channels.
    expected = left.shape[1] * ((LIGHT - DARK + 1) ** 2 - 1) / 12
    return {
        "agreement": float(2 * covariance / below) if below else 0.0,
        "spread": [round(float(np.sqrt(x / expected)), 3) for x in variances],
    }


def score_pairs(images):
    """Returns the `agreement` of the pair of each distance."""
    return {
        str(distance): agreement(*(read(images, place) for place in places))
        for distance, places in PAIR_PLACES.items()
    }


def score_figures(images):
    """Returns the `agreement` of cells and their mirror images, the mean of four rows."""
    found = {}
    for distance, places in FIGURE_PLACES.items():
        rows = [agreement(*(read(images, place) for place in pair)) for pair in places]
        found[str(distance)] = {
            key: np.mean([row[key] for row in rows], axis=0).round(4).tolist() for key in rows[0]
        }
    return found


def asymmetry(images):
    """Returns the mean difference between images and their mirror images, by that of strangers.

    The mean absolute difference between an image and its mirror image is divided by the one between
    an image and the mirror image of the next image: 0 for symmetric images, and 1 if an image is no
    more like its own mirror image than like another's.
    """
    images = np.asarray(images, "float64")
    mirrored = images[:, :, ::-1]
    others = np.mean(np.abs(images - np.roll(mirrored, 1, axis=0)))
    return float(np.mean(np.abs(images - mirrored)) / others) if others else 1.0
