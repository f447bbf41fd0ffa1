"""The Fréchet Inception Distance, as a NumPy function in float64 and as a Keras metric."""

from typing import Any

import keras
import numpy as np
from numpy.linalg import norm

from keras_sagan.metrics.features import (
    SIDES,
    FeatureMetric,
    check_features,
    compute_moments,
    covariance,
)

_ROUNDING = np.finfo(np.float64).eps  # The error of eigenvalues, relative to the largest one.


def frechet_distance(
    mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray
) -> float:
    """Returns the squared Fréchet (2-Wasserstein) distance between two Gaussians.

    d² = |mean₁ - mean₂|² + tr(cov₁) + tr(cov₂) - 2 tr((cov₁ cov₂)^½).

    The result is at least 0. If cov₁ = F Fᵀ, the last trace is the sum of the square roots of the
    eigenvalues of Fᵀ cov₂ F. F is the Cholesky factor; for singular covariances, it is computed
    from eigenvectors. Taking the square root of a small eigenvalue magnifies its rounding error. If
    the relative error of the distance could exceed 1e-5, the sum of the singular values of F₁ᵀF₂ is
    used instead, which takes 3 times as long but retains full precision. No general matrix square
    root is needed, so the result is never complex or NaN.

    Args:
        mean_1, mean_2: Arrays of shape (dim,).
        cov_1, cov_2: Symmetric positive semi-definite arrays of shape (dim, dim).

    Raises:
        ValueError: If the shapes don't match, or a value isn't finite.

    Example:
    >>> frechet_distance([0.0], [[1.0]], [3.0], [[4.0]])  # 3² + (2 - 1)²
    10.0

    Reference: Dowson & Landau, 1982, equation 16;
    [Heusel et al., 2017](https://arxiv.org/abs/1706.08500), equation 6.
    """
    arrays = {"mean_1": mean_1, "cov_1": cov_1, "mean_2": mean_2, "cov_2": cov_2}
    dim = np.size(mean_1)
    for name, value in arrays.items():
        arrays[name] = value = np.asarray(value, dtype=np.float64)
        if value.shape != ((dim,) if "mean" in name else (dim, dim)) or dim == 0:
            raise ValueError(
                f"`{name}` must have shape (dim{',' if 'mean' in name else ', dim'}) with the dim "
                f"of `mean_1`, {dim}, at least 1. Received: {name}.shape={value.shape}"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"`{name}` must be finite. Received: {name} with NaN or infinity")
    mean_1, cov_1, mean_2, cov_2 = arrays.values()
    # Factorize the covariance with the lower rank, so that rounding affects fewer eigenvalues.
    thin, other = sorted((cov_1, cov_2), key=lambda cov: np.trace(cov) / (norm(cov) + 1e-300))
    return _distance_from_factor(mean_1, covariance_factor(thin), mean_2, other)


