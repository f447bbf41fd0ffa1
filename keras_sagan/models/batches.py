"""What a batch may look like, its conversion to model space, and what the first one reveals."""

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
from keras_sagan.training.step import call, judge

FEW = 8  # Images, enough to find something out about a network.
FAR = 1e3  # Times larger than any input: a bounded output is at its bound there.
# Endings of a network that pass on the range of what comes before them.
SHAPES = ("Reshape", "Flatten", "Permute", "Squeeze", "Transpose", "Cast", "Identity")
SHAPES += ("Cropping2D", "UpSampling2D", "GlobalAveragePooling2D", "AveragePooling2D")
FILLS_RANGE = ("tanh", "hardtanh", "softsign")
ONE_SIDED = ("sigmoid", "hardsigmoid", "softmax", "relu", "relu6", "softplus", "exponential")
ONE_SIDED += ("logsigmoid", "logsoftmax")
KNOWN = {name.replace("_", "").lower() for name in dir(keras.activations)} | {"prelu"}


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
        parts = [None if is_absent(part) else part for part in data]
    else:
        parts = [data]
    images, labels, sample_weight = (parts + [None] * 3)[:3]
    if sample_weight is not None or len(parts) > 3:
        raise ValueError(
            "A data set for SAGAN must yield images or (images, labels); `sample_weight` has no "
            f"meaning here. Received: {len(parts)} parts"
        )
    if images is None or isinstance(images, (dict, tuple, list)):
        found = "nothing" if images is None else f"a {type(images).__name__}"
        raise ValueError(
            "A data set for SAGAN must yield images or (images, labels). "
            f"Received: {found} in place of the images"
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
                "data set yield (images, labels). Received: images alone"
            )
        check_labels(labels, num_classes)
    return images, labels


def check_given(x, y=None):
    """Raises for an `x` or `y` of `fit` or `evaluate` that Keras can't make batches of."""
    if x is None:
        raise ValueError("`x` must be given: images, or a data set of them. Received: x=None")
    if isinstance(x, dict):
        raise ValueError(
            "`x` must be images, and `y` their labels; a data set for SAGAN must yield images or "
            f"(images, labels). Received: x=a dict with the keys {list(x)}"
        )
    check_dense(x=x, y=y)


def without_none(data):
    """Removes each `None` at the end of batches, which Keras can't always pass on.

    Args:
        data: What `fit` or `evaluate` was given. A generator or a `keras.utils.PyDataset` is
            wrapped; anything else is returned as it is.
    """
    if isinstance(data, keras.utils.PyDataset):
        return _WithoutNone(data)
    is_generator = isinstance(data, types.GeneratorType)
    return (_shortened(batch) for batch in data) if is_generator else data


class _WithoutNone(keras.utils.PyDataset):
    def __init__(self, data):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data = data

    def __getitem__(self, index):
        return _shortened(self._data[index])

    @property
    def num_batches(self):
        return self._data.num_batches

    def on_epoch_begin(self):
        self._data.on_epoch_begin()

    def on_epoch_end(self):
        self._data.on_epoch_end()


def _shortened(batch):
    if not isinstance(batch, (tuple, list)):
        return batch
    batch = tuple(batch)
    while len(batch) > 1 and batch[-1] is None:
        batch = batch[:-1]
    return batch


def check_shares(argument, count, batch_size, replicas, steps=None, advice=None):
    """Raises for an array whose batches the replicas couldn't share equally.

    Args:
        argument: String, the argument that the array came in.
        count: Integer, its images.
        batch_size: Integer, as given to `fit`, or `None` for Keras's 32.
        replicas: Integer.
        steps: Integer, the batches that are taken in all, or `None` for all there are.
        advice: String, what to do. Defaults to the slice to take.

    Raises:
        ValueError: If there is a batch that `replicas` doesn't divide.
    """
    batch_size = min(batch_size or 32, count)
    if not batch_size:
        return
    is_last_needed = steps is None or steps > count // batch_size
    left = count % batch_size if is_last_needed else 0
    if batch_size % replicas == 0 and left % replicas == 0:
        return
    size = max(batch_size - batch_size % replicas, replicas)
    most = count - count % size % replicas
    advice = advice or f"take `{argument}[:{most}]`, labels too, with batch_size={size}"
    last = f", the last one of {left}" if left else ""
    raise ValueError(
        f"`{argument}` must yield batches that the {replicas} replicas divide: {advice}. "
        f"Received: {argument} of {count} images in batches of {batch_size}{last}"
    )


