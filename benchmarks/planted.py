"""Sets in which distant parts of an image must agree, with scores that no network judges.

`pairs` draws pairs of patches of one shape and one color, whose centers are 8, 16 and 24 pixels
apart.
`figures` draws patterns of cells that are equal to their mirror images. Both sets are scored in the
same way: `read` finds the nearest template of each patch, and `agreement` counts equal patches.
Images are uint8, with the values 64 and 192.
"""

import itertools

import numpy as np

SIZE = 32
PATCH = 8
SHIFT = 2  # A generated patch may be so many pixels off its place.
# Not 0 and 255: with these, D can tell images apart by their saturation, and in pilots G collapsed.
DARK, LIGHT = np.uint8(64), np.uint8(192)
COLORS = np.where([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], LIGHT, DARK)
RING = np.pad(np.zeros((4, 4), "uint8"), 2, constant_values=1)
PLUS = np.pad(np.ones((8, 4), "uint8"), ((0, 0), (2, 2)))
PLUS = np.maximum(PLUS, PLUS.T)
SHAPES = np.stack([RING, PLUS])
# Kind `4 * shape + color` of a patch of a pair; kind 0 of a cell of a figure is dark.
PATCHES = np.where(SHAPES[:, None, :, :, None], COLORS[:, None, None], DARK)
PATCHES = PATCHES.reshape(-1, PATCH, PATCH, 3)
CELLS = np.vstack([np.full(3, DARK), COLORS])[:, None, None].repeat(PATCH, 1).repeat(PATCH, 2)
# Row and column of the first pixel of the left and the right patch of each pair, by the distance
# between their centers.
PAIR_PLACES = {8: ((12, 8), (12, 16)), 16: ((24, 4), (24, 20)), 24: ((0, 0), (0, 24))}
# The cells of a figure and their mirror images; the key is the distance between their centers.
FIGURE_PLACES = {
    d: [((row, 12 - d // 2), (row, 12 + d // 2)) for row in range(0, SIZE, PATCH)] for d in (8, 24)
}


def pairs(num_images, seed):
    """Returns images with three pairs of equal patches, drawn independently of each other."""
    generator = np.random.default_rng(seed)
    images = np.full((num_images, SIZE, SIZE, 3), DARK)
    for places in PAIR_PLACES.values():
        patches = PATCHES[generator.integers(0, len(PATCHES), num_images)]
        for row, column in places:
            images[:, row : row + PATCH, column : column + PATCH] = patches
    return images


def figures(num_images, seed):
    """Returns images of 4 x 4 cells of one color or dark, equal to their mirror images."""
    generator = np.random.default_rng(seed)
    left = generator.integers(0, 2, (num_images, 4, 2), "uint8")
    cells = np.concatenate([left, left[:, :, ::-1]], axis=2)
    colors = COLORS[generator.integers(0, len(COLORS), num_images)]
    cells = np.where(cells[..., None], colors[:, None, None], DARK)
    return cells.repeat(PATCH, axis=1).repeat(PATCH, axis=2)


def read(images, place, templates):
    """Returns the index of the template nearest to each patch, and whether the patch is valid.

    The patch may be up to `SHIFT` pixels off its place. It is valid if its distance to the template
    is less than half of the smallest distance between two templates, so no other template can be as
    near.
    """
    known = np.asarray(templates, "float32").reshape(len(templates), -1)
    between = np.linalg.norm(known[:, None] - known, axis=-1)
    limit = between[~np.eye(len(known), dtype=bool)].min() / 2
    edges = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    padded = np.pad(np.asarray(images, "float32"), edges, constant_values=DARK)
    nearest = np.full((len(known), len(images)), np.inf)
    for row, column in itertools.product(range(2 * SHIFT + 1), repeat=2):
        row, column = row + place[0], column + place[1]
        flat = padded[:, row : row + PATCH, column : column + PATCH].reshape(len(images), -1)
        distances = [np.linalg.norm(flat - template, axis=1) for template in known]
        nearest = np.minimum(nearest, distances)
    return nearest.argmin(axis=0), nearest.min(axis=0) < limit


def agreement(left, right, num_kinds):
    """Scores the patches of one place against those of the place that must agree.

    Args:
        left, right: Pairs of kinds and of whether they are valid, as returned by `read`.
        num_kinds: Integer.

    Returns:
        Dictionary: `valid`, the share of images with two valid patches, and among those
        `agreement`, the share with two equal patches; `chance`, that share if left and right were
        drawn independently with the same frequencies; `kappa`, the agreement beyond chance from 0
        to 1 (Cohen's kappa; 0 if all patches are of one kind); `left` and `right`, the frequencies
        of the kinds.
    """
    (left, left_valid), (right, right_valid) = left, right
    valid = left_valid & right_valid
    left, right = left[valid], right[valid]
    count = max(len(left), 1)
    shares = [np.bincount(x, minlength=num_kinds) / count for x in (left, right)]
    share, chance = float(np.mean(left == right)) if len(left) else 0.0, float(np.dot(*shares))
    return {
        "valid": float(np.mean(valid)),
        "agreement": share,
        "chance": chance,
        "kappa": (share - chance) / (1 - chance) if chance < 1 else 0.0,
        "left": shares[0].round(3).tolist(),
        "right": shares[1].round(3).tolist(),
    }


def score_pairs(images):
    """Returns the `agreement` of the pair of each distance."""
    found = {}
    for distance, places in PAIR_PLACES.items():
        left, right = (read(images, place, PATCHES) for place in places)
        found[str(distance)] = agreement(left, right, len(PATCHES))
    return found


def score_figures(images):
    """Returns the `agreement` of cells and their mirror images, at each distance."""
    found = {}
    for distance, places in FIGURE_PLACES.items():
        cells = [[read(images, place, CELLS) for place in pair] for pair in places]
        left, right = ([np.concatenate(x) for x in zip(*side)] for side in zip(*cells))
        found[str(distance)] = agreement(left, right, len(CELLS))
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
