"""A wrapper that spectrally normalizes the kernels of any Keras layer."""

import functools
import inspect
from collections.abc import Sequence

import keras
from keras import KerasTensor, layers

from keras_sagan.checks import check_boolean, check_choice, check_list
from keras_sagan.layers.spectral_norm import (
    ConvolutionNorm,
    MatrixNorm,
    Scope,
    SpectralNormBase,
)
from keras_sagan.ops.programs import outside_programs
from keras_sagan.ops.resampling import of_any_batch
from keras_sagan.private_keras import layers_of

NAMES = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
NAMES += ("embeddings", "reverse_embeddings")
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
PLAIN = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)


@keras.saving.register_keras_serializable(package="keras_sagan")
class SpectralNorm(SpectralNormBase, layers.Wrapper):
    """Wrapper that divides each kernel of a Keras layer by its spectral norm.

    The wrapped layer can be any layer with kernels: dense, convolutional, transposed, depthwise and
    separable layers, embeddings, recurrent, attention and custom layers. Each call computes
    `kernel / sigma` once, even for a recurrent layer, and calls the wrapped layer with the result.
    As in `SNConv2D`, the stored kernels are never overwritten, and the gradient flows through
    `sigma`.

    `sigma` is the largest singular value of the kernel reshaped to `(rest, outputs)`. By default,
    `outputs` is the last axis of the kernel; in transposed convolutions, the second-to-last axis;
    in depthwise convolutions, the last two axes; and in `EinsumDense`, the kernel's axes that also
    appear in the output. In each kernel, all gates of a recurrent layer, or all heads of an
    attention layer, share one matrix.

    Args:
        layer: Keras layer, which may already be built. Its dtype policy is used. Wrap the entire
            `Bidirectional` or `TimeDistributed` layer, not its inner layer.
        power_iterations, epsilon, equality_constrained: As in `SNConv2D`.
        norm: `"matrix"` for the norm above, or `"operator"` for the norm of the convolution as a
            linear operator with zero padding. The operator norm depends on the map size at `build`,
            so maps of a different size raise an error. `"operator"` requires `Dense`, `Conv1D`,
            `Conv2D` or `Conv3D` without strides, dilation or groups.
        kernels: List of the names of the layer's kernel attributes, such as `["my_kernel"]` or
            `["cell.recurrent_kernel"]`. By default, kernels are found by their usual names,
            including in nested layers.
        name, trainable: As in `keras.layers.Layer`.

    Call arguments:
        The arguments of the wrapped layer, and `training`.
        training: Boolean, whether to update each `vector_u`, so that `sigma` stays accurate when
            the kernel changes.

    Returns:
        The outputs of the wrapped layer.

    State:
        The weights of the wrapped layer, and a float32 `vector_u` for each kernel. A `vector_u` has
        shape `(outputs,)`, or the shape of a single input map for convolutions with
        `norm="operator"`. It is initialized to its converged value, and is updated with
        `training=True`, unless the layer is frozen. Methods of the wrapped layer, such as
        `reset_state`, are available through the `layer` attribute.

    Raises:
        ValueError: If `layer` has no kernels after `build`, one of `kernels` doesn't exist, the
            layer is already normalized, quantized or adapted by LoRA, or `norm="operator"` doesn't
            support the layer or inputs.

    Example:
    >>> import keras
    >>> layer = SpectralNorm(keras.layers.Conv1DTranspose(1, 1, kernel_initializer="ones"))
    >>> float(keras.ops.sum(layer(keras.ops.ones((1, 1, 4)))))  # sigma = sqrt(4)
    2.0

    Reference:
        [Miyato et al., 2018](https://arxiv.org/abs/1802.05957), sections 2.1 and 2.2.
    """

    def __init__(
        self,
        layer: keras.Layer,
        power_iterations: int = 1,
        epsilon: float = 1e-12,
        equality_constrained: bool = True,
        norm: str = "matrix",
        kernels: Sequence[str] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        if not isinstance(layer, keras.Layer):
            raise ValueError(f"`layer` must be a Keras layer. Received: layer={layer!r}")
        _check_plain(layer)
        # Keras reads the arguments of a layer from these signatures.
        call = self.__dict__["call"] = functools.partial(self.call)
        call.__signature__ = _with_training(inspect.signature(layer.call))  # type: ignore
        self.__dict__["build"].__signature__ = inspect.signature(layer.build)
        # Autocast would convert kernels and inputs before the wrapped layer receives them.
        dtype = keras.backend.result_type(layer.variable_dtype, "float32")
        trainable = check_boolean("trainable", trainable)
        super().__init__(layer, name=name, trainable=trainable, dtype=dtype, autocast=False)
        self._set_spectral_norm(power_iterations, epsilon, equality_constrained)
        self.norm = check_choice("norm", norm, ("matrix", "operator"))
        kernels = check_list("kernels", kernels, optional=True)
        if kernels is not None and not (kernels and all(isinstance(x, str) for x in kernels)):
            raise ValueError(f"`kernels` must be a list of names. Received: kernels={kernels!r}")
        self.kernels = kernels
        self.supports_masking = layer.supports_masking
        self._found = ()

    def build(self, *args, **kwargs) -> None:
        if self.built:
            return
        with outside_programs():  # The initial vectors depend on the values of the kernels.
            if not self.layer.built:
                self.layer.build(*args, **kwargs)
                self.layer.built = True
            _check_plain(self.layer)
            self._input_shape = args[0] if args else kwargs.get("input_shape")
            found = self._find_kernels()
            self.vectors_u = [
                self._add_vector_u(kernel, norm, f"vector_u_{index}" if index else "vector_u")
                for index, (_, _, kernel, norm) in enumerate(found)
            ]
        self.__dict__["_found"] = found  # The wrapped layer already tracks the kernels.

    def _find_kernels(self):
        """Returns a list with a tuple `(owner, attribute, kernel, norm)` for each kernel."""
        if self.kernels is None:
            places = [(owner, name) for owner in layers_of(self.layer) for name in NAMES]
        else:
            places = [self._place(path) for path in self.kernels]
        found = {}
        for owner, name in places:
            kernel = getattr(owner, name, None)
            if isinstance(kernel, keras.Variable) and len(kernel.shape) > 1:
                found.setdefault(id(kernel), (owner, name, kernel, self._norm_of(owner, kernel)))
            elif self.kernels is not None:
                raise ValueError(
                    "`kernels` must name variables of rank 2 or more, which `build` creates. "
                    f"Received: kernels={self.kernels} for {_described(self.layer)}, where "
                    f"{name!r} is {kernel!r}"
                )
        if not found:
            raise ValueError(
                "`layer` must have kernels that `build` creates: variables named "
                f"{', '.join(NAMES)} in it or in its layers, or those that `kernels` names. If "
                "the layer creates them in `call`, call it once before you wrap it. "
                f"Received: layer={_described(self.layer)}"
            )
        return list(found.values())

    def _place(self, path):
        *owners, name = path.split(".")
        return functools.reduce(lambda x, part: getattr(x, part, None), owners, self.layer), name

    def _norm_of(self, owner, kernel):
        if self.norm == "operator":
            return _operator_norm(self.layer, kernel, self._input_shape)
        outputs = (-1,)
        if isinstance(owner, TRANSPOSED):
            outputs = (-2,)
        elif isinstance(owner, DEPTHWISE) or kernel is getattr(owner, "depthwise_kernel", None):
            outputs = (-2, -1)
        elif isinstance(owner, layers.EinsumDense):
            operands, results = owner.equation.split("->")
            axes = enumerate(operands.split(",")[1])
            outputs = tuple(axis for axis, letter in axes if letter in results)
        return MatrixNorm(kernel.shape, outputs)

    def normalized_kernels(self) -> list[tuple]:
        vectors = self.vectors_u if self.built else []
        return [(*found[2:], vector_u) for found, vector_u in zip(self._found, vectors)]

    @property
    def sigma(self) -> dict[str, KerasTensor]:
        """Dictionary that maps each kernel's path in the layer to the estimate of its norm."""
        return {
            kernel.path.removeprefix(f"{self.layer.path}/"): self._sigma_of(kernel, norm, vector_u)
            for kernel, norm, vector_u in self.normalized_kernels()
        }

    def normalized_weights(
        self, training: bool = False
    ) -> list[tuple[keras.Variable, KerasTensor]]:
        """Returns a list of `(kernel, normalized kernel)`, where the latter is float32 or float64.

        Args:
            training: Boolean, whether to update each `vector_u`. A frozen layer never updates it.
        """
        for owner, name, kernel, _ in self._found:
            if getattr(owner, name, None) is not kernel:
                self._refuse("quantized or adapted by LoRA", name, ())
        training = training and self.layer.trainable
        return [
            (kernel, self._normalize(kernel, norm, vector_u, training))
            for kernel, norm, vector_u in self.normalized_kernels()
        ]

    def _check_map(self, args, kwargs):
        """Raises an error if the map size of the inputs differs from the size at `build`."""
        if self.norm != "operator" or not isinstance(self.layer, PLAIN):
            return
        inputs = args[0] if args else kwargs["inputs"]
        shape, expected = tuple(inputs.shape), _map_size(self.layer, self._input_shape)
        # Keras raises an error for maps of a different rank.
        if len(shape) == self.layer.rank + 2 and _map_size(self.layer, shape) != expected:
            raise ValueError(
                '`norm="operator"` needs maps of the size that the wrapper was built for, '
                f"{expected}. Received: inputs of shape {shape}"
            )

    def call(self, *args, training=False, **kwargs):
        self._check_map(args, kwargs)
        if "training" in self.layer.call_signature_parameters:
            kwargs["training"] = training
        function = functools.partial(self.layer, **kwargs)
        is_convolution = isinstance(self.layer, (*PLAIN, *TRANSPOSED, *DEPTHWISE, *SEPARABLE))
        with _LayerScope(self.normalized_weights(training), collect_losses=True) as scope:
            if is_convolution and len(args) == 1 and self.layer.activity_regularizer is None:
                outputs = of_any_batch(function, args[0], training)
            else:
                outputs = function(*args)
        scope.commit(self)
        return outputs

    @property
    def input_spec(self) -> keras.InputSpec | None:
        return self.layer.input_spec

    def compute_output_shape(self, *args, **kwargs) -> tuple:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, training=False, **kwargs):
        self._check_map(args, kwargs)
        if "training" in self.layer.call_signature_parameters:
            kwargs["training"] = training
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, *args, **kwargs):
        return self.layer.compute_mask(*args, **kwargs)

    def get_build_config(self) -> dict | None:
        if self.built and self.norm == "operator":
            return {"input_shape": self._input_shape}
        return self.layer.get_build_config() if self.built else None

    def get_config(self) -> dict:
        config = {**super().get_config(), "norm": self.norm, "kernels": self.kernels}
        return {key: value for key, value in config.items() if key != "dtype"}


