"""Functions of images that fail for none of them."""

from keras import ops


def apply_to_any_batch(function, images, output_shape, training):
    """Returns `function(images)`, of the right shape for no images too.

    With oneDNN, TensorFlow 2.21's convolution on the CPU gives no images the shape of its inputs,
    and the gradient of its pooling ends the process.

    Args:
        function: Function of a tensor `(batch, ...)` to another, image by image.
        images: Tensor of shape `(batch, ...)`; the batch may be unknown.
        output_shape: Tuple, the shape of the result; what is `None` in it but the batch is found
            by a blank image.
        training: Boolean, as in `call_by_batch`.

    Returns:
        Tensor of shape `output_shape`.
    """

    def of_none():
        if None in output_shape[1:]:
            return function(ops.zeros((1, *ops.shape(images)[1:]), images.dtype))[:0]
        return ops.zeros((0, *output_shape[1:]), images.dtype)

    return call_by_batch(images, lambda: function(images), of_none, training)


def call_by_batch(images, of_some, of_none, training):
    """Returns `of_some()`, or `of_none()` where `images` turn out to be none.

    A program for inference that doesn't know the size of its batch has `of_some()` alone: a
    condition would lose the rank of its result in TensorFlow's converter to LiteRT.

    Args:
        images: Tensor of shape `(batch, ...)`; the batch may be unknown.
        of_some, of_none: Functions without arguments, of results of one kind.
        training: Boolean, whether a batch of unknown size may turn out to be empty.
    """
    batch = ops.shape(images)[0]
    if batch is None or isinstance(batch, int):
        return of_none() if batch == 0 else of_some()
    return ops.cond(batch > 0, of_some, of_none) if training else of_some()