def frechet_distance_of_samples(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the squared Fréchet distance between the Gaussians fitted to two sets of samples.

    The result equals `frechet_distance` of the sets' means and covariances. If a set has no more
    samples than dimensions, the factor F consists of its centered and scaled samples.

    Args:
        first, second: Arrays of shape (num_samples, dim) with finite values and at least 2 samples.

    Raises:
        ValueError: If the shapes don't match, a value isn't finite, or a set has fewer than 2
            samples.

    Example:
    >>> round(frechet_distance_of_samples([[0.0], [2.0]], [[3.0], [5.0]]), 6)
    9.0
    """
    first, second = sorted(check_features(first=first, second=second), key=len)
    (mean_1, cov_1), (mean_2, cov_2) = (
        (moments.mean, covariance(moments)) for moments in map(compute_moments, (first, second))
    )
    if len(first) > first.shape[1]:
        return frechet_distance(mean_1, cov_1, mean_2, cov_2)
    factor = (first - mean_1).T / np.sqrt(len(first) - 1)
    return _distance_from_factor(mean_1, factor, mean_2, cov_2)


def covariance_factor(cov):
    """Returns a matrix F of shape (dim, rank) with F Fᵀ = cov."""
    try:
        factor = np.linalg.cholesky(cov)
        if np.min(np.diagonal(factor) ** 2 / np.diagonal(cov)) > 1e-8:
            return factor
    except np.linalg.LinAlgError:
        pass
    # This takes 8 times as long as Cholesky. Drop eigenvalues that are only rounding errors.
    values, vectors = np.linalg.eigh(cov)
    kept = values > max(values[-1], 0.0) * len(values) * _ROUNDING
    return vectors[:, kept] * np.sqrt(values[kept])


def _distance_from_factor(mean_1, factor_1, mean_2, cov_2):
    """Returns the squared Fréchet distance, computed from a factor of the first covariance."""
    traces = np.sum((mean_1 - mean_2) ** 2) + np.sum(factor_1**2) + np.trace(cov_2)
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(factor_1.T @ cov_2 @ factor_1), 0.0))
    distance = traces - 2.0 * roots.sum()
    # The first-order errors of the roots are independent, so add their squares. The second-order
    # errors have the same sign, so add them up.
    rounding = _ROUNDING * np.max(np.sum(factor_1**2, axis=0), initial=0.0) * norm(cov_2)
    roots = np.maximum(roots, 0.5 * np.sqrt(rounding) + 1e-300)
    errors = rounding / roots
    if norm(errors) + np.sum(errors**2 / roots) / 4.0 > 1e-5 * distance:
        cross = factor_1.T @ covariance_factor(cov_2)
        distance = traces - 2.0 * np.linalg.svd(cross, compute_uv=False).sum()
    return max(float(distance), 0.0)


@keras.saving.register_keras_serializable(package="keras_sagan")
class FrechetInceptionDistance(FeatureMetric):
    """Fréchet distance between the features of real and generated images.

    See `frechet_distance` for the formula and the references. The metric measures datasets, not
    single batches. `update_state` takes the images in batches and keeps only the float64 moments of
    the features, in host memory. The moments aren't saved with a model. Use the metric in a
    callback or a script; it can't run inside a compiled train step. The value depends on the
    extractor, the number of images and the choice of real images, so report `protocol` with the
    value. On the same images, the value agrees with TF-GAN's FID to a relative error of 1e-5,
    unless singular values are below 1e-10. TF-GAN doesn't take the square roots of such values.

    Args:
        feature_extractor: An extractor of `keras_sagan.metrics`, such as `FIDInception` or
            `EfficientNetLite0Features`, or any other Keras model or callable. The extractor
            receives float32 images in [-1, 1] of shape (batch, height, width, channels) and returns
            one tensor of shape (batch, ...), which is flattened to (batch, dim).
        value_range: Pair `(low, high)`, the values of black and white in *float* images, such as
            `(-1, 1)` or `(0, 255)`. The range is never guessed. If `None`, only uint8 images in
            [0, 255] are accepted.
        name, batch_size: The name of the metric, and the batch size of the extractor.

    Raises:
        ValueError: If an argument is invalid. `update_state` also raises it if images have the
            wrong rank, dtype or range, or if features aren't finite or differ in width. `result`
            also raises it if there are fewer than 2 real or 2 generated images.

    Example:
    >>> fid = FrechetInceptionDistance(lambda x: x[:, 0, 0], value_range=(-1, 1))
    >>> fid.update_state(np.array([-1.0, 1.0]).reshape(2, 1, 1, 1), real=True)
    >>> fid.update_state(np.array([-0.5, 0.5]).reshape(2, 1, 1, 1), real=False)
    >>> round(fid.result(), 6)  # (sqrt(2) - sqrt(1 / 2)) ** 2
    0.5
    """

    _direction = "down"  # Callbacks such as `ModelCheckpoint(mode="auto")` read this attribute.
    default_name = "fid"
    needs = dict.fromkeys(SIDES, ("moments",))
    formula = "Frechet distance of features, covariances with ddof=1, float64"

    def compare(self, real: Any, generated: Any) -> float:
        """Returns the distance, which is at least 0; lower is better."""
        (mean_1, cov_1), (mean_2, cov_2) = (
            (x.mean, covariance(x)) for x in (real.moments, generated.moments)
        )
        return frechet_distance(mean_1, cov_1, mean_2, cov_2)
