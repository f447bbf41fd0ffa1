"""The Fréchet distance between Gaussians, and the moments it needs, in float64 numpy."""

from typing import NamedTuple

import numpy as np

from keras_sagan.ops.samples import check_features

ROUNDING = np.finfo(np.float64).eps  # of an eigenvalue, as a share of the largest
ALLOWED = 1e-5  # error of a distance as `root_error` has it; what is measured is far less


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
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.size == 0:
        raise ValueError(
            "`features` must have shape (num_samples, dim), with at least one of each. "
            f"Received: features.shape={features.shape}"
        )
    if not np.isfinite(features).all():
        bad = int(np.count_nonzero(~np.isfinite(features).all(axis=1)))
        raise ValueError(
            "`features` must be finite. "
            f"Received: features with NaN or infinity in {bad} of {len(features)} samples"
        )
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

    The last trace is the sum of the singular values of F₁ᵀF₂, where covᵢ = FᵢFᵢᵀ. The textbook
    form, Σ√eigvalsh(cov₁^½ cov₂ cov₁^½), squares those values first and so keeps half their
    digits: on features whose scales spread over nine decades it was off by 5e-7, this form by
    3e-12. The squared form, which is fast, is taken only where its error is reckoned to be below
    1e-5 of the distance (measured: below 1e-9). Fᵢ is Cholesky's factor or, near a singular
    covariance, made of eigenvectors; then eigenvalues below dim · 2.2e-16 of the largest are
    rounding and are left out. Where both are singular, the eigenvalues of F₁ᵀ cov₂ F₁ need no F₂.
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
    factors = [cholesky_factor(cov_1), cholesky_factor(cov_2)]
    if factors[0] is None and factors[1] is None:
        # Eigenvectors are most of the work: those of one may do, better of the one of less rank.
        thin, other = (cov_1, cov_2) if spread(cov_1) < spread(cov_2) else (cov_2, cov_1)
        factor = eigen_factor(thin)
        traces = np.sum((mean_1 - mean_2) ** 2) + np.trace(cov_1) + np.trace(cov_2)
        scale = np.max(np.sum(factor**2, axis=0), initial=0.0) * np.linalg.norm(other)
        distance = distance_of_gram(traces, factor.T @ other @ factor, scale)
        if distance is not None:
            return distance
        factors[0 if thin is cov_1 else 1] = factor
    factors = [
        eigen_factor(cov) if factor is None else factor
        for cov, factor in zip((cov_1, cov_2), factors)
    ]
    return distance_of_factors(mean_1, factors[0], mean_2, factors[1])


def frechet_distance_of_samples(first, second):
    """Computes the squared Fréchet distance between the Gaussians fitted to two sets of samples.

    The same value as `frechet_distance` of their means and covariances. Where a set has fewer
    samples than dimensions its centred samples are the factor already, and no covariance is formed.

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
    first, second = check_features(first=first, second=second)
    (mean_1, factor_1), (mean_2, factor_2) = sample_factor(first), sample_factor(second)
    return distance_of_factors(mean_1, factor_1, mean_2, factor_2)


def covariance_factor(cov):
    """Returns F of shape (dim, rank) with F Fᵀ = cov, for a symmetric semi-definite `cov`."""
    factor = cholesky_factor(cov)
    return eigen_factor(cov) if factor is None else factor


def cholesky_factor(cov):
    """Returns Cholesky's factor where its pivots say that it can be trusted, else `None`.

    The share of a pivot in its diagonal doesn't depend on a feature's scale.
    """
    diagonal = np.diagonal(cov)
    if diagonal.min() <= 0:
        return None
    try:
        factor = np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        return None
    return factor if np.min(np.diagonal(factor) ** 2 / diagonal) > 1e-8 else None


def eigen_factor(cov):
    """Returns a factor made of eigenvectors, without those of rounding: 8 times the work."""
    values, vectors = np.linalg.eigh(cov)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def spread(cov):
    """Returns over how many directions the variance spreads, at most the rank."""
    return np.trace(cov) ** 2 / max(np.sum(cov**2), 1e-300)


def sample_factor(samples):
    """Returns the mean of samples and a factor of their covariance, which has ddof = 1."""
    if len(samples) > samples.shape[1] or len(samples) < 2:
        moments = compute_moments(samples)
        return moments.mean, covariance_factor(covariance(moments))
    mean = samples.mean(axis=0)
    return mean, (samples - mean).T / np.sqrt(len(samples) - 1)


def distance_of_factors(mean_1, factor_1, mean_2, factor_2):
    """Returns the squared Fréchet distance from means and factors of the covariances."""
    cross = factor_1.T @ factor_2  # (rank_1, rank_2)
    traces = np.sum((mean_1 - mean_2) ** 2) + np.sum(factor_1**2) + np.sum(factor_2**2)
    distance = None
    if not is_steep(cross, factor_1, factor_2, traces):
        gram = cross @ cross.T if cross.shape[0] <= cross.shape[1] else cross.T @ cross
        distance = distance_of_gram(traces, gram)
    if distance is None:
        distance = max(float(traces - 2.0 * np.linalg.svd(cross, compute_uv=False).sum()), 0.0)
    return distance


def distance_of_gram(traces, gram, scale=0.0):
    """Returns `traces` - 2 Σ√eigenvalues of `gram`, or `None` where that may lose digits.

    This is 3 times as fast as singular values, and enough where the distance is large against
    the error of the roots.

    Args:
        traces: Float.
        gram: Symmetric semi-definite array of shape (rank, rank).
        scale: Float, the size of what `gram` was made of, where its largest eigenvalue may be
            smaller than that.
    """
    if gram.size == 0:
        return float(traces)
    values = np.maximum(np.linalg.eigvalsh(gram), 0.0)
    distance = traces - 2.0 * np.sqrt(values).sum()
    error = 2.0 * root_error(values, ROUNDING * max(values[-1], scale))
    return None if error > ALLOWED * distance else max(float(distance), 0.0)


def root_error(values, rounding):
    """Returns what error to expect in Σ√values, of eigenvalues that are each off by `rounding`.

    A root has half the digits of its eigenvalue where that is small. Errors of either sign add up
    like independent ones; what is left of them as a root is concave, and what comes of
    eigenvalues that are nothing but rounding, has one sign.
    """
    roots = np.maximum(np.sqrt(values), 0.5 * np.sqrt(rounding) + 1e-300)
    errors = rounding / (2.0 * roots)
    return np.sqrt(np.sum(errors**2)) + np.sum(errors**2 / (2.0 * roots))


def is_steep(cross, factor_1, factor_2, traces):
    """Whether it is sure beforehand that `distance_of_gram` can't be trusted.

    The error goes with √Σ1/σ², which is at least √rank / the geometric mean of the singular
    values, and that mean is in the determinants of triangular factors.
    """
    pair = (factor_1, factor_2)
    if not all(len(x) == x.shape[1] and not np.triu(x, 1).any() for x in pair):
        return False
    vector = cross[:, 0]
    for _ in range(4):  # towards the largest singular value, from below
        vector = cross @ (cross.T @ (vector / np.linalg.norm(vector)))
    logs = sum(np.mean(np.log(np.diagonal(x))) for x in pair)
    least = ROUNDING * np.linalg.norm(vector) * np.sqrt(len(cross)) * np.exp(-logs)
    return bool(least > ALLOWED * (traces - 2.0 * np.linalg.norm(cross)))