def to_model_space(images):
    """Converts uint8 images in [0, 255] to float32 in [-1, 1]; floats are taken as they are."""
    if backend.standardize_dtype(images.dtype) == "uint8":
        return ops.cast(images, "float32") / 127.5 - 1.0
    return ops.cast(images, "float32")


def to_user_space(images):
    """Converts float images in [-1, 1] to uint8 in [0, 255], rounded."""
    pixels = ops.clip(ops.round((ops.cast(images, "float32") + 1.0) * 127.5), 0.0, 255.0)
    return ops.cast(pixels, "uint8")


class BatchCheck:
    """Checks the images and labels of batches as they pass.

    Args:
        argument: String, the name of the data in messages.
        num_classes, image_shape: Those of the model.
    """

    REFUSED = -1  # In place of its size, for a batch that a worker found bad.

    def __init__(self, argument, num_classes, image_shape):
        self.argument = argument
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.has_passed = True  # Whether a batch has, since `begin`.
        self.size = None  # Of that batch, in one of several processes of JAX.
        self._seen, self._num_seen = set(), 0  # Classes and labels, since `begin`.
        self._has_seen_all = True
        self._warn_of_range = RangeWarning("images")

    def begin(self, is_new_data=True):
        """Makes the next batch the first.

        Args:
            is_new_data: Boolean, whether a warning that was given may be given again.
        """
        if is_new_data:
            self._warn_of_range = RangeWarning("images")
        self.has_passed = False
        self._seen, self._num_seen = set(), 0
        self._has_seen_all = True

    def __call__(self, parts):
        """Raises unless the images and labels of a batch fit the model.

        Later batches are checked where that needs no copy from a device.

        Args:
            parts: List with a tuple of images, labels, … for each replica of this process.
        """
        for part in parts:
            if self.has_passed and not _is_on_host(part):
                self._has_seen_all = False
                continue
            images, labels = unpack(part, self.num_classes)
            self._warn_of_range(check_values(images, self.image_shape))
            if labels is not None:
                labels = np.asarray(ops.convert_to_numpy(labels))
                self._seen.update(labels.tolist())
                self._num_seen += len(labels)

    def warn_of_missing_classes(self, is_whole):
        """Warns of classes without an image in what was seen since `begin`.

        Args:
            is_whole: Boolean, whether all the data were seen. Of a part of them only classes that
                would be in it almost surely, if all were equally frequent, are missing.

        Returns:
            Boolean, whether it warned.
        """
        if not self._seen:
            return False
        count = self.num_classes
        is_whole = is_whole and self._has_seen_all
        is_enough = is_whole or self._num_seen > count * np.log(1000 * count)
        if len(self._seen) == count or not is_enough:
            return False
        missing = [*itertools.islice((x for x in range(count) if x not in self._seen), 11)]
        names = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        among = "" if is_whole else f" in the first {self._num_seen}"
        warnings.warn(
            f"`{self.argument}` has no image{among} of {count - len(self._seen)} of "
            f"num_classes={count} classes: {names}. They are trained as fakes alone, and "
            "`generate(labels=None)` draws them too: build the networks and SAGAN for the classes "
            "there are, numbered from 0.",
            stacklevel=3,
        )
        return True

    def check_sizes(self, sizes, per_worker):
        """Raises unless the replicas share a batch equally; then it has passed.

        Args:
            sizes: List of the images that each replica has, `REFUSED` for those of another
                worker that found its own bad.
            per_worker: Integer, how many of them are one worker's.
        """
        if self.REFUSED in sizes:
            bad = [
                worker for worker, size in enumerate(sizes[::per_worker]) if size == self.REFUSED
            ]
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
    devices = [str(getattr(x, "device", "")) for x in tensors if not is_absent(x)]
    return all("cpu" in device.lower() for device in devices)


