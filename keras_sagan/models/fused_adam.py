"""Adam in one kernel for each variable."""

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="keras_sagan")
class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` that reads and writes each variable once.

    Keras composes an update of about ten operations, each of which goes through memory; this one
    hands it to the kernel that TensorFlow has for it, on every device and in XLA. The numbers are
    the same to rounding, and so are the slots: either optimiser continues from the other's
    checkpoints. `SAGAN.compile()` uses it unless it is given optimisers.

    Args:
        *args, **kwargs: As in `keras.optimizers.Adam`. With `amsgrad=True`, and for weights in
            bfloat16, the update is Keras's.

    Example:

    >>> optimizer = FusedAdam(learning_rate=1e-4, beta_1=0.0)
    >>> variable = keras.Variable([1.0, 2.0])
    >>> optimizer.apply([keras.ops.convert_to_tensor([0.5, -0.5])], [variable])
    >>> [round(float(x), 4) for x in variable.numpy()]
    [0.9999, 2.0001]

    Reference:
        [Kingma and Ba, 2015](https://arxiv.org/abs/1412.6980), algorithm 1 in the form at the end
        of section 2.
    """

    def update_step(self, gradient, variable, learning_rate):
        is_bfloat16 = keras.backend.standardize_dtype(variable.dtype) == "bfloat16"
        # On GPUs TensorFlow has no such kernel for bfloat16.
        if self.amsgrad or is_bfloat16 or keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        variable = variable.value if isinstance(variable, keras.Variable) else variable
        dtype = variable.dtype

        def number(value):
            return tf.cast(value, dtype)

        step = ops.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(number(self.beta_1), step),
            beta2_power=tf.pow(number(self.beta_2), step),
            lr=number(learning_rate),
            beta1=number(self.beta_1),
            beta2=number(self.beta_2),
            epsilon=number(self.epsilon),
            grad=number(gradient),
        )
