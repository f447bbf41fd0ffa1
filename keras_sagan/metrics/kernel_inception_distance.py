"""The Kernel Inception Distance: the squared maximum mean discrepancy, and the Keras metric."""

import keras
import numpy as np

from keras_sagan.checks import check_integer
from keras_sagan.metrics.features import SampleMetric, check_features, shuffled


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


@keras.saving.register_keras_serializable(package="keras_sagan")
class KernelInceptionDistance(SampleMetric):
    """Kernel distance between the features of real and of generated images, with its interval.

    An unbiased estimate, so that few images give a noisy value and not, as with the Fréchet
    distance, a larger one. It equals TF-GAN's `kernel_classifier_distance_and_std_from_activations`
    on the same features in the same order. All features are kept: O(num_images · dim) memory.

    Args:
        feature_extractor: As for `FrechetInceptionDistance`.
        value_range: `None`, or the pair `(low, high)` of float images. Defaults to `None`.
        max_block_size: Integer, the most images in a block. Defaults to `1024`, as in TF-GAN.
        shuffle_seed: Integer, the seed of the order in which images go into blocks, which must not
            be sorted by class; `None` for the order in which they came. Defaults to `0`.
        name: String. Defaults to `"kid"`.
        batch_size: Integer, how many images the extractor gets at once. Defaults to `64`.

    State:
        The features of both sides. They aren't saved with a model.

    Raises:
        ValueError: As `FrechetInceptionDistance`; `result` for fewer than 2 images of either kind.

    Example:

    >>> import numpy as np
    >>> kid = KernelInceptionDistance(lambda x: x[:, 0, 0], value_range=(0, 1))
    >>> kid.update_state(np.array([0.0, 1.0]).reshape(2, 1, 1, 1), real=True)
    >>> kid.update_state(np.array([1.0, 0.0]).reshape(2, 1, 1, 1), real=False)
    >>> kid.result()["kid"]
    -8.0

    Reference:
        Bińkowski et al. 2018, [Demystifying MMD GANs](https://arxiv.org/abs/1801.01401).
    """

    _direction = "down"

    def __init__(
        self,
        feature_extractor,
        value_range=None,
        max_block_size=1024,
        shuffle_seed=0,
        name="kid",
        batch_size=64,
    ):
        super().__init__(feature_extractor, value_range, name, batch_size)
        self.max_block_size = check_integer("max_block_size", max_block_size, 2)
        self.shuffle_seed = check_integer("shuffle_seed", shuffle_seed, 0, optional=True)

    @property
    def definition(self):
        return (
            f"kernel distance, (xy/dim + 1)^3, unbiased, blocks of {self.max_block_size}, "
            f"shuffled by seed {self.shuffle_seed}, interval of 1.96 standard errors"
        )

    def result(self):
        """Returns a dictionary of Python floats, named after the metric; lower is better.

        `"kid"` is the estimate, `"kid_std_error"` its standard error over the blocks, and
        `"kid_low"` and `"kid_high"` bound the 95 % interval. With one block the three are NaN,
        which `notes` explains.
        """
        self._check_counts()
        sides = [shuffled(self._features(side), self.shuffle_seed) for side in self._state]
        distance, error = kernel_distance(*sides, self.max_block_size, self._progress())
        return {
            self.name: distance,
            f"{self.name}_std_error": error,
            f"{self.name}_low": distance - 1.96 * error if np.isfinite(error) else np.nan,
            f"{self.name}_high": distance + 1.96 * error if np.isfinite(error) else np.nan,
        }

    def notes(self):
        if max(self._counts.values()) > self.max_block_size:
            return []
        return [
            f"{self.name}_std_error, {self.name}_low and {self.name}_high need more than "
            f"max_block_size={self.max_block_size} images on one side: one block has no spread. "
            f"Received: {self._counts['real']} real and {self._counts['generated']} generated "
            "images"
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "max_block_size": self.max_block_size,
            "shuffle_seed": self.shuffle_seed,
        }
