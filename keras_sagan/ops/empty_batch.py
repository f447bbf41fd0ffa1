"""Functions of images that fail for none of them."""

from keras import ops


def apply_to_any_batch(function, images, output_shape):
    """Returns `function(images)`, of the right shape for no images too.

    With oneDNN, TensorFlow 2.21's convolution on the CPU gives no images the shape of its inputs,
    and the gradient of its pooling ends the process.

    Args:
        function: Function of a tensor `(batch, ...)` to another, image by image.
        images: Tensor of shape `(batch, ...)`; the batch may be unknown.
        output_shape: Tuple, the shape of the result; what is `None` in it but the batch is found
            by a blank image.

    Returns:
        Tensor of shape `output_shape`.
    """
    shape = ops.shape(images)

    def of_none():
        if None in output_shape[1:]:
            return function(ops.zeros((1, *shape[1:]), images.dtype))[:0]
        return ops.zeros((0, *output_shape[1:]), images.dtype)

    if shape[0] is None:
        return function(images)
    if isinstance(shape[0], int):
        return function(images) if shape[0] else of_none()
    return ops.cond(shape[0] > 0, lambda: function(images), of_none)
