"""The PyTorch part of a training step. Only functions that compute gradients use autograd."""

import contextlib

import keras
import numpy as np
import torch

from keras_sagan.training.whole_batch import (  # noqa: F401
    check_compile,
    cond,
    count_replicas,
    mean_over_replicas,
    traced_once,
)

ONLY = {"steps_per_execution": (1,), "jit_compile": (False, "auto")}

# Gradients


def gradients(function, variables):
    """Differentiates a function; the gradient of an unused variable is `None`."""
    values = [variable.value for variable in variables]
    if not values:  # A frozen network has no trainable variables.
        return [], function()[1]
    with torch.enable_grad():
        scalar, others = function()
        found = torch.autograd.grad(scalar, values, allow_unused=True)
    others = keras.tree.map_structure(lambda x: x.detach() if torch.is_tensor(x) else x, others)
    return list(found), others


def input_gradient(total, inputs):
    with torch.enable_grad():
        inputs = inputs if inputs.requires_grad else inputs.detach().requires_grad_(True)
        return torch.autograd.grad(total(inputs), inputs, create_graph=True)[0]


def apply_scaled(optimizer, gradients, variables):
    optimizer.apply(gradients, variables)


# Random numbers, drawn on the CPU so that they are the same on every device


def draw_noise(seed, batch, latent_dim, num_classes=None):
    generator = torch.Generator().manual_seed(_number(seed))
    latents = keras.ops.convert_to_tensor(torch.randn(batch, latent_dim, generator=generator))
    if num_classes is None:
        return latents, None
    labels = torch.randint(num_classes, (batch,), generator=generator, dtype=torch.int32)
    return latents, keras.ops.convert_to_tensor(labels)


def draw_uniform(seed, batch, columns):
    generator = torch.Generator().manual_seed(_number(seed))
    return keras.ops.convert_to_tensor(torch.rand(batch, columns, generator=generator))


def _number(seed):
    sequence = np.random.SeedSequence([int(x) % 2**32 for x in seed])
    return int(sequence.generate_state(1, "uint64")[0] >> 1)


@contextlib.contextmanager
def _seeded(*seed):
    """Seeds PyTorch's global generator, which layers such as Keras's Dropout use."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(_number(seed))
        yield


# Devices: only one, since Keras can't distribute training on PyTorch


def current_strategy():
    return None


def count_devices(strategy):
    return 1


def check_built_under(strategy, **owners):
    pass


def check_scope(strategy, method, or_outside=True):
    pass


# Inference and the loop


def compiled(function, variables, latent_dim, num_classes):
    """Disables autograd in `function`, but doesn't compile it."""
    return torch.no_grad()(function)


def compiled_gradient(function, variables):
    def run(inputs, *others):
        with torch.enable_grad():
            inputs = inputs.detach().requires_grad_(True)
            losses = function(inputs, *others)
            return torch.autograd.grad(losses.sum(), inputs)[0], losses.detach()

    return run


def make_step_function(model, step, check, is_training):
    """Returns the function for `fit` or `evaluate`; Keras calls it with a list of one batch."""

    @torch.no_grad()
    def function(batches):
        (data,) = batches
        check.check_first(model, [data if isinstance(data, (tuple, list)) else (data,)])
        with _seeded(model.seed, model.steps.value):
            return step(data)

    return function
