"""Draws latents and labels with numpy, to generate images.

A training step uses `draw_noise` of `training/tensorflow.py`, `jax.py` or `torch.py` instead.
"""

import numpy as np

from keras_sagan.checks import check_float


def sample_latents(
    count: int, latent_dim: int, rng: np.random.Generator, truncation: float | None = None
) -> np.ndarray:
    """Returns standard normal latents as a float32 array of shape `(count, latent_dim)`.

    Values whose magnitude exceeds `truncation` are drawn again, as in BigGAN's truncation trick;
    `None` disables truncation. Raises a ValueError if `truncation` isn't positive.

    Reference: [Brock et al., 2019](https://arxiv.org/abs/1809.11096), section 3.1.
    """
    truncation = check_float("truncation", truncation, above=0, optional=True)
    if truncation is None:
        return rng.standard_normal((count, latent_dim), dtype="float32")
    latents = np.empty(count * latent_dim, "float32")
    missing = np.arange(latents.size)
    while missing.size:
        if truncation < 1:  # In a narrow range, uniform proposals are rarely rejected.
            proposed = rng.uniform(-truncation, truncation, missing.size)
            is_accepted = rng.random(missing.size) < np.exp(-0.5 * proposed**2)
        else:
            proposed = rng.standard_normal(missing.size)
            is_accepted = np.abs(proposed) <= truncation
        latents[missing[is_accepted]] = proposed[is_accepted]
        missing = missing[~is_accepted]
    return latents.reshape(count, latent_dim)


def sample_labels(count: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Returns uniformly random class ids as an int32 array of shape `(count,)`."""
    return rng.integers(0, num_classes, count, dtype="int32")


def slerp(start, end, fractions) -> np.ndarray:
    """Interpolates between two latents along an arc (spherical linear interpolation).

    A straight line between two normal latents passes near the origin, where normal latents are very
    rare. Along the arc, the norm is interpolated linearly between the norms of `start` and `end`.

    Args:
        start, end: Float arrays of shape `(latent_dim,)`.
        fractions: Float array of shape `(steps,)`, where 0 stands for `start` and 1 for `end`.

    Returns:
        float32 array of shape `(steps, latent_dim)`.

    Example:
    >>> import numpy as np
    >>> slerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), [0.5]).round(3).tolist()
    [[0.7070000171661377, 0.7070000171661377]]

    Reference: [White, 2016](https://arxiv.org/abs/1609.04468), section 2.1.
    """
    start, end = np.asarray(start, "float64"), np.asarray(end, "float64")
    fractions = np.asarray(fractions, "float64")[:, None]
    lengths = np.linalg.norm(start), np.linalg.norm(end)
    line = ((1 - fractions) * start + fractions * end).astype("float32")
    if min(lengths) == 0:
        return line
    directions = start / lengths[0], end / lengths[1]
    angle = np.arccos(np.clip(directions[0] @ directions[1], -1.0, 1.0))
    if np.sin(angle) < 1e-6:  # Parallel and opposite directions have no unique arc.
        return line
    weights = [np.sin(share * angle) / np.sin(angle) for share in (1 - fractions, fractions)]
    arc = weights[0] * directions[0] + weights[1] * directions[1]
    return (arc * ((1 - fractions) * lengths[0] + fractions * lengths[1])).astype("float32")
