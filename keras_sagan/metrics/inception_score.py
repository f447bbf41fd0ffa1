"""The Inception Score, as a NumPy function in float64 and as a Keras metric."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_sagan.checks import check_boolean, check_integer
from keras_sagan.metrics.features import FeatureMetric, check_features, shuffled

_ROUNDING = 1e-2  # The rounding error of a sum of 1,000 probabilities in half precision.


def inception_score(
    logits: np.ndarray, num_splits: int = 1, from_logits: bool = True
) -> np.ndarray:
    """Computes exp(E[KL(p(y|x) ‖ p(y))]) of all samples, or of each of several splits.

    The score is high if each image is classified confidently and all classes appear. With few
    images, the score is biased downwards, so the mean over splits is lower than the score of all
    images together.

    Args:
        logits: Array of shape (num_samples, num_classes) with finite values.
        num_splits: The number of consecutive splits.
        from_logits: `False` if `logits` are probabilities, such as the output of a softmax.

    Returns:
        Float64 array of shape (num_splits,), with values between 1 and num_classes.

    Raises:
        ValueError: If `logits` don't have rank 2 or aren't finite, if there are fewer samples than
            splits, or if `logits` don't match `from_logits`. Rows are probabilities if they sum to
            1 and have no negative values.

    Example:
    >>> inception_score([[100.0, 0.0], [0.0, 100.0]])  # two classes, both certain
    array([2.])

    Reference: [Salimans et al., 2016](https://arxiv.org/abs/1606.03498), section 4.
    """
    (logits,) = check_features(logits=logits)
    if len(logits) < num_splits:
        raise ValueError(
            f"`logits` must have at least one sample in each of {num_splits} splits. "
            f"Received: {len(logits)} samples"
        )
    _check_from_logits(logits, from_logits)
    if from_logits:
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    else:
        p = logits / logits.sum(axis=1, keepdims=True)
        log_p = np.log(np.maximum(p, np.finfo(p.dtype).tiny))
    bounds = [i * len(logits) // num_splits for i in range(num_splits + 1)]
    return np.array([_score(log_p[i:j]) for i, j in zip(bounds, bounds[1:])])


def _score(log_p):
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    # A class whose probability is always 0 adds nothing: 0 · log 0 = 0.
    log_marginal = np.log(np.where(marginal > 0, marginal, 1.0))
    return np.exp((p * (log_p - log_marginal)).sum(axis=1).mean())


def _check_from_logits(outputs: np.ndarray, from_logits: bool):
    """Raises an error if outputs (num_samples, num_classes) don't match `from_logits`."""
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


@keras.saving.register_keras_serializable(package="keras_sagan")
class InceptionScore(FeatureMetric):
    """Inception Score of generated images: the mean over splits, and the score of all images.

    Most papers report the mean over 10 splits of 50,000 images; TF-GAN's
    `classifier_score_from_logits` uses all images at once. The metric keeps all logits in memory.
    It accepts and ignores real images, so that you can update all metrics in the same way. See
    `inception_score` for the reference.

    Args:
        feature_extractor: A Keras model or callable that maps images in [-1, 1] to logits, or an
            extractor whose `named_outputs` include `"logits"`.
        value_range, name, batch_size: As in `FrechetInceptionDistance`.
        num_splits: The number of splits.
        shuffle_seed: The seed for shuffling the images before they are split, because images may be
            sorted by class. If `None`, images keep the order in which they were added.
        from_logits: `False` for an extractor that returns probabilities.

    Raises:
        ValueError: In the same cases as `FrechetInceptionDistance`. `result` also raises it if
            there are fewer images than splits, or if the extractor's outputs don't match
            `from_logits`.

    Example:
    >>> score = InceptionScore(lambda x: 100.0 * x[:, 0, 0], num_splits=1)
    >>> score.update_state(255 * np.eye(2, dtype="uint8")[:, None, None], real=False)
    >>> score.result()["inception_score"]
    2.0
    """

    _direction = "up"
    default_name = "inception_score"
    needs = {"real": (), "generated": ("logits",)}
    settings = ("num_splits", "shuffle_seed", "from_logits")
    formula = (
        "Inception Score, mean and population deviation over {num_splits} splits, "
        "shuffled by seed {shuffle_seed}"
    )

    def __init__(
        self,
        feature_extractor: Callable,
        value_range: Sequence[float] | None = None,
        num_splits: int = 10,
        shuffle_seed: int | None = 0,
        name: str | None = "inception_score",
        batch_size: int = 64,
        from_logits: bool = True,
    ):
        super().__init__(feature_extractor, value_range, name, batch_size)
        self.num_splits = self.least = check_integer("num_splits", num_splits, 1)
        self.shuffle_seed = check_integer("shuffle_seed", shuffle_seed, 0, optional=True)
        self.from_logits = check_boolean("from_logits", from_logits)

    def compare(self, real: Any, generated: Any) -> dict[str, float]:
        """Returns a dictionary of floats; keys begin with the metric's name. Higher is better.

        `"inception_score"` is the mean score of the splits, `"inception_score_std"` is the standard
        deviation of their scores, and `"inception_score_single"` is the score of all images at
        once.
        """
        logits = shuffled(generated.arrays["logits"], self.shuffle_seed)
        scores = inception_score(logits, self.num_splits, self.from_logits)
        return {
            self.name: float(scores.mean()),
            f"{self.name}_std": float(scores.std()),
            f"{self.name}_single": float(inception_score(logits, 1, self.from_logits)[0]),
        }
