"""PyTorch's part of a training step: gradients, random numbers, and the loop.

`keras_sagan.training.step` has the algorithm and calls what is here. A step runs without autograd
but for what is differentiated.
"""

import contextlib

import keras
import numpy as np
import torch

from keras_sagan.training.whole_batch import (  # noqa: F401
    check_batch,
    check_compile,
    count_replicas,
    share_overflow,
    traced_once,
)

# Gradients


def gradients(function, variables):
    """Differentiates a function that returns a scalar and anything else.

    Args:
        function: Function without arguments, `() -> (scalar, others)`.
        variables: List of `keras.Variable`.

    Returns:
        Tuple of the list of gradients, `None` for a variable that isn't used, and the others.
    """
    values = [variable.value for variable in variables]
    if not values:  # Of a frozen network.
        return [], function()[1]
    with torch.enable_grad():
        scalar, others = function()
        found = torch.autograd.grad(scalar, values, allow_unused=True)
    return list(found), keras.tree.map_structure(_constant, others)


def _constant(x):
    return x.detach() if isinstance(x, torch.Tensor) else x


def input_gradient(total, inputs):
    """The gradient of a scalar function with respect to its inputs, differentiable once more."""
    with torch.enable_grad():
        inputs = inputs if inputs.requires_grad else inputs.detach().requires_grad_(True)
        return torch.autograd.grad(total(inputs), inputs, create_graph=True)[0]


def apply_scaled(optimizer, gradients, variables):
    """Updates variables, and those of a `LossScaleOptimizer`."""
    optimizer.apply(gradients, variables)


# Random numbers


def draw_noise(seed, batch, latent_dim, num_classes=None):
    """Draws latents and labels, on the CPU, so that they are the same on every device.

    Args:
        seed: Tuple of integers or integer tensors, first the model's seed. The draws of two
            different tuples are independent.
        batch: Integer, the images of the batch.
        latent_dim: Positive integer.
        num_classes: Positive integer, or `None` for no labels.

    Returns:
        Tuple of standard normal latents, float32 of shape `(batch, latent_dim)`, and uniform
        labels, int32 of shape `(batch,)`, or `None`.
    """
    generator = _generator(seed)
    latents = keras.ops.convert_to_tensor(torch.randn(batch, latent_dim, generator=generator))
    if num_classes is None:
        return latents, None
    labels = torch.randint(num_classes, (batch,), generator=generator, dtype=torch.int32)
    return latents, keras.ops.convert_to_tensor(labels)


def draw_uniform(seed, batch, columns):
    """Draws float32 numbers in [0, 1), of shape `(batch, columns)`; `seed` as in `draw_noise`."""
    return keras.ops.convert_to_tensor(torch.rand(batch, columns, generator=_generator(seed)))


def _generator(seed):
    return torch.Generator().manual_seed(_number(seed))


def _number(seed):
    sequence = np.random.SeedSequence([int(x) % 2**32 for x in seed])
    return int(sequence.generate_state(1, "uint64")[0] >> 1)


@contextlib.contextmanager
def _seeded(*seed):
    """Has layers that draw from PyTorch's global generator, as Keras's Dropout, draw by a seed."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(_number(seed))
        yield


# Devices

ONLY = {"steps_per_execution": (1,), "jit_compile": (False, "auto")}
"""The values of arguments of `compile` that this backend can do."""


def current_strategy():
    """`None`: Keras has no distribution on PyTorch."""


def count_devices(strategy):
    """The devices that a batch is shared among."""
    return 1


def is_multi_worker(strategy):
    """Whether every worker has its own share of the data."""
    return False


def check_built_under(strategy, **owners):
    """Nothing: there is one device."""


def check_scope(strategy, method, or_outside=True):
    """Nothing: there is one device."""


# Inference


def compiled(function, network, latent_dim, num_classes):
    """Returns a function of latents and labels that is computed without autograd."""
    return torch.no_grad()(function)


# The loop


def make_step_function(model, step, check, is_training):
    """Makes the function that Keras's `fit` and `evaluate` call with a list of one batch.

    Args:
        model: A compiled `SAGAN`.
        step: Its `train_step` or `test_step`.
        check: `BatchCheck`, for errors that name what is wrong.
        is_training: Boolean, whether it is the first of them.

    Returns:
        Function `(batches) -> logs`.
    """

    @torch.no_grad()
    def function(batches):
        (data,) = batches
        check_batch(model, check, data)
        with _seeded(model.seed, model.steps.value):
            return step(data)

    return function
