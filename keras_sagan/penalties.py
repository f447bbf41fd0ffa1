"""Penalties on the discriminator, for `SAGAN.compile(penalty=…)`.

    model.compile(loss="relativistic", penalty=R1(10.0) + R2(10.0))  # As in R3GAN.

`R1`, `R2` and `GradientPenalty` penalize the gradient of the logits with respect to the augmented
images. The squared norm of the gradient is computed in float32. `LeCam` and
`ConsistencyRegularization` are meant for small datasets, and penalize the logits. A custom penalty
can be any function, or a subclass of `Penalty`, which also supports `every`, `+` and `get_config`.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from keras_sagan.checks import MAX_SIZE, accepts, check_float, check_function, check_integer
from keras_sagan.training import input_gradient
from keras_sagan.training.slots import augmented

__all__ = ["ConsistencyRegularization", "GradientPenalty", "LeCam", "Penalty", "R1", "R2", "get"]


class Penalty:
    """The base class of penalties. Adding two penalties returns a list of both.

    A subclass defines `__call__(judge, real, fake)`; see `penalty` in `SAGAN.compile`.

    Args:
        weight: Non-negative float that scales the penalty.
        every: Positive integer `k`, for lazy regularization: the penalty is computed only in every
            `k`-th update of the discriminator, and is multiplied by `k`. `d_loss` includes the
            penalty only in every `k`-th update. Lazy regularization saves time, but not memory.

    Raises:
        ValueError: If `weight` is negative, or `every` is below 1.

    Reference: [Karras et al., 2020](https://arxiv.org/abs/1912.04958), section 3.1, for `every`.
    """

    every = 1
    uses_logits = False  # Whether a lazy penalty needs `judge.logits`, which takes another pass.

    def __init__(self, weight: float, every: int = 1):
        self.weight = check_float("weight", weight, minimum=0)
        self.every = check_integer("every", every, maximum=MAX_SIZE)

    def __add__(self, other) -> list:
        return [self, *get(other)]

    def __radd__(self, other) -> list:
        return [*get(other), self]

    def __repr__(self):
        values = ", ".join(f"{name}={value}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({values})"

    def get_config(self) -> dict:
        return {"weight": self.weight, "every": self.every}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_sagan")
class R1(Penalty):
    """`weight / 2 * mean(|gradient of D(real)|^2)`; the arguments are as in `Penalty`.

    Example:
    >>> R1(10.0, every=16) + R2(10.0)
    [R1(weight=10.0, every=16), R2(weight=10.0, every=1)]

    Reference: [Mescheder et al., 2018](https://arxiv.org/abs/1801.04406), equation 9, where gamma
    is `weight`.
    """

    def __call__(self, judge: Callable, real: tuple, fake: tuple) -> KerasTensor:
        return 0.5 * self.weight * ops.mean(_squared_norms(judge, *real))


@keras.saving.register_keras_serializable(package="keras_sagan")
class R2(Penalty):
    """`weight / 2 * mean(|gradient of D(fake)|^2)`; the arguments are as in `Penalty`.

    Reference: [Mescheder et al., 2018](https://arxiv.org/abs/1801.04406), equation 10.
    """

    def __call__(self, judge: Callable, real: tuple, fake: tuple) -> KerasTensor:
        return 0.5 * self.weight * ops.mean(_squared_norms(judge, *fake))


@keras.saving.register_keras_serializable(package="keras_sagan")
class GradientPenalty(Penalty):
    """`weight * mean((|gradient of D(x)| - 1)^2)`, the penalty of WGAN-GP.

    Each `x` is a random interpolation between a real and a fake image, with the real image's label.
    The arguments are as in `Penalty`.

    Reference: [Gulrajani et al., 2017](https://arxiv.org/abs/1704.00028), equation 3, with
    `weight=10`.
    """

    def __call__(self, judge: Callable, real: tuple, fake: tuple, uniform: Callable) -> KerasTensor:
        (images, labels), others = real, ops.cast(fake[0], real[0].dtype)
        between = images + uniform(1)[:, :, None, None] * (others - images)
        # Add 1e-12, because the gradient of the square root is infinite at 0.
        norms = ops.sqrt(_squared_norms(judge, between, labels) + 1e-12)
        return self.weight * ops.mean(ops.square(norms - 1.0))


@keras.saving.register_keras_serializable(package="keras_sagan")
class LeCam(Penalty):
    """`weight * (mean((D(real) - fake_average)^2) + mean((D(fake) - real_average)^2))`.

    The averages are bias-corrected moving averages of the real and the fake logits, and the
    gradient treats them as constants. The averages are computed over all replicas, and are saved
    with the model. In the first update of the discriminator, there are no averages yet, and the
    penalty is 0. The penalty pulls the real and the fake logits together, so that the discriminator
    can't become overconfident on a small dataset.

    The class follows the paper's equation, while the authors' code penalizes only real logits above
    `fake_average` and fake logits below `real_average`.

    Args:
        weight: Non-negative float; the authors use 0.01 to 0.5.
        decay: Float in [0, 1), the decay of the averages per discriminator update.
        every: As in `Penalty`. The averages change in each update of the discriminator. With
            `every=1`, no additional pass is needed, so a larger `every` saves no time.

    Raises:
        ValueError: If `weight` is negative, `decay` is out of range, or `every` is below 1.

    Example:
    >>> LeCam(0.1)
    LeCam(weight=0.1, every=1, decay=0.99)

    Reference: [Tseng et al., 2021](https://arxiv.org/abs/2104.03310), equations 5 and 6.
    """

    uses_logits = True

    def __init__(self, weight: float, decay: float = 0.99, every: int = 1):
        super().__init__(weight, every)
        self.decay = check_float("decay", decay, minimum=0, below=1)
        self.state: list = [0.0] * 3  # The initial values of the variables that `bind` creates.

    def bind(self, add_variable: Callable, loss: tuple) -> "LeCam":
        """Returns a copy with variables for the two averages and their bias correction."""
        bound = copy.copy(self)
        names = ("real_average", "fake_average", "average_of_1")
        bound.state = [add_variable(name) for name in names]
        return bound

    def __call__(self, judge: Any, real: tuple, fake: tuple) -> KerasTensor:
        sums = [ops.convert_to_tensor(x, "float32") for x in self.state]
        has_averages = ops.cast(sums[2] > 0.0, "float32")
        real_average, fake_average = (x / ops.maximum(sums[2], 1e-12) for x in sums[:2])
        real_logits, fake_logits = judge.logits
        value = ops.mean(ops.square(real_logits - fake_average))
        value += ops.mean(ops.square(fake_logits - real_average))
        return self.weight * has_averages * value

    def moved(
        self,
        real_logits: KerasTensor,
        fake_logits: KerasTensor,
        num_images: KerasTensor,
        mean: Callable,
    ) -> list:
        """Returns the new values of the state; see `keras_sagan.training.slots`."""
        values = mean(real_logits), mean(fake_logits), 1.0
        pairs = zip(self.state, values)
        return [self.decay * old.value + (1.0 - self.decay) * value for old, value in pairs]

    def get_config(self) -> dict:
        return {**super().get_config(), "decay": self.decay}


@keras.saving.register_keras_serializable(package="keras_sagan")
class ConsistencyRegularization(Penalty):
    """`real_weight * mean((D(real) - D(T(real)))^2)`, plus the same term for fake images.

    `T` is an augmentation: the discriminator should return similar logits for an image and its
    augmented version (balanced consistency regularization, bCR). The adversarial loss and the
    generator use only the original images, unless you also pass an `augmentation` to
    `SAGAN.compile`. In that case, `T` is applied to the augmented images.

    Args:
        augmentation: Function `(images, uniform) -> images`, as in `SAGAN.compile`, such as
            `DifferentiableAugmentation("translation", flip=True)`. An adaptive probability isn't
            allowed.
        real_weight, fake_weight: Non-negative floats, the weights of the two terms.
        every: As in `Penalty`.

    Raises:
        ValueError: If a weight is negative, `every` is below 1, or `augmentation` isn't a function,
            is adaptive, or changes the shape of images.

    Reference: [Zhao et al., 2020](https://arxiv.org/abs/2002.04724), section 3.1.
    """

    uses_logits = True

    def __init__(
        self,
        augmentation: Callable,
        real_weight: float = 10.0,
        fake_weight: float = 10.0,
        every: int = 1,
    ):
        self.every = check_integer("every", every, maximum=MAX_SIZE)
        self.augmentation = check_function("augmentation", augmentation)
        self.real_weight = check_float("real_weight", real_weight, minimum=0)
        self.fake_weight = check_float("fake_weight", fake_weight, minimum=0)
        if getattr(augmentation, "probability", None) == "adaptive":
            raise ValueError(
                "`augmentation` of a penalty must have a fixed probability: only that of "
                "`SAGAN.compile` may be adaptive. Received: an augmentation with "
                'probability="adaptive"'
            )

    def __call__(self, judge: Any, real: tuple, fake: tuple, uniform: Callable) -> KerasTensor:
        total = 0.0
        weights = self.real_weight, self.fake_weight
        for weight, logits, (images, labels) in zip(weights, judge.logits, (real, fake)):
            changed = augmented(self.augmentation, images, uniform)
            total += weight * ops.mean(ops.square(logits - judge(changed, labels)))
        return total

    def get_config(self) -> dict:
        return {
            "augmentation": keras.saving.serialize_keras_object(self.augmentation),
            "real_weight": self.real_weight,
            "fake_weight": self.fake_weight,
            "every": self.every,
        }

    @classmethod
    def from_config(cls, config):
        augmentation = keras.saving.deserialize_keras_object(config["augmentation"])
        return cls(**{**config, "augmentation": augmentation})


def get(penalty: Callable | Sequence[Callable] | None) -> list:
    """Converts a penalty, a list of penalties or `None` to a list of functions.

    Raises:
        ValueError: If the list is empty, or a penalty isn't a function.
    """
    if penalty is None:
        return []
    found = list(penalty) if isinstance(penalty, (list, tuple)) else [penalty]
    if not found or not all(map(_is_penalty, found)):
        raise ValueError(
            "`penalty` must be a function of (judge, real, fake), such as `R1(10.0)`, a list of "
            "such functions, or None. "
            f"Received: penalty={penalty!r}"
        )
    return found


def _is_penalty(penalty):
    return not isinstance(penalty, type) and (accepts(penalty, 3) or accepts(penalty, 4))


def _squared_norms(judge, images, labels):
    gradient = input_gradient(lambda x: judge(x, labels), images)
    return ops.sum(ops.square(ops.cast(gradient, "float32")), axis=(1, 2, 3))
