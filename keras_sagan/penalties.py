"""Gradient penalties of the discriminator, for `SAGAN.compile(penalty=…)`.

    model.compile(loss="relativistic", penalty=R1(10.0) + R2(10.0))  # As in R3GAN.

The penalties use the gradient of the logits with respect to the images after augmentation, squared
and summed in float32. Your own penalty can be any function. As the `__call__` of a subclass of
`Penalty`, it also supports `+` and has a configuration.
"""

from collections.abc import Callable, Sequence

import keras
from keras import KerasTensor, ops

from keras_sagan.checks import check_float
from keras_sagan.training import input_gradient

__all__ = ["GradientPenalty", "Penalty", "R1", "R2", "get"]


class Penalty:
    """The base class of penalties. The sum of two penalties is a list of both.

    Args:
        weight: Non-negative float that scales the penalty.

    Raises:
        ValueError: If `weight` is negative.
    """

    def __init__(self, weight: float):
        self.weight = check_float("weight", weight, minimum=0)

    def __add__(self, other) -> list:
        return [self, *get(other)]

    def __radd__(self, other) -> list:
        return [*get(other), self]

    def __repr__(self):
        return f"{type(self).__name__}(weight={self.weight})"

    def get_config(self) -> dict:
        return {"weight": self.weight}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_sagan")
class R1(Penalty):
    """`weight / 2 * mean(|gradient of D(real)|^2)`, with the mean over the images.

    It takes the arguments of `Penalty`.

    Example:

    >>> R1(10.0) + R2(10.0)
    [R1(weight=10.0), R2(weight=10.0)]

    Reference:
        [Mescheder et al., 2018](https://arxiv.org/abs/1801.04406), equation 9; `weight` is their
        gamma.
    """

    def __call__(self, judge: Callable, real: tuple, fake: tuple) -> KerasTensor:
        return 0.5 * self.weight * ops.mean(_squared_norms(judge, *real))


@keras.saving.register_keras_serializable(package="keras_sagan")
class R2(Penalty):
    """`weight / 2 * mean(|gradient of D(fake)|^2)`, with the mean over the images.

    It takes the arguments of `Penalty`.

    Reference:
        [Mescheder et al., 2018](https://arxiv.org/abs/1801.04406), equation 10.
    """

    def __call__(self, judge: Callable, real: tuple, fake: tuple) -> KerasTensor:
        return 0.5 * self.weight * ops.mean(_squared_norms(judge, *fake))


@keras.saving.register_keras_serializable(package="keras_sagan")
class GradientPenalty(Penalty):
    """`weight * mean((|gradient of D(x)| - 1)^2)`, the penalty of WGAN-GP.

    Each `x` is a random interpolation between a real and a fake image, with the real image's
    label. It takes the arguments of `Penalty`.

    Reference:
        [Gulrajani et al., 2017](https://arxiv.org/abs/1704.00028), equation 3, with `weight=10`.
    """

    def __call__(self, judge: Callable, real: tuple, fake: tuple, uniform: Callable) -> KerasTensor:
        (images, labels), others = real, ops.cast(fake[0], real[0].dtype)
        between = images + uniform(1)[:, :, None, None] * (others - images)
        # The gradient of the square root is infinite at 0.
        norms = ops.sqrt(_squared_norms(judge, between, labels) + 1e-12)
        return self.weight * ops.mean(ops.square(norms - 1.0))


def get(penalty: Callable | Sequence[Callable] | None) -> list:
    """Returns the argument `penalty` of `SAGAN.compile` as a list of functions.

    Raises:
        ValueError: If the list is empty, or a penalty isn't a function.
    """
    if penalty is None:
        return []
    found = list(penalty) if isinstance(penalty, (list, tuple)) else [penalty]
    if not found or any(isinstance(x, type) or not callable(x) for x in found):
        raise ValueError(
            "`penalty` must be a function, such as `R1(10.0)`, a list of functions, or None. "
            f"Received: penalty={penalty!r}"
        )
    return found


def _squared_norms(judge, images, labels):
    gradient = input_gradient(lambda x: judge(x, labels), images)
    return ops.sum(ops.square(ops.cast(gradient, "float32")), axis=(1, 2, 3))