def warn_of_outputs(model, images, labels):
    """Warns of a generator or a discriminator that ends in the wrong activation.

    Where the graph of layers doesn't tell, values do.

    Args:
        model: The `SAGAN`.
        images: float32 images in [-1, 1], a few of them.
        labels: As many labels, or `None`.
    """
    generator, discriminator = model.generator, model.discriminator
    latents = np.random.default_rng(0).standard_normal((len(images), model.latent_dim), "float32")
    ending = last_activation(generator)
    if ending in (None, "add"):
        ending = _ending_by_values(generator, latents, labels)
    if ending in ONE_SIDED:
        _warn(f"`generator` ends in {ending}: its images never fill [-1, 1], where the real ones "
              "lie. End it in tanh.")  # fmt: skip
    elif ending is not None and ending not in FILLS_RANGE:
        name = "no activation" if ending == "linear" else ending
        _warn(f"`generator` ends in {name}: its images may leave [-1, 1], where the real ones lie "
              "and `generate` clips. End it in tanh.")  # fmt: skip
    ending = last_activation(discriminator)
    if ending is None:
        far = [values_of(judge, discriminator, sign * FAR * images, labels) for sign in (-1, 1)]
        bounds = np.abs(np.concatenate(far)[:, None] - [-1.0, 0.0, 1.0]).min(axis=1)
        ending = "sigmoid or tanh" if bounds.max() < 1e-3 and np.ptp(far) > 0 else None
    if ending not in (None, "add", "linear", "leakyrelu"):
        _warn(f"`discriminator` ends in {ending}: the losses need logits, which may be any real "
              "number. End it in a layer without an activation.")  # fmt: skip


def last_activation(network):
    """Returns the name of the activation that a network ends in.

    Args:
        network: Keras model.

    Returns:
        String without underscores, `"linear"` for none, `"add"` for a sum, or `None` where the
        graph of layers doesn't tell.
    """
    tensors = getattr(network, "outputs", None)
    while tensors:
        operation = tensors[0]._keras_history.operation
        name = _activation_of(operation)
        if name != "shape":
            return name
        tensors = keras.tree.flatten(operation.input)
    return None


def _activation_of(operation):
    kind = type(operation).__name__
    if isinstance(operation, keras.Model):
        return last_activation(operation)
    activation = getattr(operation, "activation", None)
    is_only_activation = isinstance(operation, keras.layers.Activation)
    if kind in SHAPES or (is_only_activation and activation is keras.activations.linear):
        return "shape"
    # Layers such as `ReLU` and the functions of `ops` are named as what they do.
    name = getattr(activation, "__name__", kind).replace("_", "").lower()
    return name if name in KNOWN or kind == "Add" else None


def _ending_by_values(generator, latents, labels):
    near = values_of(call, generator, latents, labels, training=True)
    far = values_of(call, generator, FAR * latents, labels)
    images = np.concatenate([near, far])
    if images.min() >= 0 and images.max() > 0:
        return "relu" if images.max() > 1.001 else "sigmoid"
    return "linear" if np.abs(images).max() > 1.001 else None


def _warn(message):
    warnings.warn(message, stacklevel=4)


def has_batch_statistics(discriminator, image_shape, has_labels):
    """Whether the logits of an image depend on the other images of its batch.

    Half of a batch of noise is judged twice, beside two other halves. Batch normalization and a
    minibatch standard deviation are found by that; a draw of `Dropout` isn't taken for them, as it
    is the same both times. The weights are noise too, so that the answer is the same before
    training and after.

    Args:
        discriminator: Keras model.
        image_shape: Tuple `(height, width, channels)`.
        has_labels: Boolean, whether it takes labels.

    Returns:
        Boolean.
    """
    for layer in discriminator._flatten_layers():
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
    """Returns what `call` or `judge` returns, as an array, and assigns nothing."""
    labels = None if labels is None else ops.convert_to_tensor(labels, "int32")
    with keras.StatelessScope(weights):  # Not a `Scope`: a step that is traced has no values.
        outputs = function(network, ops.convert_to_tensor(inputs), labels, training)
    return ops.convert_to_numpy(ops.cast(outputs, "float32"))
