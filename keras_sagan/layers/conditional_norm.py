"""The condition of the conditional norms: integer labels or float vectors."""

import math

import keras
from keras import KerasTensor, ops

from keras_sagan.checks import check_float, check_integer, check_labels, check_weight


class ConditionalNormBase(keras.layers.Layer):
    """Base class of the norms whose `gamma` and `beta` depend on labels or on a vector per image.

    Labels select rows of the tables `gamma` and `beta`. Vectors are multiplied by two kernels:
    `gamma = 1 + vectors @ gamma_kernel` and `beta = vectors @ beta_kernel`. The kernels start as
    zeros, so a new layer equals the norm without a condition. A subclass adds the condition's
    weights with `_add_condition`, and reads them with `_gamma_and_beta`.
    """

    def __init__(self, num_classes, axis, epsilon, condition_dim, **kwargs):
        super().__init__(**kwargs)
        optional = {"optional": True, "expected": "a positive integer"}
        self.num_classes = check_integer("num_classes", num_classes, **optional)
        self.condition_dim = check_integer("condition_dim", condition_dim, **optional)
        if (self.num_classes is None) == (self.condition_dim is None):
            raise ValueError(
                "`num_classes` or `condition_dim` must be given, and not both. Received: "
                f"num_classes={num_classes}, condition_dim={condition_dim}"
            )
        self.axis = check_integer("axis", axis, minimum=-math.inf)
        self.epsilon = check_float("epsilon", epsilon, above=0)
        self.supports_masking = True

    def _add_condition(self, images_shape):
        """Adds the two tables or kernels, and returns the number of channels."""
        if images_shape and isinstance(images_shape[0], (tuple, list)):
            raise ValueError(
                "`images` and `labels` must be two arguments: `layer(images, labels)`. "
                f"Received: a list of tensors of shapes {images_shape}"
            )
        self._check_axis(images_shape)
        channels = images_shape[self.axis]
        if channels is None:
            raise ValueError(
                "The channels of `images`, along `axis`, must be known. "
                f"Received: axis={self.axis} for images of shape {tuple(images_shape)}"
            )
        name = self._condition_name
        weight = {"shape": (getattr(self, name), channels), "autocast": False}
        check_weight(weight["shape"], **{name: getattr(self, name)})
        if self.condition_dim is None:
            self.gamma = self.add_weight(name="gamma", initializer="ones", **weight)
            self.beta = self.add_weight(name="beta", initializer="zeros", **weight)
        else:
            self.gamma_kernel = self.add_weight(name="gamma_kernel", initializer="zeros", **weight)
            self.beta_kernel = self.add_weight(name="beta_kernel", initializer="zeros", **weight)
        return channels

    @property
    def _condition_name(self):
        return "num_classes" if self.condition_dim is None else "condition_dim"

    def _check_axis(self, shape):
        rank = len(shape)
        if self.axis == 0 or not -rank < self.axis < rank:
            raise ValueError(
                f"`axis` must be an axis of `images`, which have rank {rank}, other than the batch "
                f"axis. Received: axis={self.axis} for images of shape {tuple(shape)}"
            )

    def _checked(self, labels, images):
        self._check_axis(images.shape)
        if labels is None:
            if self.num_classes == 1:
                return None
            name = self._condition_name
            raise ValueError(
                f"`labels` must be given, as {name}={getattr(self, name)}. Received: labels=None"
            )
        if self.condition_dim is None:
            labels, kind = check_labels(labels, self.num_classes), "integer class id"
        else:
            labels, kind = self._checked_vectors(labels), "vector"
        counts = images.shape[0], labels.shape[0]
        if None not in counts and counts[0] != counts[1]:  # One label would silently broadcast.
            raise ValueError(
                f"`labels` must have shape {(counts[0], *labels.shape[1:])}: one {kind} per image. "
                f"Received: labels of shape {tuple(labels.shape)}"
            )
        return labels

    def _checked_vectors(self, vectors):
        if not isinstance(vectors, KerasTensor):
            vectors = ops.convert_to_tensor(vectors)
        dtype, shape = keras.backend.standardize_dtype(vectors.dtype), tuple(vectors.shape)
        is_wide = len(shape) == 2 and shape[1] in (None, self.condition_dim)
        if "float" not in dtype or not is_wide:
            raise ValueError(
                f"`labels` must be float vectors of shape (batch, {self.condition_dim}), as "
                f"condition_dim={self.condition_dim}. "
                f"Received: labels of dtype {dtype} and shape {shape}"
            )
        return vectors

    def _gamma_and_beta(self, labels, x):
        """Returns `gamma` and `beta` in the dtype of `x`, with shapes that broadcast to it."""
        if labels is None:
            return (self._expand(ops.cast(t[0], x.dtype), x) for t in (self.gamma, self.beta))
        if self.condition_dim is None:
            labels = ops.cast(labels, "int32")  # TensorFlow can't look up rows by uint8 labels.
            tables = (ops.take(table, labels, axis=0) for table in (self.gamma, self.beta))
            gamma, beta = (ops.cast(rows, x.dtype) for rows in tables)
        else:
            vectors = ops.cast(labels, x.dtype)
            gamma = 1.0 + ops.matmul(vectors, ops.cast(self.gamma_kernel, x.dtype))
            beta = ops.matmul(vectors, ops.cast(self.beta_kernel, x.dtype))
        return self._expand(gamma, x, batch=-1), self._expand(beta, x, batch=-1)

    def _expand(self, vector, x, batch=1):
        shape = [1] * len(x.shape)
        shape[0], shape[self.axis] = batch, x.shape[self.axis]
        return ops.reshape(vector, shape)

    def compute_output_shape(self, images_shape: tuple, labels_shape: tuple | None = None) -> tuple:
        return images_shape

    def compute_output_spec(self, images, labels=None, **kwargs):
        self._checked(labels, images)
        return KerasTensor(images.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict:
        config = {name: getattr(self, name) for name in ("num_classes", "axis", "epsilon")}
        if self.condition_dim is not None:  # Omit `None`, as older versions did.
            config["condition_dim"] = self.condition_dim
        return {**super().get_config(), **config}
