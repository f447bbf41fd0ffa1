"""An optimizer that combines both networks' optimizers, and schedules that follow `model.steps`."""

import math
import types
import warnings

import keras
from keras import ops
from keras.optimizers import Optimizer

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule
NAMES = ("g_optimizer", "d_optimizer")


@keras.saving.register_keras_serializable(package="keras_sagan")
class GANOptimizer(Optimizer):
    """The `optimizer` of a `SAGAN`, which combines the optimizers of both networks.

    Keras's callbacks change both optimizers through a `GANOptimizer`. `learning_rate` is the
    generator's rate; setting it scales the discriminator's rate by the same factor. Setting the
    rate of only one optimizer changes the ratio of the rates. `GANOptimizer` applies no gradients,
    and isn't saved.

    Args:
        g_optimizer, d_optimizer: Keras optimizers of the generator and of the discriminator.

    Raises:
        TypeError: If `learning_rate` is set while one of the rates is a schedule or a function.
        ValueError: If `learning_rate` is set and the generator's rate has always been 0.

    Example:
    >>> sgd = keras.optimizers.SGD
    >>> optimizer = GANOptimizer(sgd(1e-4), sgd(4e-4))
    >>> optimizer.learning_rate = 1e-3
    >>> print(f"{float(optimizer.d_optimizer.learning_rate):.4f}")
    0.0040
    """

    def __init__(self, g_optimizer: Optimizer, d_optimizer: Optimizer, name: str = "gan_optimizer"):
        super().__init__(learning_rate=0.0, name=name)
        self.g_optimizer = g_optimizer
        self.d_optimizer = d_optimizer
        self._ratio = None  # The discriminator's rate divided by the generator's.
        if all(isinstance(x, keras.Variable) for x in self._rates().values()):
            self._find_ratio()
        self.built = True  # From now on, only `learning_rate` and private attributes can be set.

    def __setattr__(self, name, value):
        is_own = name in ("learning_rate", "built") or name.startswith("_")
        if getattr(self, "built", False) and not is_own:
            raise AttributeError(
                f"`{name}` must be set on one network's optimizer: `model.g_optimizer.{name}` or "
                f"`model.d_optimizer.{name}`. Received: {name}={value} for both"
            )
        super().__setattr__(name, value)

    @property
    def learning_rate(self):
        rate = self.g_optimizer.learning_rate
        return SharedLearningRate(self, rate) if isinstance(rate, keras.Variable) else rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        received = f"Received: learning_rate={learning_rate}"
        if callable(learning_rate):
            raise TypeError(
                "`learning_rate` of both networks must be a number: give `model.g_optimizer` and "
                f"`model.d_optimizer` a schedule each when you make them. {received}"
            )
        rates = self._rates()
        for name, rate in rates.items():
            if not isinstance(rate, keras.Variable):
                raise TypeError(
                    "`learning_rate` of both networks can't be set, since the rate of "
                    f"`{name}` is a LearningRateSchedule or a function. Make both optimizers with "
                    f"a number, or remove the callback that sets the rate. {received}"
                )
        ratio = self._find_ratio()
        if ratio is None:
            raise ValueError(
                "`learning_rate` of both networks can't be set, since the generator's is 0 and "
                "has no ratio to the discriminator's. Set `model.g_optimizer.learning_rate` and "
                f"`model.d_optimizer.learning_rate` on their own. {received}"
            )
        g_rate, d_rate = rates.values()
        before = ops.copy(g_rate)
        self.g_optimizer.learning_rate = learning_rate
        # Don't change the discriminator's rate if the generator's rate stays the same.
        is_same = ops.equal(g_rate, before)
        self.d_optimizer.learning_rate = ops.where(is_same, d_rate.value, learning_rate * ratio)

    def _rates(self):
        return {name: getattr(getattr(self, name), "learning_rate", None) for name in NAMES}

    def _find_ratio(self):
        """Returns the ratio of the discriminator's rate to the generator's, or `None` if unknown.

        The ratio is stored, because rounded rates don't determine it exactly, and rates near 0
        don't determine it at all. The ratio changes if the rate of only one optimizer is set.
        """
        try:
            g_rate, d_rate = map(number, self._rates().values())
        except NotImplementedError:  # Variables have no values inside a compiled function.
            return self._ratio
        if abs(g_rate) > 1e-30 and math.isfinite(d_rate):
            if d_rate == 0:  # The discriminator is frozen.
                return 0.0
            ratio = d_rate / g_rate
            short = float(f"{ratio:.6g}")  # Undo rounding of float32 rates: 2.4999998 -> 2.5.
            if math.isclose(short, ratio, rel_tol=2e-7):
                ratio = short
            if self._ratio is None or not math.isclose(ratio, self._ratio, rel_tol=1e-4):
                self._ratio = ratio
        return self._ratio

    @property
    def variables(self):
        return [*self.g_optimizer.variables, *self.d_optimizer.variables]

    @property
    def iterations(self):
        return self.g_optimizer.iterations

    def apply(self, grads, trainable_variables=None):
        raise NotImplementedError(
            "`model.optimizer` is over both networks and applies no gradients: call `apply` of "
            "`model.g_optimizer` or `model.d_optimizer`."
        )

    def set_weights(self, weights):
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    @property
    def save_own_variables(self):
        """Raises an error, so that Keras doesn't save an empty group for this optimizer."""
        raise AttributeError("The optimizers of the two networks are saved, not the one over both.")

    load_own_variables = save_own_variables

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {"name": self.name, **{name: serialize(getattr(self, name)) for name in NAMES}}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        deserialize = keras.saving.deserialize_keras_object
        given = {name: deserialize(config[name], custom_objects) for name in NAMES}
        return cls(**{**config, **given})


