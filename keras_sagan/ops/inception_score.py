"""The Inception Score from logits or probabilities, in float64 numpy."""

import numpy as np

from keras_sagan.ops.samples import check_features

_ROUNDING = 1e-2  # of the sum of 1,000 probabilities in half precision


def inception_score(logits, num_splits=1, from_logits=True):
    """Computes exp(E[KL(p(y|x) ‖ p(y))]), on the whole or on consecutive splits.

    It rises where single images are classified with confidence and all classes appear. The score
    of few images is too low, so a mean over splits is below the score of the whole.

    Args:
        logits: Array of shape (num_samples, num_classes) with finite values.
        num_splits: Integer, the number of consecutive parts. Defaults to `1`.
        from_logits: Boolean. `False` for probabilities, such as a softmax returns, in place of
            logits. Defaults to `True`.

    Returns:
        Float64 array of shape (num_splits,), each at least 1 and at most num_classes.

    Raises:
        ValueError: If `logits` isn't of rank 2 and finite, there are fewer samples than splits, or
            `logits` are probabilities (rows without negative values that sum to 1) although
            `from_logits` is `True`, or aren't although it is `False`.

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
    check_from_logits(logits, from_logits)
    if from_logits:
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    else:
        p = logits / logits.sum(axis=1, keepdims=True)
        log_p = np.log(np.maximum(p, np.finfo(p.dtype).tiny))
    bounds = [i * len(logits) // num_splits for i in range(num_splits + 1)]
    return np.array([_score(log_p[i:j]) for i, j in zip(bounds, bounds[1:])])


def check_from_logits(outputs, from_logits):
    """Raises for a classifier's outputs that can't be what `from_logits` says they are.

    Args:
        outputs: Array of shape (num_samples, num_classes).
        from_logits: Boolean.
    """
    sums = outputs.sum(axis=1)
    are_probabilities = bool((outputs >= 0).all() and (np.abs(sums - 1) <= _ROUNDING).all())
    if are_probabilities and from_logits:
        raise ValueError(
            "With `from_logits=True`, an Inception Score needs a classifier's logits, the values "
            "before its softmax: build the `feature_extractor` without a softmax (in "
            "keras.applications `classifier_activation=None`), or set `from_logits=False`. "
            "Received: probabilities, as no value is negative and each row sums to 1"
        )
    if not are_probabilities and not from_logits:
        raise ValueError(
            "With `from_logits=False`, an Inception Score needs probabilities: no value may be "
            f"negative, and each row must sum to 1. Received: values in [{outputs.min():g}, "
            f"{outputs.max():g}] and sums in [{sums.min():g}, {sums.max():g}]"
        )


def _score(log_p):
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    # A class of probability 0 everywhere adds nothing: 0 · log 0 = 0.
    log_marginal = np.log(np.where(marginal > 0, marginal, 1.0))
    return np.exp((p * (log_p - log_marginal)).sum(axis=1).mean())
