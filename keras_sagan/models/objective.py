"""The training objective as plain data: the loss, the penalties and the augmentation."""

import keras

from keras_sagan import losses
from keras_sagan.checks import (
    MAX_SIZE,
    accepts,
    check_choice,
    check_dict,
    check_float,
    check_integer,
)
from keras_sagan.layers.differentiable_augmentation import DifferentiableAugmentation
from keras_sagan.penalties import R1, R2

OBJECTIVE = {"loss": "hinge", "r1": 0.0, "r2": 0.0, "every": 1, "augmentation": None}


def checked_objective(objective):
    """Adds the defaults to an objective, or raises an error if a setting is invalid."""
    found = {**OBJECTIVE, **check_dict("objective", objective, keys=OBJECTIVE)}
    try:
        found["loss"] = check_choice("loss", found["loss"], losses.LOSSES)
        for name in ("r1", "r2"):
            found[name] = check_float(name, found[name], minimum=0)
        found["every"] = check_integer("every", found["every"], maximum=MAX_SIZE)
        _augmentation(found["augmentation"])
    except ValueError as error:
        raise ValueError(f"`objective` must hold settings of `compile`: {error}") from error
    return found


def _augmentation(setting):
    """Returns the layer for a policy or for a dictionary of the layer's arguments, or `None`."""
    if setting is None:
        return None
    if isinstance(setting, str):
        setting = {"policy": setting}
    names = ("policy", "flip", "probability", "target", "speed", "fill")
    return DifferentiableAugmentation(**check_dict("augmentation", setting, names))


def check_augmentation(augmentation):
    """Returns the augmentation of `compile`, or raises an error if the step can't call it."""
    is_function = not isinstance(augmentation, (type, keras.Layer)) and accepts(augmentation, 2)
    if augmentation is None or is_function or hasattr(type(augmentation), "bind"):
        return augmentation
    raise ValueError(
        "`augmentation` must be a `DifferentiableAugmentation`, a function of (images, uniform), "
        f"or None. Received: augmentation={augmentation!r}"
    )


def fill_in(objective, loss, augmentation, penalty):
    """Replaces arguments of `compile` that are `"auto"` with the settings of the objective."""
    penalties = (("r1", R1), ("r2", R2))
    every = objective["every"]
    weights = [kind(objective[name], every) for name, kind in penalties if objective[name]]
    found = (
        (loss, objective["loss"]),
        (augmentation, _augmentation(objective["augmentation"])),
        (penalty, weights or None),
    )
    return [own if isinstance(x, str) and x == "auto" else x for x, own in found]
