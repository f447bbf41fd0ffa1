"""Adversarial losses, each a pair: one for the generator, one for the discriminator.

A discriminator loss takes `(real_logits, fake_logits)`; a generator loss takes `(fake_logits)`, or
both like the discriminator's. They return the mean over the batch as a scalar, in the dtype of the
logits.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

from keras import ops


class AdversarialLoss(NamedTuple):
    """A generator loss and a discriminator loss that belong together.

    Attributes:
        generator: Function `(fake_logits) -> scalar`, or `(real_logits, fake_logits) -> scalar`
            for a relativistic loss.
        discriminator: Function `(real_logits, fake_logits) -> scalar`.
        threshold: Float, the logit above which the discriminator says "real", for its accuracy.
    """

    generator: Callable
    discriminator: Callable
    threshold: float = 0.0

    @property
    def uses_real_logits(self):
        """Whether the generator's loss needs two arguments: the real logits before the fake."""
        try:
            inspect.signature(self.generator).bind(None)
        except TypeError:
            return True
        except ValueError:  # A function of C has no signature.
            return False
        return False

    def of_generator(self, real_logits, fake_logits):
        """Returns the generator's loss from the logits that it takes."""
        logits = (real_logits, fake_logits) if self.uses_real_logits else (fake_logits,)
        return self.generator(*logits)


def hinge_generator_loss(fake_logits):
    """`-mean(fake)`. Reference: Zhang et al., 2019, equation 4."""
    return -ops.mean(fake_logits)


def hinge_discriminator_loss(real_logits, fake_logits):
    """`mean(relu(1 - real)) + mean(relu(1 + fake))`. Reference: Zhang et al., 2019, equation 4."""
    return ops.mean(ops.relu(1.0 - real_logits)) + ops.mean(ops.relu(1.0 + fake_logits))


def non_saturating_generator_loss(fake_logits):
    """`mean(softplus(-fake))`. Reference: Goodfellow et al., 2014, section 3."""
    return ops.mean(ops.softplus(-fake_logits))


def non_saturating_discriminator_loss(real_logits, fake_logits):
    """`mean(softplus(-real)) + mean(softplus(fake))`: the cross-entropy of the two classes."""
    return ops.mean(ops.softplus(-real_logits)) + ops.mean(ops.softplus(fake_logits))


def wasserstein_generator_loss(fake_logits):
    """`-mean(fake)`. Reference: Arjovsky et al., 2017."""
    return -ops.mean(fake_logits)


def wasserstein_discriminator_loss(real_logits, fake_logits):
    """`mean(fake) - mean(real)`; the spectral norms bound the critic's slope."""
    return ops.mean(fake_logits) - ops.mean(real_logits)


def least_squares_generator_loss(fake_logits):
    """`mean((fake - 1)^2) / 2`. Reference: Mao et al., 2017, equation 9."""
    return 0.5 * ops.mean(ops.square(fake_logits - 1.0))


def least_squares_discriminator_loss(real_logits, fake_logits):
    """`mean((real - 1)^2) / 2 + mean(fake^2) / 2`. Reference: Mao et al., 2017, equation 9."""
    return 0.5 * (ops.mean(ops.square(real_logits - 1.0)) + ops.mean(ops.square(fake_logits)))


LOSSES = {
    "hinge": AdversarialLoss(hinge_generator_loss, hinge_discriminator_loss),
    "non_saturating": AdversarialLoss(
        non_saturating_generator_loss, non_saturating_discriminator_loss
    ),
    "wasserstein": AdversarialLoss(wasserstein_generator_loss, wasserstein_discriminator_loss),
    "least_squares": AdversarialLoss(
        least_squares_generator_loss, least_squares_discriminator_loss, threshold=0.5
    ),
}
"""The losses that have a name, for `get` and `SAGAN.compile(loss=…)`."""


def get(loss):
    """Returns the adversarial loss of a name, or of a pair of functions.

    Args:
        loss: `"hinge"`, `"non_saturating"`, `"wasserstein"`, `"least_squares"`, or a pair
            `(generator_loss, discriminator_loss)` of functions as described on top of this file.
            A generator loss that needs two arguments gets the real logits first.

    Returns:
        An `AdversarialLoss`.

    Raises:
        ValueError: For another name, or for something that is not a pair of functions.
    """
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]
    is_pair = isinstance(loss, (tuple, list)) and len(loss) in (2, 3)
    if (is_pair or isinstance(loss, AdversarialLoss)) and all(map(callable, loss[:2])):
        return AdversarialLoss(*loss)
    raise ValueError(
        f"`loss` must be one of {sorted(LOSSES)} or a pair of functions "
        f"(generator_loss, discriminator_loss). Received: loss={loss!r}"
    )
