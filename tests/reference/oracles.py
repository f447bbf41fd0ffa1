"""Independent oracles in float64 numpy: nothing here is shared with the package."""

import numpy as np


def spectral_norm(kernel):
    """Largest singular value of a kernel reshaped to (-1, outputs)."""
    kernel = np.asarray(kernel, "float64")
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


def max_pool(x, size):
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, channels)
    return x.max(axis=(2, 4))


def self_attention(x, kernels, gamma, pool_size):
    """SAGAN's block, location by location: outputs and scores, from raw or normalised kernels."""
    x = np.asarray(x, "float64")
    query, key, value, output = (np.asarray(k, "float64").reshape(k.shape[-2:]) for k in kernels)
    queries = x @ query
    keys, values = max_pool(x @ key, pool_size), max_pool(x @ value, pool_size)
    batch, height, width, _ = x.shape
    keys = keys.reshape(batch, -1, keys.shape[-1])
    values = values.reshape(batch, -1, values.shape[-1])
    scores = np.zeros((batch, height * width, keys.shape[1]))
    attended = np.zeros((batch, height * width, values.shape[-1]))
    for b in range(batch):
        for i in range(height * width):
            logits = keys[b] @ queries[b].reshape(height * width, -1)[i]
            weights = np.exp(logits - logits.max())
            scores[b, i] = weights / weights.sum()
            attended[b, i] = scores[b, i] @ values[b]
    attended = attended.reshape(batch, height, width, -1)
    return x + gamma * (attended @ output), scores


def batch_norm(x, gamma, beta, labels, epsilon):
    """Conditional batch norm over the last axis with the moments of the batch."""
    x = np.asarray(x, "float64")
    axes = tuple(range(x.ndim - 1))
    normalized = (x - x.mean(axes)) / np.sqrt(x.var(axes) + epsilon)
    shape = (len(x),) + (1,) * (x.ndim - 2) + (-1,)
    return normalized * gamma[labels].reshape(shape) + beta[labels].reshape(shape)