class _LayerScope(Scope):
    """Collects the values that a layer assigns while its kernels are normalized."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._variables = {}  # Maps ids to variables; `layer.variables` lacks recurrent states.

    def add_update(self, update):
        self._variables[id(update[0])] = update[0]
        super().add_update(update)

    def commit(self, layer):
        """Assigns the collected values, and adds the collected losses, after the `with` block."""
        for key, variable in self._variables.items():
            variable.assign(self.state_mapping[key])
        outer = self.original_scope
        add_loss = layer.add_loss if outer is None else outer.add_loss
        if outer is None or outer.collect_losses:
            for loss in self.losses:
                add_loss(loss)


def _check_plain(layer):
    normalized = (SpectralNormBase, layers.SpectralNormalization)
    for x in layers_of(layer):
        # The forward pass of such a layer doesn't read the plain kernel.
        is_changed = any(getattr(x, name, None) for name in ("quantization_mode", "lora_enabled"))
        if is_changed or isinstance(x, normalized):
            kind = "quantized or adapted by LoRA" if is_changed else "spectrally normalized already"
            raise ValueError(
                f"`layer` must not be {kind}. "
                f"Received: layer={_described(layer)} with {_described(x)}"
            )


def _described(layer):
    return f"{type(layer).__name__}(name={layer.name!r})"


def _with_training(signature):
    parameters = list(signature.parameters.values())
    if "training" not in signature.parameters:
        takes_any = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
        training = inspect.Parameter("training", inspect.Parameter.KEYWORD_ONLY, default=False)
        parameters.insert(len(parameters) - takes_any, training)
    return signature.replace(parameters=parameters)


def _operator_norm(layer, kernel, input_shape):
    if type(layer) is layers.Dense:
        return MatrixNorm(kernel.shape)
    names = ("strides", "dilation_rate", "groups")
    found = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    if not isinstance(layer, PLAIN) or max(keras.tree.flatten(found)) > 1:
        settings = "".join(f", {name}={value}" for name, value in found.items())
        raise ValueError(
            '`norm="operator"` needs Dense, Conv1D, Conv2D or Conv3D with `strides`, '
            "`dilation_rate` and `groups` of 1. "
            f"Received: norm='operator' for {_described(layer)}{settings}"
        )
    sizes = _map_size(layer, input_shape)
    if None in sizes:
        raise ValueError(
            '`norm="operator"` needs maps whose size is known when the layer is built. '
            f"Received: inputs of shape {tuple(input_shape)}"
        )
    return ConvolutionNorm((*sizes, kernel.shape[-2]), layer.kernel_size, layer.padding)


def _map_size(layer, shape):
    is_last = layer.data_format == "channels_last"
    return tuple(shape[1:-1] if is_last else shape[2:])
