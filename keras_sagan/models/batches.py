"""Checks and converts batches, and warns about unsuitable networks at the first batch."""

import itertools
import types
import warnings

import keras
import numpy as np
from keras import backend, ops

from keras_sagan.checks import (
    RangeWarning,
    check_dense,
    check_images,
    check_labels,
    check_values,
    is_absent,
)
from keras_sagan.private_keras import layers_of
from keras_sagan.training.step import call, judge

FEW = 8  # The number of images for testing a network.
FAR = 1e3  # The factor that makes inputs large enough to saturate a bounded output.
# Operations at the end of a network that don't widen the range of values.
SHAPES = ("Reshape", "Flatten", "Permute", "Squeeze", "Transpose", "Cast", "Identity")
SHAPES += ("Cropping2D", "UpSampling2D", "GlobalAveragePooling2D", "AveragePooling2D")
FILLS_RANGE = ("tanh", "hardtanh", "softsign")
ONE_SIDED = ("sigmoid", "hardsigmoid", "softmax", "relu", "relu6", "softplus", "exponential")
ONE_SIDED += ("logsigmoid", "logsoftmax")
KNOWN = {name.replace("_", "").lower() for name in dir(keras.activations)} | {"prelu"}


def unpack(data, num_classes):
    """Splits a batch into images and labels, and checks their dtypes and static shapes.

    `data` is a batch of images, `(images,)` or `(images, labels)`; a tuple may also end in `None`.
    Images must have rank 4 and dtype uint8 or float. Labels must be integers of shape `(batch,)`. A
    model with classes requires labels, and a model without classes doesn't accept labels.
    """
    parts = data if isinstance(data, (tuple, list)) else [data]
    parts = [None if is_absent(part) else part for part in parts]
    images, labels, sample_weight = (parts + [None] * 3)[:3]
    if sample_weight is not None or len(parts) > 3:
        raise ValueError(
            "A dataset for SAGAN must yield images or (images, labels); `sample_weight` and "
            f"`class_weight` have no meaning for a GAN. Received: {len(parts)} parts"
        )
    if images is None:
        raise ValueError(
            "A dataset for SAGAN must yield images or (images, labels). Received: no images"
        )
    check_dense(images=images, labels=labels)
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
                "dataset yield (images, labels). Received: images alone"
            )
        check_labels(labels, num_classes)
    return images, labels


def check_given(x, y=None):
    """Raises an error if Keras can't make batches from the arguments `x` and `y` of `fit`."""
    if x is None:
        raise ValueError("`x` must be given: images, or a dataset of images. Received: x=None")
    check_dense(x=x, y=y)


def without_none(data):
    """Removes `None` from the end of each batch of a generator or `PyDataset`."""
    if isinstance(data, keras.utils.PyDataset):
        return _WithoutNone(data)
    is_generator = isinstance(data, types.GeneratorType)
    return (_shortened(batch) for batch in data) if is_generator else data


class _WithoutNone(keras.utils.PyDataset):
    def __init__(self, data):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data = data
        self.on_epoch_begin, self.on_epoch_end = data.on_epoch_begin, data.on_epoch_end

    def __getitem__(self, index):
        return _shortened(self._data[index])

    @property
    def num_batches(self):
        return self._data.num_batches


def _shortened(batch):
    if isinstance(batch, (tuple, list)):
        while len(batch) > 1 and batch[-1] is None:
            batch = batch[:-1]
        batch = tuple(batch)
        check_dense(**dict(zip(("images", "labels"), batch)))
    return batch


def check_shares(argument, count, batch_size, replicas):
    """Raises an error if batches of `count` images can't be divided equally among `replicas`.

    `batch_size` is the argument of `fit` (`None` means 32, as in Keras).
    """
    batch_size = min(batch_size or 32, count)
    if not batch_size or batch_size % replicas == 0 == count % batch_size % replicas:
        return
    size = max(batch_size - batch_size % replicas, replicas)
    raise ValueError(
        f"`{argument}` must yield batches that the {replicas} replicas divide: take "
        f"`{argument}[:{count - count % size % replicas}]`, labels too, with batch_size={size}. "
        f"Received: {argument} of {count} images in batches of {batch_size}"
    )


def to_model_space(images):
    """Converts uint8 images in [0, 255] to float32 in [-1, 1]; float images keep their values."""
    if backend.standardize_dtype(images.dtype) == "uint8":
        return ops.cast(images, "float32") / 127.5 - 1.0
    return ops.cast(images, "float32")


