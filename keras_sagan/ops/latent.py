"""Drawing latents and labels on the host."""

import numpy as np


def sample_latents(count, latent_dim, rng, truncation=None):
    """Draws standard normal latents.

    Args:
        count: Positive integer.
        latent_dim: Positive integer.
        rng: `numpy.random.Generator`.
        truncation: Positive float: values beyond it are drawn again, as in BigGAN's truncation
            trick. `None` for none.

    Returns:
        float32 array of shape `(count, latent_dim)`.

    Raises:
        ValueError: For a `truncation` that isn't positive.

    Reference:
        [Brock et al., 2019](https://arxiv.org/abs/1809.11096), section 3.1.
    """
    if truncation is None:
        return rng.standard_normal((count, latent_dim), dtype="float32")
    if not truncation > 0:
        raise ValueError(f"`truncation` must be positive. Received: truncation={truncation}")
    latents = np.empty(count * latent_dim, "float32")
    missing = np.arange(latents.size)
    while missing.size:
        if truncation < 1:  # Rejection from the uniform density, which hardly ever rejects here.
            proposed = rng.uniform(-truncation, truncation, missing.size)
            is_accepted = rng.random(missing.size) < np.exp(-0.5 * proposed**2)
        else:
            proposed = rng.standard_normal(missing.size)
            is_accepted = np.abs(proposed) <= truncation
        latents[missing[is_accepted]] = proposed[is_accepted]
        missing = missing[~is_accepted]
    return latents.reshape(count, latent_dim)


def sample_labels(count, num_classes, rng):
    """Draws class ids evenly; returns an int32 array of shape `(count,)`."""
    return rng.integers(0, num_classes, count, dtype="int32")
