"""The training step, and the functions that each backend defines for it.

`backend` is the module for Keras's current backend. `tensorflow.py`, `jax.py` and `torch.py` define
the same names:

- `gradients(function, variables)` differentiates `function() -> (scalar, others)`, and returns the
  list of gradients and `others`. `input_gradient(function, inputs)` returns a gradient that can be
  differentiated again. `cond` is `keras.ops.cond`, but also works for functions that compute
  gradients.

- `draw_noise(seed, batch, latent_dim, num_classes)` returns normal float32 latents
  `(batch, latent_dim)` and uniform int32 labels `(batch,)`, or `None` instead of labels.
  `draw_uniform(seed, batch, columns)` returns float32 numbers in [0, 1). A seed is a tuple of
  integers or integer tensors, and begins with the model's seed. Different seeds give independent
  numbers.

- `count_replicas`, `mean_over_replicas`, `traced_once`, `apply_scaled` and, for several replicas,
  `share_overflow` handle replicas and loss scaling in a step.

- `current_strategy` returns the strategy that other functions take as an argument: a
  `tf.distribute.Strategy` on TensorFlow, a `keras.distribution` or `None` on JAX. `ONLY` lists the
  supported values of `compile`'s arguments, if the backend restricts them.

- `compiled(function, variables, latent_dim, num_classes)` compiles a function of latents and labels
  that uses `variables`, for any batch size.

- `compiled_gradient(function, variables)` compiles the gradient of `function(inputs, *others)`,
  which returns a loss for each input. The compiled function returns the gradient of the sum of the
  losses with respect to the inputs, and the losses.

- `make_step_function(model, step, check, is_training)` returns the function that Keras's loop
  calls. `step` is the method `train_step` of a compiled `SAGAN` if `is_training`, and `test_step`
  otherwise. `check` is a `BatchCheck`, which checks each batch before the step, because a compiled
  step can't raise errors.
"""

import importlib
import sys

import keras

BACKENDS = ("tensorflow", "jax", "torch")
_name = keras.backend.backend()

if _name not in BACKENDS:
    raise ImportError(
        f"keras_sagan needs one of the backends {BACKENDS}: set KERAS_BACKEND before importing "
        f"Keras. Received: KERAS_BACKEND={_name}"
    )
backend = importlib.import_module(f"keras_sagan.training.{_name}")

from keras_sagan.training.step import Assignments  # noqa: E402  # `step` uses `backend`.


def input_gradient(function, inputs):
    """Returns the gradient of the sum of `function(inputs)` with respect to `inputs`.

    `inputs` is a float tensor. The gradient has the shape of `inputs`, and can be differentiated
    again. Values that the function's layers assign to variables are discarded.
    """

    def total(inputs):
        with Assignments():
            return keras.ops.sum(function(inputs))

    return backend.input_gradient(total, inputs)


def check_owner_of_devices():
    """Raises an error if a different backend's strategy is set, which would be silently ignored."""
    tf, distribution = sys.modules.get("tensorflow"), keras.distribution.distribution()
    if _name != "tensorflow" and hasattr(tf, "distribute") and tf.distribute.has_strategy():
        kind, owner, found = "tf.distribute strategy", "TensorFlow", tf.distribute.get_strategy()
    elif _name != "jax" and distribution is not None:
        kind, owner, found = "`keras.distribution`", "JAX", distribution
    else:
        return
    advice = "train on one device" if _name == "torch" else "use `make_strategy`"
    raise ValueError(
        f"A {kind} belongs to the {owner} backend: {advice} on {_name}. "
        f"Received: {type(found).__name__}"
    )


__all__ = ["input_gradient"]
