"""Computes the Kernel Inception Distance, as a numpy function and a Keras metric."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_sagan.checks import check_integer
from keras_sagan.metrics.features import FeatureMetric, check_features, shuffled


def kernel_distance(
    real: np.ndarray,
    generated: np.ndarray,
    max_block_size: int = 1024,
    progress: Callable | None = None,
) -> tuple[float, float]:
    """Computes an unbiased estimate of the kernel distance between two sets of feature vectors.

    The distance is the squared maximum mean discrepancy E[k(x, x')] + E[k(y, y')] - 2 E[k(x, y)]
    with k(x, y) = (xᵀy / dim + 1)³, where x and x' are real samples, and y and y' are generated
    samples. As in TF-GAN, both sets are split into the same number of consecutive blocks, and the
    estimates of the blocks are averaged. Don't sort the samples, because each block must be
    representative. The running time is proportional to `num_samples * max_block_size * dim`.

    Args:
        real, generated: Arrays of shape (num_samples, dim) with finite values; the numbers of
            samples may differ.
        max_block_size: The maximum number of samples from one set in a block.
        progress: Function that receives the number of processed samples and the total number.

    Returns:
        The estimate, which may be slightly negative, and its standard error over the blocks, which
        is NaN for a single block.

    Raises:
        ValueError: If the shapes don't match, or a block would contain fewer than 2 samples.

    Example:
    >>> real, generated = [[0.0], [1.0]], [[1.0], [0.0]]
    >>> kernel_distance(real, generated)  # 1 + 1 - 2 * (1 + 1 + 1 + 8) / 4
    (-3.5, nan)

    Reference: [Bińkowski et al., 2018](https://arxiv.org/abs/1801.01401), section 4;
    [Zaremba et al., 2013](https://arxiv.org/abs/1307.1954).
    """
    real, generated = check_features(real=real, generated=generated)
    num_blocks = -(-max(len(real), len(generated)) // max_block_size)
    if min(len(real), len(generated)) < 2 * num_blocks:
        raise ValueError(
            f"`real` and `generated` must have at least 2 samples in each of {num_blocks} blocks "
            f"of up to {max_block_size}. Received: {len(real)} real and {len(generated)} "
            "generated samples"
        )
    estimates, done = [], 0
    for x, y in zip(_blocks(real, num_blocks), _blocks(generated, num_blocks)):
        across = (x @ y.T / x.shape[1] + 1.0) ** 3
        estimates.append(_within(x) + _within(y) - 2.0 * across.mean())
        done += len(y)
        if progress:
            progress(done, len(generated))
    error = np.std(estimates, ddof=1) / np.sqrt(num_blocks) if num_blocks > 1 else np.nan
    return float(np.mean(estimates)), float(error)


def _blocks(samples, num_blocks):
    """Splits samples into consecutive blocks. As in TF-GAN, larger blocks come last."""
    size, larger = divmod(len(samples), num_blocks)
    sizes = np.repeat([size, size + 1], [num_blocks - larger, larger])
    return np.split(samples, np.cumsum(sizes)[:-1])


def _within(x):
    kernel = (x @ x.T / x.shape[1] + 1.0) ** 3
    return (kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))


@keras.saving.register_keras_serializable(package="keras_sagan")
class KernelInceptionDistance(FeatureMetric):
    """Kernel distance between features of real and generated images, with a confidence interval.

    The estimate is unbiased. With few images, it is noisy, whereas the Fréchet distance is too
    large. For the same features in the same order, the estimate equals that of TF-GAN's
    `kernel_classifier_distance_and_std_from_activations`. The metric keeps all features in memory.
    See `kernel_distance` for the references.

    Args:
        feature_extractor, value_range, name, batch_size: As in `FrechetInceptionDistance`, which
            raises the same errors.
        max_block_size: The maximum number of real or generated images in a block, 1024 in TF-GAN.
        shuffle_seed: The seed for shuffling the images before they are split into blocks, so that
            no block consists of a single class. If `None`, images keep their order.

    Example:
    >>> kid = KernelInceptionDistance(lambda x: x[:, 0, 0], value_range=(0, 1))
    >>> kid.update_state(np.array([0.0, 1.0]).reshape(2, 1, 1, 1), real=True)
    >>> kid.update_state(np.array([1.0, 0.0]).reshape(2, 1, 1, 1), real=False)
    >>> kid.result()["kid"]
    -8.0
    """

    _direction = "down"
    default_name = "kid"
    settings = ("max_block_size", "shuffle_seed")
    formula = (
        "kernel distance, (xy/dim + 1)^3, unbiased, blocks of {max_block_size}, "
        "shuffled by seed {shuffle_seed}, interval of 1.96 standard errors"
    )

    def __init__(
        self,
        feature_extractor: Callable,
        value_range: Sequence[float] | None = None,
        max_block_size: int = 1024,
        shuffle_seed: int | None = 0,
        name: str | None = "kid",
        batch_size: int = 64,
    ):
        super().__init__(feature_extractor, value_range, name, batch_size)
        self.max_block_size = check_integer("max_block_size", max_block_size, 2)
        self.shuffle_seed = check_integer("shuffle_seed", shuffle_seed, 0, optional=True)

    def compare(self, real: Any, generated: Any) -> dict[str, float]:
        """Returns a dictionary of floats; keys begin with the metric's name. Lower is better.

        `"kid"` is the estimate, `"kid_std_error"` is its standard error over the blocks, and
        `"kid_low"` and `"kid_high"` are the bounds of the 95 % confidence interval. With a single
        block, all values except `"kid"` are NaN.
        """
        first, second = (
            shuffled(x.arrays["features"], self.shuffle_seed) for x in (real, generated)
        )
        distance, error = kernel_distance(first, second, self.max_block_size, self._progress())
        return {
            self.name: distance,
            f"{self.name}_std_error": error,
            f"{self.name}_low": distance - 1.96 * error,
            f"{self.name}_high": distance + 1.96 * error,
        }

    def notes(self, real: Any, generated: Any) -> list[str]:
        counts = real.num_images, generated.num_images
        few = [f"{self.name} of fewer than 100 images is mostly noise"] * (min(counts) < 100)
        if max(counts) > self.max_block_size:
            return few
        return few + [
            f"{self.name}_std_error, {self.name}_low and {self.name}_high need more than "
            f"max_block_size={self.max_block_size} images on one side: one block has no spread. "
            f"Received: {counts[0]} real and {counts[1]} generated images"
        ]
