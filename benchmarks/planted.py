"""Sets in which distant parts of an image must agree, with scores that no network judges.

`pairs` draws two patches of one shape and one color, with their centers at a known distance.
`figures` draws patterns of cells that are equal to their mirror images. Both sets are scored in the
same way: `read` finds the nearest template of each patch, and `agreement` counts equal patches.
Images are uint8 in [0, 255].
"""

import numpy as np

SIZE = 32
PATCH = 8
DISTANCES = (8, 16, 24)  # Between the centers of the two patches; the label is the index.
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], "uint8")
RING = np.pad(np.zeros((4, 4), "uint8"), 2, constant_values=1)
PLUS = np.pad(np.ones((8, 4), "uint8"), ((0, 0), (2, 2)))
PLUS = np.maximum(PLUS, PLUS.T)
SHAPES = np.stack([RING, PLUS])
# Kind `4 * shape + color` of a patch of a pair; kind 0 of a cell of a figure is black.
PATCHES = (SHAPES[:, None, :, :, None] * COLORS[:, None, None]).reshape(-1, PATCH, PATCH, 3)
CELLS = np.broadcast_to(
    np.concatenate([np.zeros((1, 3), "uint8"), COLORS])[:, None, None], (5, PATCH, PATCH, 3)
)
# Row and column of the first pixel of the left and the right patch.
PAIR_PLACES = {d: ((12, 12 - d // 2), (12, 12 + d // 2)) for d in DISTANCES}
# The cells of a figure and their mirror images; the key is the distance between their centers.
FIGURE_PLACES = {
    d: [((row, 12 - d // 2), (row, 12 + d // 2)) for row in range(0, SIZE, PATCH)] for d in (8, 24)
}


def pairs(num_images, seed):
    """Returns images of `(num_images, 32, 32, 3)` and their labels, indices of `DISTANCES`."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(DISTANCES), num_images)
    kinds = generator.integers(0, len(PATCHES), num_images)
    images = np.zeros((num_images, SIZE, SIZE, 3), "uint8")
    for image, label, kind in zip(images, labels, kinds):
        for place in PAIR_PLACES[DISTANCES[label]]:
            at(image, place)[:] = PATCHES[kind]
    return images, labels.astype("int32")


def figures(num_images, seed):
    """Returns images of 4 x 4 cells of one color or black, equal to their mirror images."""
    generator = np.random.default_rng(seed)
    left = generator.integers(0, 2, (num_images, 4, 2), "uint8")
    cells = np.concatenate([left, left[:, :, ::-1]], axis=2)
    colors = COLORS[generator.integers(0, len(COLORS), num_images)]
    cells = cells[..., None] * colors[:, None, None]
    return cells.repeat(PATCH, axis=1).repeat(PATCH, axis=2)


def at(images, place):
    """Returns the view of a patch in images of shape `(..., 32, 32, 3)`."""
    row, column = place
    return images[..., row : row + PATCH, column : column + PATCH, :]


def read(patches, templates):
    """Returns the index of the template nearest to each patch, and whether the patch is valid.

    A patch is valid if its distance to the template is less than half of the smallest distance
    between two templates, so no other template can be as near.
    """
    flat = np.asarray(patches, "float64").reshape(len(patches), -1)
    known = np.asarray(templates, "float64").reshape(len(templates), -1)
    between = np.linalg.norm(known[:, None] - known, axis=-1)
    distances = np.linalg.norm(flat[:, None] - known, axis=-1)
    limit = between[~np.eye(len(known), dtype=bool)].min() / 2
    return distances.argmin(axis=1), distances.min(axis=1) < limit


def agreement(left, right, templates):
    """Scores the patches of one place against those of the place that must agree.

    Args:
        left, right: Arrays of shape `(num_images, 8, 8, 3)`.
        templates: The possible patches.

    Returns:
        Dictionary: `valid`, the share of images with two valid patches, and among those
        `agreement`, the share with two equal patches; `chance`, that share if left and right were
        drawn independently with the same frequencies; `kappa`, the agreement beyond chance from 0
        to 1 (Cohen's kappa; 0 if all patches are of one kind); `left` and `right`, the frequencies
        of the kinds.
    """
    (left, left_valid), (right, right_valid) = read(left, templates), read(right, templates)
    valid = left_valid & right_valid
    left, right = left[valid], right[valid]
    count = max(len(left), 1)
    shares = [np.bincount(x, minlength=len(templates)) / count for x in (left, right)]
    share, chance = float(np.mean(left == right)) if len(left) else 0.0, float(np.dot(*shares))
    return {
        "valid": float(np.mean(valid)),
        "agreement": share,
        "chance": chance,
        "kappa": (share - chance) / (1 - chance) if chance < 1 else 0.0,
        "left": shares[0].round(3).tolist(),
        "right": shares[1].round(3).tolist(),
    }


def score_pairs(images, labels):
    """Returns the `agreement` of the images of each distance."""
    found = {}
    for index, distance in enumerate(DISTANCES):
        left, right = (at(images[labels == index], place) for place in PAIR_PLACES[distance])
        found[str(distance)] = agreement(left, right, PATCHES)
    return found


def score_figures(images):
    """Returns the `agreement` of cells and their mirror images, at each distance."""
    found = {}
    for distance, places in FIGURE_PLACES.items():
        left, right = (
            np.concatenate([at(images, place[side]) for place in places]) for side in (0, 1)
        )
        found[str(distance)] = agreement(left, right, CELLS)
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
