"""Embedding with a spectrally normalized table."""

import keras
import numpy as np
from keras import KerasTensor, ops

from keras_sagan.checks import check_boolean, check_integer, check_labels
from keras_sagan.layers.spectral_norm import SpectralNormMixin, initial_vector_u


@keras.saving.register_keras_serializable(package="keras_sagan")
class SNEmbedding(SpectralNormMixin, keras.layers.Embedding):
    """Embedding whose `(input_dim, output_dim)` table is divided by its spectral norm.

    It replaces `keras.layers.Embedding`. See `SNConv2D` for custom training loops and for the
    differences from `keras.layers.SpectralNormalization`.

    Args:
        input_dim, output_dim, embeddings_initializer, embeddings_regularizer,
            embeddings_constraint, mask_zero, weights:
            As in `keras.layers.Embedding`.
        power_iterations, epsilon, equality_constrained: As in `SNConv2D`.

    Call arguments:
        inputs: Tensor of any shape with ids in `[0, input_dim)`. Floats are truncated to integers,
            as in `keras.layers.Embedding`.
        training: Boolean, whether to update `vector_u`.

    Returns:
        Float tensor of shape `(*inputs.shape, output_dim)`.

    State:
        `vector_u`, float32 of shape `(output_dim,)`, as in `SNConv2D`.

    Raises:
        ValueError: If an argument is out of range, or if ids are known to be out of range.

    Example:
    >>> import keras
    >>> layer = SNEmbedding(2, 2, embeddings_initializer="ones")  # sigma = 2
    >>> keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor([1]))).round(6).tolist()
    [[0.5, 0.5]]

    Reference: [Miyato & Koyama, 2018](https://arxiv.org/abs/1802.05637), on projection
    discriminators.
    """

    _sizes = ("input_dim", "output_dim")

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: str | keras.Initializer = "uniform",
        embeddings_regularizer: keras.regularizers.Regularizer | None = None,
        embeddings_constraint: keras.constraints.Constraint | None = None,
        mask_zero: bool = False,
        weights: np.ndarray | list | None = None,
        power_iterations: int = 1,
        epsilon: float = 1e-12,
        equality_constrained: bool = True,
        **kwargs,
    ):
        super().__init__(
            check_integer("input_dim", input_dim),
            check_integer("output_dim", output_dim),
            embeddings_initializer=embeddings_initializer,
            embeddings_regularizer=embeddings_regularizer,
            embeddings_constraint=embeddings_constraint,
            mask_zero=check_boolean("mask_zero", mask_zero),
            **kwargs,
        )
        self._set_spectral_norm(power_iterations, epsilon, equality_constrained)
        if weights is not None:  # Keras would expect `weights` to contain `vector_u`.
            is_wrapped = isinstance(weights, (list, tuple)) and len(weights) == 1
            weights = weights[0] if is_wrapped else weights
            if tuple(np.shape(weights)) != (self.input_dim, self.output_dim):
                raise ValueError(
                    f"`weights` must be a table of shape ({self.input_dim}, {self.output_dim}), "
                    f"or a list of it. Received: weights of shape {tuple(np.shape(weights))}"
                )
            self.build()
            self.embeddings.assign(weights)
            self.vector_u.assign(initial_vector_u(self.embeddings, self._norm))

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        if "int" not in keras.backend.standardize_dtype(inputs.dtype):
            # Truncate floats, as Keras does, and replace NaN with -1, which is out of range.
            inputs = ops.cast(ops.where(ops.isnan(inputs), -1, inputs), "int32")
        inputs = check_labels(inputs, self.input_dim, rank=None, argument="inputs")
        return ops.take(self.normalized_weight(training), ops.cast(inputs, "int32"), axis=0)

    def compute_output_spec(self, inputs, training=False):
        return KerasTensor((*inputs.shape, self.output_dim), dtype=self.compute_dtype)
