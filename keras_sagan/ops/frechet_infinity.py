"""The Fréchet distance extrapolated to infinitely many generated samples."""

import numpy as np

from keras_sagan.ops.frechet import covariance_factor, distance_of_factors, sample_factor
from keras_sagan.ops.samples import check_features


def frechet_distance_infinity(real_mean, real_cov, generated, num_points=15, seed=0, progress=None):
    """Extrapolates the Fréchet distance to infinitely many generated samples.

    The distance of N samples is too large by about c / N, with a c that depends on the model: so
    models can change places when N changes. It is computed for `num_points` random subsets, of a
    tenth of the samples up to all, and the line distance = intercept + slope / N is fitted by
    least squares. What the real side's own number adds stays in it.

    Args:
        real_mean: Array of shape (dim,).
        real_cov: Array of shape (dim, dim).
        generated: Array of shape (num_samples, dim), at least 20 samples. For the line to fit, the
            smallest subset should have more samples than dimensions.
        num_points: Integer, at least 2. Defaults to `15`.
        seed: Integer, the seed of the subsets. Defaults to `0`.
        progress: Optional function, called with the numbers of samples done and to do.

    Returns:
        `(intercept, slope, counts, distances)`: two Python floats, and the arrays that the line
        was fitted to. The intercept is below 0 at times, as any unbiased estimate near 0.

    Raises:
        ValueError: For fewer than 20 samples, or values that aren't finite.

    Reference:
        Chong & Forsyth 2020, [Effectively Unbiased FID and Inception
        Score](https://arxiv.org/abs/1911.07023), section 3.
    """
    (generated,) = check_features(generated=generated)
    if len(generated) < 20:
        raise ValueError(
            "`generated` must have at least 20 samples, 2 in a tenth of them. "
            f"Received: {len(generated)} samples"
        )
    rng = np.random.default_rng(seed)
    real_factor = covariance_factor(np.asarray(real_cov, dtype=np.float64))
    counts = np.linspace(len(generated) // 10, len(generated), num_points).astype(int)
    distances, done = [], 0
    for count in counts:
        subset = generated[rng.choice(len(generated), count, replace=False)]
        distances.append(distance_of_factors(real_mean, real_factor, *sample_factor(subset)))
        done += int(count)
        if progress:
            progress(done, int(counts.sum()))
    slope, intercept = np.polyfit(1.0 / counts, distances, 1)
    return float(intercept), float(slope), counts, np.array(distances)
