"""Selects images by their logits, by rejection sampling or by taking the best of many images."""

import numpy as np

# Maps each method to its arguments and their defaults.
METHODS = {"rejection": {"gamma": None, "percentile": 80.0}, "top": {"ratio": 4}}
BURN_IN = 1000  # The number of images per class for estimating the largest logit.
MOST = 1000  # The maximum number of candidates per image before `accepted` raises an error.
EPSILON = 1e-8


def select(search, candidates, labels, count, rng):
    """Returns latents and logits of `count` images, and the share of accepted candidates.

    `search` is one of the functions below, `best` or `accepted`. `candidates` is a function
    `(count, label, rng) -> latents, logits` that generates and rates candidates. Each class uses
    separate random numbers, so its images don't depend on the other classes. The selection uses
    only numpy, so every backend selects the same images, apart from rounding errors.
    """
    root, drawn, latents = int(rng.integers(2**62)), 0, [None] * count
    logits = np.empty(count, "float32")
    for label in [None] if labels is None else np.unique(labels).tolist():
        places = np.arange(count) if label is None else np.flatnonzero(labels == label)
        own = np.random.default_rng([root, label or 0])

        def judged(number, label=label, own=own):
            found, values = candidates(number, label, own)
            if not np.isfinite(values).all():
                raise ValueError(
                    "`method` needs a discriminator with finite logits. Received: "
                    f"{np.count_nonzero(~np.isfinite(values))} of {number} logits aren't finite"
                )
            return found, values

        *found, number = search(judged, len(places), own)
        drawn += number
        for place, latent, logit in zip(places, *found):
            latents[place], logits[place] = latent, logit
    return np.stack(latents), logits, float(count / drawn)


def best(candidates, count, rng, ratio):
    """Returns latents and logits of the `count` best of `ratio * count` candidates, best first."""
    latents, logits = candidates(ratio * count)
    order = np.argsort(-logits, kind="stable")[:count]
    return latents[order], logits[order], len(logits)


def accepted(candidates, count, rng, gamma=None, percentile=80.0):
    """Draws candidates until `count` are accepted (algorithm 1 of Azadi et al., 2019)."""
    burn_in = candidates(BURN_IN)[1]
    largest, drawn, latents, logits = burn_in.max(), 0, [], []
    while len(logits) < count:
        if drawn >= MOST * count + BURN_IN:
            raise ValueError(
                "`gamma` or `percentile` must be lower. Received: "
                f"gamma={gamma}, percentile={percentile}, by which {len(logits)} of {drawn} images "
                "were accepted"
            )
        size = max(64, 4 * (count - len(logits)))
        found, values = candidates(size)
        draws = rng.random(size)
        largest = max(largest, values.max())
        shares = acceptance(values, largest, burn_in, gamma, percentile)
        taken = np.flatnonzero(draws < shares)
        if len(taken) >= count - len(logits):  # Later candidates aren't used, so don't count them.
            taken = taken[: count - len(logits)]
            drawn += taken[-1] + 1
        else:
            drawn += size
        latents.extend(found[taken])
        logits.extend(values[taken])
    return latents, logits, drawn


def acceptance(logits, largest, burn_in, gamma=None, percentile=80.0):
    """Returns, for each logit, the probability of accepting an image with that logit.

    The probability is `sigmoid(F - gamma)` with `F = d - log(1 - exp(d - epsilon))` and
    `d = logit - largest`. By default, `F` is also computed for `burn_in`, the logits of `BURN_IN`
    additional images, and `gamma` is a percentile of these values.
    """

    def ratios(x):
        distance = np.asarray(x, "float64") - largest
        return distance - np.log1p(-np.exp(distance - EPSILON))

    gamma = np.percentile(ratios(burn_in), percentile) if gamma is None else gamma
    return 1.0 / (1.0 + np.exp(np.minimum(gamma - ratios(logits), 700.0)))
