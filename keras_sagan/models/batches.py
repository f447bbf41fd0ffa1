"""What a batch of training data may look like, and its way to model space."""

import numpy as np
from keras import backend, ops

from keras_sagan.ops.labels import check_labels

REFUSED = -1  # In place of its size, for a batch that a worker found bad.


def unpack(data, num_classes):
    """Splits what a data set yields into images and labels, and checks what is static.

    Args:
        data: Images, `(images,)`, `(images, labels)`, or either with `None` behind.
        num_classes: Integer, or `None` for a model without classes.

    Returns:
        Tuple of the images and the labels; `None` for the labels of a model without classes.

    Raises:
        ValueError: For images that aren't of rank 4 or of dtype uint8 or float, missing or
            superfluous labels, or labels that aren't integers of shape `(batch,)`.
    """
    if isinstance(data, (tuple, list)):
        parts = [None if _is_absent(part) else part for part in data]
    else:
        parts = [data]
    images, labels, sample_weight = (parts + [None] * 3)[:3]
    if sample_weight is not None or len(parts) > 3:
        raise ValueError(
            "A data set for SAGAN must yield images or (images, labels); `sample_weight` has no "
            f"meaning here. Received: {len(parts)} parts"
        )
    if isinstance(images, (dict, tuple, list)):
        raise ValueError(
            "A data set for SAGAN must yield images or (images, labels). "
            f"Received: a {type(images).__name__} in place of the images"
        )
    check_images(images)
    if num_classes is None and labels is not None:
        raise ValueError(
            "`labels` must not be given, as the model has num_classes=None. "
            f"Received: labels of shape {tuple(labels.shape)}"
        )
    if num_classes is not None:
        if labels is None:
            raise ValueError(
                f"`labels` must be given, as the model has num_classes={num_classes}: make the "
                "data set yield (images, labels). Received: images alone"
            )
        check_labels(labels, num_classes)
    return images, labels


def _is_absent(part):
    # Keras stands a tf.experimental.Optional in for a None that a generator yields.
    return part is None or type(part).__name__.startswith(("Optional", "_Optional"))


def to_model_space(images):
    """Converts uint8 images in [0, 255] to float32 in [-1, 1]; floats are taken as they are."""
    if backend.standardize_dtype(images.dtype) == "uint8":
        return ops.cast(images, "float32") / 127.5 - 1.0
    return ops.cast(images, "float32")


def to_user_space(images):
    """Converts float images in [-1, 1] to uint8 in [0, 255], rounded."""
    pixels = ops.clip(ops.round((ops.cast(images, "float32") + 1.0) * 127.5), 0.0, 255.0)
    return ops.cast(pixels, "uint8")


def check_images(images, argument="images"):
    """Raises unless images are of rank 4 and of dtype uint8 or float."""
    dtype = backend.standardize_dtype(images.dtype)
    if len(images.shape) != 4:
        raise ValueError(
            f"`{argument}` must have shape (batch, height, width, channels). "
            f"Received: {argument} of shape {tuple(images.shape)}"
        )
    if dtype != "uint8" and "float" not in dtype:
        raise ValueError(
            f"`{argument}` must be uint8 in [0, 255] or float in [-1, 1]. "
            f"Received: {argument} of dtype {dtype}"
        )


def check_values(images, image_shape, argument="images", has_range=True):
    """Raises unless the images of a batch fit the model, are finite and lie in their range.

    Args:
        images: Array of shape `(batch, height, width, channels)`, uint8 or float.
        image_shape: Tuple `(height, width, channels)` that the discriminator takes; `None`
            entries fit anything.
        argument: String, the name to use in messages. Defaults to `"images"`.
        has_range: Boolean, whether to look at the range. Defaults to `True`.

    Raises:
        ValueError: For another shape, NaN or infinite values, or floats outside [-1, 1].
    """
    images = np.asarray(ops.convert_to_numpy(images))
    check_shape(images.shape, image_shape, argument)
    if images.dtype == np.uint8 or not images.size:
        return
    images = images.astype("float32", copy=False)
    # A sum is not finite if a number isn't, and takes a fraction of the time of looking at each.
    if not np.isfinite(images.sum()):
        broken = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        if broken.size:
            raise ValueError(
                f"`{argument}` must be finite. Received: {argument} with NaN or infinite values at "
                f"{broken[:5].tolist()} of {'the first' if has_range else 'a'} batch"
            )
    if not has_range:
        return
    low, high = float(images.min()), float(images.max())
    if low < -1.001 or high > 1.001:
        raise ValueError(
            f"Float `{argument}` must lie in [-1, 1]; give uint8 for [0, 255], or rescale them. "
            f"Received: {argument} between {low:g} and {high:g} in the first batch"
        )


def check_shape(shape, image_shape, argument="images"):
    """Raises unless images of a shape `(batch, height, width, channels)` fit the model."""
    fits = all(a is None or b is None or a == b for a, b in zip(shape[1:], image_shape))
    if not fits:
        raise ValueError(
            f"`{argument}` must have shape (batch, {', '.join(map(str, image_shape))}). "
            f"Received: {argument} of shape {tuple(shape)}"
        )


class BatchCheck:
    """Checks batches as they pass: the range of the first, the rest of each.

    Args:
        argument: String, the name of the data in messages.
        num_classes, image_shape: Those of the model.
    """

    def __init__(self, argument, num_classes, image_shape):
        self.argument = argument
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.has_passed = True  # Whether a batch has, since `begin`.

    def begin(self):
        """Makes the next batch the first."""
        self.has_passed = False

    def __call__(self, parts):
        """Raises unless the images and labels of a batch fit the model.

        Later batches are checked where that needs no copy from a device, and not for their range.

        Args:
            parts: List with a tuple of images, labels, … for each replica of this process.
        """
        for part in parts:
            if self.has_passed and not _is_on_host(part):
                continue
            images, _ = unpack(part, self.num_classes)
            check_values(images, self.image_shape, has_range=not self.has_passed)

    def check_sizes(self, sizes, per_worker):
        """Raises unless the replicas share a batch equally; then it has passed.

        Args:
            sizes: List of the images that each replica has, `REFUSED` for those of another
                worker that found its own bad.
            per_worker: Integer, how many of them are one worker's.
        """
        if REFUSED in sizes:
            bad = [worker for worker, size in enumerate(sizes[::per_worker]) if size == REFUSED]
            raise ValueError(
                f"`{self.argument}` must yield good batches on every worker: the message of the "
                "worker that refused its own says what is wrong. "
                f"Received: a bad batch on worker {', '.join(map(str, bad))}"
            )
        if len(set(sizes)) > 1:
            raise ValueError(
                f"`{self.argument}` must yield batches that the replicas divide: use "
                f"drop_remainder=True and a global batch that is a multiple of {len(sizes)}. "
                f"Received: a batch of {sum(sizes)} images, that is {sizes} on {len(sizes)} "
                "replicas"
            )
        self.has_passed = True

    def at_end(self):
        """Raises if the data ended before the first batch."""
        if not self.has_passed:
            raise ValueError(
                f"`{self.argument}` must yield at least one batch. "
                "Received: a data set that yields nothing"
            )


def _is_on_host(tensors):
    devices = [str(getattr(x, "device", "")) for x in tensors if not _is_absent(x)]
    return all("cpu" in device.lower() for device in devices)
