"""Gradients on whatever backend the tests run."""

import keras
import numpy as np
from keras import ops


def gradients_of(function, *arrays, differentiable=False, jit_compile=False):
    """Gradients of a scalar function of arrays, as arrays, or as tensors to be differentiated.

    JAX always compiles the arrays' computation, TensorFlow with `jit_compile`, and PyTorch never.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        gradient = jax.grad(function, tuple(range(len(arrays))))
        if differentiable:
            return gradient(*arrays)
        return [np.asarray(x) for x in jax.jit(gradient)(*arrays)]  # One program, not hundreds.
    tensors = [ops.convert_to_tensor(x) for x in arrays]
    if backend == "torch":
        import torch

        tensors = [x if x.requires_grad else x.requires_grad_() for x in tensors]
        loss = function(*tensors)
        gradients = torch.autograd.grad(loss, tensors, create_graph=differentiable)
        return gradients if differentiable else [x.cpu().numpy() for x in gradients]
    import tensorflow as tf

    def gradient(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = function(*tensors)
        return tape.gradient(loss, tensors)

    if differentiable:
        return gradient(*tensors)
    gradient = tf.function(gradient, jit_compile=True) if jit_compile else gradient
    return [x.numpy() for x in gradient(*tensors)]
