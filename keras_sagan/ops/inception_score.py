"""The Inception Score from logits, in float64 numpy."""

import numpy as np

from keras_sagan.ops.samples import check_features


def inception_score(logits, num_splits=1):
    """Computes exp(E[KL(p(y|x) ‖ p(y))]), on the whole or on consecutive splits.

    It rises where single images are classified with confidence and all classes appear. The score
    of few images is too low, so a mean over splits is below the score of the whole.

    Args:
        logits: Array of shape (num_samples, num_classes) with finite values.
        num_splits: Integer, the number of consecutive parts. Defaults to `1`.

    Returns:
        Float64 array of shape (num_splits,), each at least 1 and at most num_classes.

    Raises:
        ValueError: If `logits` isn't of rank 2 and finite, or there are fewer samples than splits.

    Example:

    >>> inception_score([[100.0, 0.0], [0.0, 100.0]])  # two classes, both certain
    array([2.])

    Reference:
        Salimans et al. 2016, [Improved Techniques for Training
        GANs](https://arxiv.org/abs/1606.03498), section 4.
    """
    (logits,) = check_features(logits=logits)
    if len(logits) < num_splits:
        raise ValueError(
            f"`logits` must have at least one sample in each of {num_splits} splits. "
            f"Received: {len(logits)} samples"
        )
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    bounds = [i * len(logits) // num_splits for i in range(num_splits + 1)]
    return np.array([_score(log_p[i:j]) for i, j in zip(bounds, bounds[1:])])


def _score(log_p):
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    # A class of probability 0 everywhere adds nothing: 0 · log 0 = 0.
    log_marginal = np.log(np.where(marginal > 0, marginal, 1.0))
    return np.exp((p * (log_p - log_marginal)).sum(axis=1).mean())
