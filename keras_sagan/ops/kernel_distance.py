"""The squared maximum mean discrepancy with the cubic kernel, in float64 numpy."""

import numpy as np

from keras_sagan.ops.samples import check_features


def kernel_distance(real, generated, max_block_size=1024, progress=None):
    """Estimates the kernel distance between two sets of feature vectors, without bias.

    E[k(x, x')] + E[k(y, y')] - 2 E[k(x, y)] with k(x, y) = (xᵀy / dim + 1)³, x and x' drawn from
    the real and y and y' from the generated samples. As in TF-GAN both sets are cut into the same
    number of blocks, in their order, and the estimates of the blocks are averaged, so the samples
    must not be sorted. Time is proportional to `num_samples * max_block_size * dim`.

    Args:
        real: Array of shape (num_samples, dim) with finite values.
        generated: Array of shape (num_samples, dim); the number of samples may differ.
        max_block_size: Integer, the most samples of one side in a block. Defaults to `1024`.
        progress: Optional function, called with the numbers of samples done and to do.

    Returns:
        Pair of Python floats: the estimate, which may be slightly negative, and its standard
        error over the blocks, NaN where there is one block only.

    Raises:
        ValueError: If the arrays don't fit together, or a block would hold fewer than 2 samples.

    Example:

    >>> real, generated = [[0.0], [1.0]], [[1.0], [0.0]]
    >>> kernel_distance(real, generated)  # 1 + 1 - 2 * (1 + 1 + 1 + 8) / 4
    (-3.5, nan)

    Reference:
        Bińkowski et al. 2018, [Demystifying MMD GANs](https://arxiv.org/abs/1801.01401), section
        4; Zaremba et al. 2013, [B-tests](https://arxiv.org/abs/1307.1954).
    """
    real, generated = check_features(real=real, generated=generated)
    num_blocks = -(-max(len(real), len(generated)) // max_block_size)
    if min(len(real), len(generated)) < 2 * num_blocks:
        raise ValueError(
            f"`real` and `generated` must have at least 2 samples in each of {num_blocks} blocks "
            f"of up to {max_block_size}. Received: {len(real)} real and {len(generated)} "
            "generated samples"
        )
    estimates = []
    for (r_start, r_stop), (g_start, g_stop) in zip(
        _blocks(len(real), num_blocks), _blocks(len(generated), num_blocks)
    ):
        estimates.append(_block_estimate(real[r_start:r_stop], generated[g_start:g_stop]))
        if progress:
            progress(int(g_stop), len(generated))
    error = np.std(estimates, ddof=1) / np.sqrt(num_blocks) if num_blocks > 1 else np.nan
    return float(np.mean(estimates)), float(error)


def _blocks(count, num_blocks):
    """Bounds of consecutive blocks; the larger ones last, as in TF-GAN."""
    size, larger = divmod(count, num_blocks)
    sizes = [size] * (num_blocks - larger) + [size + 1] * larger
    stops = np.cumsum(sizes)
    return list(zip(stops - sizes, stops))


def _block_estimate(real, generated):
    def within(x):
        kernel = (x @ x.T / x.shape[1] + 1.0) ** 3
        return (kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))

    across = (real @ generated.T / real.shape[1] + 1.0) ** 3
    return within(real) + within(generated) - 2.0 * across.mean()
