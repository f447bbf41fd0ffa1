"""Functions of tensors whose gradient is written by hand."""

from keras import ops


def with_gradient(function, gradient):
    """Gives a function another gradient than that of its operations.

    Args:
        function: Function of tensors, which returns a tensor.
        gradient: Function of the tuple of the inputs and of the gradient of the output, which
            returns that of the input, or a tuple of those of several inputs.

    Returns:
        Function of the same tensors.
    """

    @ops.custom_gradient
    def apply(*inputs):
        def of(*received, upstream=None):
            # TensorFlow and JAX give the output's gradient alone, torch by name.
            return gradient(inputs, received[0] if upstream is None else upstream)

        return function(*inputs), of

    return apply
