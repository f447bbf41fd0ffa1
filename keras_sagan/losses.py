"""Adversarial losses: pairs of a generator loss and a discriminator loss.

A discriminator loss takes `(real_logits, fake_logits)`; a generator loss takes the same arguments
or only `(fake_logits)`. Each loss is a mean over the batch, a scalar in the dtype of the logits.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import KerasTensor, ops

from keras_sagan.checks import accepts


class AdversarialLoss(NamedTuple):
    """A pair of a generator loss and a discriminator loss, as described at the top of this module.

    Attributes:
        generator, discriminator: The two loss functions.
        threshold: Float or `None`, for the accuracy: images with a larger logit count as real.
            With `None`, real images are compared with the mean fake logit, and fake images with the
            mean real logit.
    """

    generator: Callable
    discriminator: Callable
    threshold: float | None = 0.0

    @property
    def uses_real_logits(self) -> bool:
        """Boolean, whether the generator loss takes two arguments: the real and the fake logits."""
        return not accepts(self.generator, 1)

    def of_generator(self, real_logits: KerasTensor, fake_logits: KerasTensor) -> KerasTensor:
        """Returns the generator loss."""
        logits = (real_logits, fake_logits) if self.uses_real_logits else (fake_logits,)
        return self.generator(*logits)


def hinge_generator_loss(fake_logits: KerasTensor) -> KerasTensor:
    """`-mean(fake)`. Reference: Zhang et al., 2019, equation 4."""
    return -ops.mean(fake_logits)


def hinge_discriminator_loss(real_logits: KerasTensor, fake_logits: KerasTensor) -> KerasTensor:
    """`mean(relu(1 - real)) + mean(relu(1 + fake))`. Reference: Zhang et al., 2019, equation 4."""
    return ops.mean(ops.relu(1.0 - real_logits)) + ops.mean(ops.relu(1.0 + fake_logits))


def non_saturating_generator_loss(fake_logits: KerasTensor) -> KerasTensor:
    """`mean(softplus(-fake))`. Reference: Goodfellow et al., 2014, section 3."""
    return ops.mean(ops.softplus(-fake_logits))


def non_saturating_discriminator_loss(
    real_logits: KerasTensor, fake_logits: KerasTensor
) -> KerasTensor:
    """`mean(softplus(-real)) + mean(softplus(fake))`, the binary cross-entropy."""
    return ops.mean(ops.softplus(-real_logits)) + ops.mean(ops.softplus(fake_logits))


def wasserstein_generator_loss(fake_logits: KerasTensor) -> KerasTensor:
    """`-mean(fake)`. Reference: Arjovsky et al., 2017."""
    return -ops.mean(fake_logits)


def wasserstein_discriminator_loss(
    real_logits: KerasTensor, fake_logits: KerasTensor
) -> KerasTensor:
    """`mean(fake) - mean(real)`; spectral normalization bounds the critic's Lipschitz constant."""
    return ops.mean(fake_logits) - ops.mean(real_logits)


def least_squares_generator_loss(fake_logits: KerasTensor) -> KerasTensor:
    """`mean((fake - 1)^2) / 2`. Reference: Mao et al., 2017, equation 9."""
    return 0.5 * ops.mean(ops.square(fake_logits - 1.0))


def least_squares_discriminator_loss(
    real_logits: KerasTensor, fake_logits: KerasTensor
) -> KerasTensor:
    """`mean((real - 1)^2) / 2 + mean(fake^2) / 2`. Reference: Mao et al., 2017, equation 9."""
    return 0.5 * (ops.mean(ops.square(real_logits - 1.0)) + ops.mean(ops.square(fake_logits)))


def relativistic_generator_loss(real_logits: KerasTensor, fake_logits: KerasTensor) -> KerasTensor:
    """`mean(softplus(real - fake))`, where each real image is paired with a fake image.

    Reference: Jolicoeur-Martineau, 2018, section 3.2 (RSGAN); Huang et al., 2024 (R3GAN).
    """
    return ops.mean(ops.softplus(real_logits - fake_logits))


def relativistic_discriminator_loss(
    real_logits: KerasTensor, fake_logits: KerasTensor
) -> KerasTensor:
    """`mean(softplus(fake - real))`, where each real image is paired with a fake image."""
    return ops.mean(ops.softplus(fake_logits - real_logits))


def relativistic_average_generator_loss(
    real_logits: KerasTensor, fake_logits: KerasTensor
) -> KerasTensor:
    """`mean(softplus(real - mean(fake))) + mean(softplus(mean(real) - fake))`, within each replica.

    Reference: Jolicoeur-Martineau, 2018, section 3.3 (RaSGAN), in non-saturating form.
    """
    return relativistic_average_discriminator_loss(fake_logits, real_logits)


def relativistic_average_discriminator_loss(
    real_logits: KerasTensor, fake_logits: KerasTensor
) -> KerasTensor:
    """`mean(softplus(mean(fake) - real)) + mean(softplus(fake - mean(real)))`."""
    real_mean, fake_mean = ops.mean(real_logits), ops.mean(fake_logits)
    real_loss = ops.mean(ops.softplus(fake_mean - real_logits))
    return real_loss + ops.mean(ops.softplus(fake_logits - real_mean))


LOSSES = {
    "hinge": AdversarialLoss(hinge_generator_loss, hinge_discriminator_loss),
    "non_saturating": AdversarialLoss(
        non_saturating_generator_loss, non_saturating_discriminator_loss
    ),
    "wasserstein": AdversarialLoss(
        wasserstein_generator_loss, wasserstein_discriminator_loss, threshold=None
    ),
    "least_squares": AdversarialLoss(
        least_squares_generator_loss, least_squares_discriminator_loss, threshold=0.5
    ),
    "relativistic": AdversarialLoss(
        relativistic_generator_loss, relativistic_discriminator_loss, threshold=None
    ),
    "relativistic_average": AdversarialLoss(
        relativistic_average_generator_loss,
        relativistic_average_discriminator_loss,
        threshold=None,
    ),
}
"""The named losses of `get` and `SAGAN.compile(loss=…)`."""


def get(loss: str | tuple[Callable, Callable] | AdversarialLoss) -> AdversarialLoss:
    """Converts a name or a pair of functions, as in `SAGAN.compile`, to an `AdversarialLoss`.

    A pair has the threshold 0, or `None` if its generator loss takes real logits, as relativistic
    losses do.

    Raises:
        ValueError: If `loss` is neither a known name nor a pair of functions.
    """
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]
    is_pair = isinstance(loss, (tuple, list)) and len(loss) in (2, 3)
    if is_pair and all(map(callable, loss[:2])) and accepts(loss[1], 2):
        found = AdversarialLoss(*loss)
        is_relativistic = len(loss) == 2 and found.uses_real_logits
        return found._replace(threshold=None) if is_relativistic else found
    raise ValueError(
        f"`loss` must be one of {sorted(LOSSES)} or a pair of functions "
        "(generator_loss, discriminator_loss), of which the second takes two arguments. "
        f"Received: loss={loss!r}"
    )
