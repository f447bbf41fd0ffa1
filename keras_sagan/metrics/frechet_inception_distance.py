"""The Fréchet Inception Distance: its mathematics in float64 numpy, and the Keras metric."""

from typing import NamedTuple

import keras
import numpy as np
from numpy.linalg import norm

from keras_sagan.metrics.features import FeatureMetric, check_features

_ROUNDING = np.finfo(np.float64).eps  # of an eigenvalue, as a share of the largest
_ALLOWED = 1e-5  # error of a distance before singular values are taken; the true one is far less


class Moments(NamedTuple):
    """Sufficient statistics of a set of feature vectors, mergeable without loss.

    Attributes:
        count: Integer, number of samples.
        mean: Float64 array of shape (dim,).
        scatter: Float64 array of shape (dim, dim), the sum of (x - mean)(x - mean)ᵀ.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray


def compute_moments(features):
    """Computes the moments of a batch of feature vectors in two passes.

    The mean is subtracted before anything is squared: E[x²] - E[x]² loses every digit when the
    mean is large against the deviation.

    Args:
        features: Array of shape (num_samples, dim) with finite values and at least one sample.

    Returns:
        `Moments` in float64.

    Raises:
        ValueError: If `features` isn't of rank 2, is empty, or holds NaN or infinity.

    Example:

    >>> compute_moments([[0.0], [2.0], [4.0]])
    Moments(count=3, mean=array([2.]), scatter=array([[8.]]))
    """
    (features,) = check_features(features=features)
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def merge_moments(first, second):
    """Merges the moments of two disjoint sets into the moments of their union.

    count = n₁ + n₂, delta = mean₂ - mean₁, mean = mean₁ + delta · n₂ / count,
    scatter = scatter₁ + scatter₂ + delta deltaᵀ · n₁ n₂ / count. Nothing is subtracted from the
    scatters, so the order and the size of the pieces hardly matter.

    Args:
        first: `Moments`, or `None` for the empty set.
        second: `Moments` of the same width.

    Returns:
        `Moments` of the union.

    Raises:
        ValueError: If the two have different widths.

    Reference:
        Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", equation 1.5.
    """
    if first is None:
        return second
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            "`first` and `second` must have features of the same width. Received: "
            f"first.mean.shape={first.mean.shape}, second.mean.shape={second.mean.shape}"
        )
    count = first.count + second.count
    delta = second.mean - first.mean
    mean = first.mean + delta * (second.count / count)
    scatter = first.scatter + second.scatter
    scatter += np.outer(delta * (first.count * second.count / count), delta)
    return Moments(count, mean, scatter)


def covariance(moments):
    """Returns the unbiased (ddof = 1) covariance matrix of a set of samples.

    Args:
        moments: `Moments` of at least 2 samples.

    Returns:
        Float64 array of shape (dim, dim).

    Raises:
        ValueError: If there are fewer than 2 samples.
    """
    if moments.count < 2:
        raise ValueError(
            "`moments` must be of at least 2 samples for a covariance. "
            f"Received: moments.count={moments.count}"
        )
    return moments.scatter / (moments.count - 1)


def frechet_distance(mean_1, cov_1, mean_2, cov_2):
    """Computes the squared Fréchet (2-Wasserstein) distance between two Gaussians.

    d² = |mean₁ - mean₂|² + tr(cov₁) + tr(cov₂) - 2 tr((cov₁ cov₂)^½).

    With cov₁ = F Fᵀ, the last trace is the sum of the square roots of the eigenvalues of Fᵀ cov₂ F.
    F is Cholesky's factor or, of singular covariances, made of eigenvectors. A root has half the
    digits of its eigenvalue: where that could change the distance by more than 1e-5, the sum of
    the singular values of F₁ᵀF₂ is taken, which takes 3 times as long and keeps all digits.
    No general matrix square root is taken, so nothing is ever complex, NaN or negative.

    Args:
        mean_1: Array of shape (dim,).
        cov_1: Symmetric positive semi-definite array of shape (dim, dim).
        mean_2: Array of shape (dim,).
        cov_2: Symmetric positive semi-definite array of shape (dim, dim).

    Returns:
        Python float, at least 0.

    Raises:
        ValueError: If the shapes don't fit together, or a value isn't finite.

    Example:

    >>> frechet_distance([0.0], [[1.0]], [3.0], [[4.0]])  # 3² + (2 - 1)²
    10.0

    Reference:
        Dowson & Landau 1982, equation 16; Heusel et al. 2017,
        [GANs Trained by a Two Time-Scale Update Rule](https://arxiv.org/abs/1706.08500), eq. 6.
    """
    arrays = {"mean_1": mean_1, "cov_1": cov_1, "mean_2": mean_2, "cov_2": cov_2}
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in arrays.items()}
    dim = arrays["mean_1"].shape[0] if arrays["mean_1"].ndim == 1 else 0
    for name, value in arrays.items():
        expected = (dim,) if name.startswith("mean") else (dim, dim)
        if value.shape != expected or dim == 0:
            raise ValueError(
                f"`{name}` must have shape {'(dim,)' if len(expected) == 1 else '(dim, dim)'} "
                "with the dim of `mean_1`, at least 1. Received: "
                f"{name}.shape={value.shape}, mean_1.shape={arrays['mean_1'].shape}"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"`{name}` must be finite. Received: {name} with NaN or infinity")
    mean_1, cov_1, mean_2, cov_2 = arrays.values()
    # Of fewer directions there are fewer eigenvalues that are nothing but rounding.
    thin, other = sorted((cov_1, cov_2), key=lambda cov: np.trace(cov) / (norm(cov) + 1e-300))
    return distance_from_factor(mean_1, covariance_factor(thin), mean_2, other)


def frechet_distance_of_samples(first, second):
    """Computes the squared Fréchet distance between the Gaussians fitted to two sets of samples.

    The same value as `frechet_distance` of their means and covariances. Where a set has fewer
    samples than dimensions its centred samples are the factor already.

    Args:
        first: Array of shape (num_samples, dim) with finite values, at least 2 samples.
        second: Array of shape (num_samples, dim).

    Returns:
        Python float, at least 0.

    Raises:
        ValueError: If the shapes don't fit together, a value isn't finite, or a set has fewer
            than 2 samples.

    Example:

    >>> round(frechet_distance_of_samples([[0.0], [2.0]], [[3.0], [5.0]]), 6)
    9.0
    """
    first, second = sorted(check_features(first=first, second=second), key=len)
    moments = [compute_moments(samples) for samples in (first, second)]
    covs = [covariance(each) for each in moments]
    if len(first) > first.shape[1]:
        return frechet_distance(moments[0].mean, covs[0], moments[1].mean, covs[1])
    factor = (first - moments[0].mean).T / np.sqrt(len(first) - 1)
    return distance_from_factor(moments[0].mean, factor, moments[1].mean, covs[1])


def covariance_factor(cov):
    """Returns F of shape (dim, rank) with F Fᵀ = cov, for a symmetric semi-definite `cov`."""
    try:
        factor = np.linalg.cholesky(cov)
        if np.min(np.diagonal(factor) ** 2 / np.diagonal(cov)) > 1e-8:
            return factor
    except np.linalg.LinAlgError:
        pass
    # Eigenvectors take 8 times as long. Eigenvalues of that size are rounding.
    values, vectors = np.linalg.eigh(cov)
    kept = values > max(values[-1], 0.0) * len(values) * _ROUNDING
    return vectors[:, kept] * np.sqrt(values[kept])


def distance_from_factor(mean_1, factor_1, mean_2, cov_2):
    """Returns the squared Fréchet distance, from a factor of the first covariance."""
    traces = np.sum((mean_1 - mean_2) ** 2) + np.sum(factor_1**2) + np.trace(cov_2)
    values = np.maximum(np.linalg.eigvalsh(factor_1.T @ cov_2 @ factor_1), 0.0)
    distance = traces - 2.0 * np.sqrt(values).sum()
    # Errors of either sign add up as independent ones; those of a concave root have one sign.
    largest = np.max(np.sum(factor_1**2, axis=0), initial=0.0) * norm(cov_2)
    rounding = _ROUNDING * largest
    roots = np.maximum(np.sqrt(values), 0.5 * np.sqrt(rounding) + 1e-300)
    errors = rounding / (2.0 * roots)
    error = 2.0 * (norm(errors) + np.sum(errors**2 / (2.0 * roots)))
    if error > _ALLOWED * distance:
        cross = factor_1.T @ covariance_factor(cov_2)
        distance = traces - 2.0 * np.linalg.svd(cross, compute_uv=False).sum()
    return max(float(distance), 0.0)


@keras.saving.register_keras_serializable(package="keras_sagan")
class FrechetInceptionDistance(FeatureMetric):
    """Fréchet distance between the features of real and of generated images.

    Images of both kinds stream through `update_state`; only the float64 mean and covariance of
    their features are kept, on the host. A metric over a data set and not over a batch, it lives
    in a callback or a script: it can't run inside a compiled train step. Its value depends on
    the extractor, on the number of images and on which real ones were taken, so print `protocol`
    beside it. With the same images it equals TF-GAN's to 1e-5 relative, but for TF-GAN's
    threshold, which takes no root of values below 1e-10.

    Args:
        feature_extractor: What turns images into features: a `TFGANInception`, a
            `GreyClassifierFeatures`, any Keras model, or any callable. It receives float32 in
            [-1, 1] of shape (batch, height, width, channels) and returns one tensor of shape
            (batch, ...), which is flattened to (batch, dim).
        value_range: Pair of floats `(low, high)`, the values that black and white have in *float*
            images, such as `(-1, 1)` or `(0, 255)`; there is no guessing. uint8 images are
            always in [0, 255]. Defaults to `None`: only uint8 images are accepted.
        name: String, the name of the metric. Defaults to `"fid"`.
        batch_size: Integer, how many images the extractor gets at once. Defaults to `64`.

    State:
        The moments of the real and of the generated features. They aren't saved with a model.

    Raises:
        ValueError: If an argument is invalid. `update_state` raises for images of the wrong rank,
            dtype or range, and for features that aren't finite or change their width; `result`
            if there are fewer than 2 images of either kind.

    Example:

    >>> import numpy as np
    >>> fid = FrechetInceptionDistance(lambda x: x[:, 0, 0], value_range=(-1, 1))
    >>> fid.update_state(np.array([-1.0, 1.0]).reshape(2, 1, 1, 1), real=True)
    >>> fid.update_state(np.array([-0.5, 0.5]).reshape(2, 1, 1, 1), real=False)
    >>> round(fid.result(), 6)  # (sqrt(2) - sqrt(1 / 2)) ** 2
    0.5

    Reference:
        Heusel et al. 2017,
        [GANs Trained by a Two Time-Scale Update Rule](https://arxiv.org/abs/1706.08500), eq. 6.
    """

    _direction = "down"  # read by `ModelCheckpoint(mode="auto")` and its like
    real_needs = ()
    definition = "Frechet distance of features, covariances with ddof=1, float64"

    def __init__(self, feature_extractor, value_range=None, name="fid", batch_size=64):
        super().__init__(feature_extractor, value_range, name, batch_size)

    def set_statistics(self, statistics, real):
        self._set_moments(statistics, real)

    def _merge(self, state, features, labels):
        return merge_moments(state, compute_moments(features))

    def result(self):
        """Returns the distance as a Python float, at least 0; lower is better."""
        self._check_counts()
        real, generated = self._state["real"], self._state["generated"]
        return frechet_distance(real.mean, covariance(real), generated.mean, covariance(generated))