def to_user_space(images):
    """Converts float images in [-1, 1] to uint8 in [0, 255] by rounding."""
    pixels = ops.clip(ops.round((ops.cast(images, "float32") + 1.0) * 127.5), 0.0, 255.0)
    return ops.cast(pixels, "uint8")


class BatchCheck:
    """Checks the images and labels of each batch; error messages contain the name `argument`."""

    REFUSED = -1  # The size that a worker reports for a bad batch.

    def __init__(self, argument, num_classes, image_shape):
        self.argument = argument
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.top_k = 1  # The minimum number of images in a batch.
        self.size = None  # The sizes of the first batch, set only on JAX with several processes.
        self.begin()
        self.has_passed = True  # False from `begin` until a batch has passed the check.

    def begin(self, is_new_data=True):
        """Treats the next batch as the first one. New data may cause a new range warning."""
        if is_new_data:
            self._warn_of_range = RangeWarning("images")
        self.has_passed = False
        self._seen, self._num_seen = set(), 0  # The set of classes and the number of labels so far.

    def __call__(self, parts):
        """Raises an error unless a batch matches the model.

        `parts` contains a tuple of images and labels for each replica. After the first batch, only
        batches in host memory are checked, because other batches would have to be copied.
        """
        for part in parts:
            if self.has_passed and not _is_on_host(part):
                continue
            images, labels = unpack(part, self.num_classes)
            self._warn_of_range(check_values(images, self.image_shape))
            if labels is not None:
                labels = np.asarray(ops.convert_to_numpy(labels))
                self._seen.update(labels.tolist())
                self._num_seen += len(labels)

    def check_first(self, model, parts, gather=list):
        """Raises an error unless a batch matches the model; passes the first batch to the model.

        `parts` contains a tuple of images and labels for each device of this process. `gather`
        receives the batch sizes on these devices and returns the batch sizes on all devices.
        """
        is_first, error = not self.has_passed, None
        try:
            self(parts)
            sizes = [part[0].shape[0] for part in parts]
        except ValueError as refused:
            sizes, error = [self.REFUSED] * len(parts), refused
        sizes = gather(sizes)  # Call `gather` even after an error, or other processes would hang.
        if error is not None:
            raise error
        self.check_sizes(sizes, len(parts))
        workers = model._num_devices // len(parts) if model._is_one_of_many else 1
        images = workers * sum(part[0].shape[0] for part in parts)
        if images < self.top_k:
            raise ValueError(
                f"`top_k` must not be larger than a batch: use drop_remainder=True, or a share. "
                f"Received: top_k={self.top_k} for a batch of {images} images"
            )
        if is_first:
            model._see_first_batch(parts[0])

    def check_sizes(self, sizes, per_worker):
        """Raises an error unless all replicas have the same number of images in a batch.

        `sizes` contains the number of images on each replica (`REFUSED` if its worker found a bad
        batch), and `per_worker` is the number of replicas per worker.
        """
        if self.REFUSED in sizes:
            workers = enumerate(sizes[::per_worker])
            bad = ", ".join(str(worker) for worker, size in workers if size == self.REFUSED)
            raise ValueError(
                f"`{self.argument}` must yield good batches on every worker: the error message of "
                "the worker with the bad batch says what is wrong. "
                f"Received: a bad batch on worker {bad}"
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
        """Raises an error if the data ended before the first batch."""
        if not self.has_passed:
            raise ValueError(
                f"`{self.argument}` must yield at least one batch. "
                "Received: a dataset that yields nothing"
            )

    def warn_of_missing_classes(self):
        """Warns if a class has had no images since `begin` was called; returns whether it warned.

        The method warns only after so many images that every class would almost surely have
        appeared if all classes were equally frequent.
        """
        count = self.num_classes
        if not self._seen or len(self._seen) == count:
            return False
        if self._num_seen <= count * np.log(1000 * count):
            return False
        missing = [*itertools.islice((x for x in range(count) if x not in self._seen), 11)]
        names = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        warnings.warn(
            f"`{self.argument}` has no image in the first {self._num_seen} of "
            f"{count - len(self._seen)} of num_classes={count} classes: {names}. They are trained "
            "on fake images only, and `generate(labels=None)` draws them too: build the networks "
            "and SAGAN for the classes that the data have, numbered from 0.",
            stacklevel=3,
        )
        return True


def _is_on_host(tensors):
    devices = [str(getattr(x, "device", "")) for x in tensors if not is_absent(x)]
    return all("cpu" in device.lower() for device in devices)


def warn_of_outputs(model, images, labels):
    """Warns if a network has the wrong last activation. The tests use `images` in [-1, 1]."""
    generator, discriminator = model.generator, model.discriminator
    ending = last_activation(generator)
    if ending in (None, "add"):
        rng = np.random.default_rng(0)
        latents = rng.standard_normal((len(images), model.latent_dim), "float32")
        near = values_of(call, generator, latents, labels, training=True)
        made = np.concatenate([near, values_of(call, generator, FAR * latents, labels)])
        ending = "linear" if np.abs(made).max() > 1.001 else None
        if made.min() >= 0 and made.max() > 0:
            ending = "relu" if made.max() > 1.001 else "sigmoid"
    message = None
    if ending in ONE_SIDED:
        message = f"{ending}: its images never fill [-1, 1], the range of real images."
    elif ending is not None and ending not in FILLS_RANGE:
        ending = "no activation" if ending == "linear" else ending
        message = (
            f"{ending}: its images may leave [-1, 1], the range of real images, and `generate` "
            "clips them."
        )
    if message:
        warnings.warn(f"`generator` ends in {message} End it in tanh.", stacklevel=3)
    ending = last_activation(discriminator)
    if ending is None:
        far = [values_of(judge, discriminator, sign * FAR * images, labels) for sign in (-1, 1)]
        bounds = np.abs(np.concatenate(far)[:, None] - [-1.0, 0.0, 1.0]).min(axis=1)
        ending = "sigmoid or tanh" if bounds.max() < 1e-3 and np.ptp(far) > 0 else None
    if ending not in (None, "add", "linear", "leakyrelu"):
        warnings.warn(
            f"`discriminator` ends in {ending}: the losses need logits, which may be any real "
            "number. End it in a layer without an activation.",
            stacklevel=3,
        )


def last_activation(network):
    """Returns the name of the last activation of a network, without underscores.

    `"linear"` means no activation, `"add"` means a sum, and `None` means that the activation is
    unknown.
    """
    tensors = getattr(network, "outputs", None)
    while tensors:
        operation = tensors[0]._keras_history.operation
        if isinstance(operation, keras.Model):
            return last_activation(operation)
        kind, activation = type(operation).__name__, getattr(operation, "activation", None)
        is_linear = isinstance(operation, keras.layers.Activation) and (
            activation is keras.activations.linear
        )
        if kind not in SHAPES and not is_linear:
            # Layers such as `ReLU` and functions in `ops` are named after the activation.
            name = getattr(activation, "__name__", kind).replace("_", "").lower()
            return name if name in KNOWN or kind == "Add" else None
        tensors = keras.tree.flatten(operation.input)
    return None


def has_batch_statistics(discriminator, image_shape, has_labels):
    """Returns whether the logits of an image depend on the other images of its batch.

    The logits of a batch of noise are computed twice, and only the second half of the batch
    changes. The weights are random, so the result doesn't depend on training. The test detects
    batch normalization and minibatch standard deviation, but not `Dropout`, which drops the same
    units both times.
    """
    for layer in layers_of(discriminator):
        if hasattr(layer, "moving_mean") and layer.trainable:
            return True
    rng = np.random.default_rng(0)
    shape = (FEW, *(size or 32 for size in image_shape))
    images, *others = rng.uniform(-1.0, 1.0, (3, *shape)).astype("float32")
    labels = np.zeros(2 * FEW, "int32") if has_labels else None
    weights = [
        (v, rng.normal(size=v.shape) / np.sqrt(np.prod(v.shape[:-1])))
        for v in discriminator.trainable_variables
    ]
    one, other = (
        values_of(judge, discriminator, np.concatenate([images, x]), labels, True, weights)
        for x in others
    )
    half = len(one) // 2
    scale = np.abs(one).max(initial=0.0)
    return not np.allclose(one[:half], other[:half], rtol=1e-5, atol=1e-5 * scale, equal_nan=True)


def values_of(function, network, inputs, labels, training=False, weights=None):
    """Returns the result of `call` or `judge` as an array, without changing any variable."""
    labels = None if labels is None else ops.convert_to_tensor(labels, "int32")
    with keras.StatelessScope(weights):  # `Scope` would also read traced values of outer scopes.
        outputs = function(network, ops.convert_to_tensor(inputs), labels, training)
    return ops.convert_to_numpy(ops.cast(outputs, "float32"))