class SharedLearningRate(keras.Variable):
    """The generator's learning rate; assigning to it sets `learning_rate` of the `GANOptimizer`."""

    def __init__(self, optimizer, rate):
        vars(self).update(vars(rate))  # Share the attributes instead of making a new variable.
        self._optimizer = optimizer
        self._rate = rate

    @property
    def value(self):
        return self._rate.value

    def assign(self, value):
        self._optimizer.learning_rate = value
        return self._rate.value


def number(value) -> float:
    """Converts a tensor, a number or a variable (even a replicated one) to a float."""
    return float(value.numpy() if hasattr(value, "numpy") else value)


def follow_steps(name: str, optimizer, steps: keras.Variable, updates_per_step: int = 1):
    """Makes an optimizer's schedule, if it has one, follow the model's `steps`.

    Each optimizer counts its own updates, and the discriminator's optimizer makes `d_steps` updates
    per step. The count of updates is unchanged, because bias correction and gradient accumulation
    need it. The schedule is also unchanged, so configurations and files contain the original
    schedule.

    The schedules of inner optimizers, as in a `LossScaleOptimizer`, also follow `steps`. If `steps`
    stays 0, as with a custom `train_step` that doesn't count steps, the step is computed from the
    optimizer's updates and `updates_per_step`. Warnings refer to the optimizer as `name`.
    """
    taken, found = int(number(steps)), [optimizer]
    for each in found:  # The loop appends inner optimizers to `found`.
        inner = [getattr(each, "inner_optimizer", None), *getattr(each, "optimizers", [])]
        found += filter(None, inner)
        _evaluate_at(each, steps, updates_per_step)
        is_new = number(each.iterations) == 0
        if taken and is_new and isinstance(each._learning_rate, LearningRateSchedule):
            warnings.warn(
                f"`{name}` is new, and its LearningRateSchedule starts at step {taken}: schedules "
                "follow `model.steps`. Make one that expects that step.",
                stacklevel=4,
            )


def follows_steps(optimizer) -> bool:
    """Returns whether `follow_steps` was called for an optimizer."""
    return "_get_current_learning_rate" in vars(optimizer)


def _evaluate_at(optimizer, steps, updates_per_step):
    original = type(optimizer)._get_current_learning_rate

    def rate(self):
        if not isinstance(self._learning_rate, LearningRateSchedule):
            return original(self)
        count = ops.cast(steps, self._iterations.dtype)
        updates = ops.floor_divide(self._iterations, updates_per_step)
        return self._learning_rate(ops.where(count > 0, count, updates))

    # Set the method on the instance, because the class belongs to Keras or the user.
    optimizer._get_current_learning_rate = types.MethodType(rate, optimizer)


@keras.saving.register_keras_serializable(package="keras_sagan")
class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` under the name that older files use."""
