"""The Inception network behind published FID scores, with the weights file of pytorch-fid."""

import os

import keras
import numpy as np
from keras import layers

from keras_sagan.checks import check_path
from keras_sagan.metrics.extraction import Extractor
from keras_sagan.metrics.extractors.resizing import resize_images, to_rgb
from keras_sagan.metrics.extractors.torch_weights import read_torch_weights
from keras_sagan.weight_files import fetch_weights

FID_INCEPTION_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
_KIND = {"dtype": "float32", "data_format": "channels_last"}
_ZEROS = {"kernel_initializer": "zeros"}  # On JAX, random initialization takes seconds.


@keras.saving.register_keras_serializable(package="keras_sagan")
class FIDInception(Extractor):
    """Feature extractor: 2048 pooled features of the Inception network behind published FID scores.

    The network is that of Heusel et al. and works on every backend. Images are resized to
    299 × 299 pixels as in TensorFlow 1, so the features equal those of torch-fidelity; pytorch-fid
    resizes slightly differently. A gray image is repeated over three channels. The weights are a
    `.pth` file that both pytorch-fid and torch-fidelity publish. The file is read without PyTorch,
    and no code in it runs. A downloaded file is kept in Keras's cache, and its digest is checked.
    Nothing is downloaded or built before the first use.

    Args:
        weights: The path or the URL of the `.pth` file. Defaults to the URL of pytorch-fid.

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, height, width, 1 or 3). Any image size is
            allowed.

    Returns:
        Float32 tensor of shape (batch, 2048). `named_outputs(images)` returns a dictionary with
        `"features"` and `"logits"`. The 1008 logits have no bias, as in the original Inception
        Score.

    Raises:
        ValueError: If `weights` isn't a path or URL, or images have the wrong shape or dtype. On
            first use, if the file is missing or damaged, contains code or a different network, or
            doesn't match the digest in its name or the record of the first download.
        RuntimeError: On first use, if the weights can't be downloaded.

    Example:
    ```python
    fid = FrechetInceptionDistance(FIDInception(), value_range=(-1, 1))
    ```

    Reference: [Heusel et al., 2017](https://arxiv.org/abs/1706.08500).
    """

    arguments = ("weights",)
    resize = "tfgan"

    def __init__(self, weights: str | os.PathLike = FID_INCEPTION_URL):
        self.weights = check_path("weights", weights, allow_url=True)
        self._file = None

    @property
    def version(self) -> str:
        """The network's name, the resize method and the SHA-256 of the weights file."""
        return f"FID Inception resize={self.resize} sha256:{self._fetch()[1]}"

    def named_outputs(self, images: keras.KerasTensor) -> dict:
        """Returns a dictionary: `"features"` (batch, 2048) and `"logits"` (batch, 1008)."""
        images = resize_images(to_rgb(images), 299, self.resize)
        return self._load()(images, training=False)

    def _fetch(self):
        if self._file is None:
            self._file = fetch_weights(self.weights)
        return self._file

    def _build(self):
        path, _ = self._fetch()
        network = _build_network()
        _assign(network, read_torch_weights(path), path)
        return network


def _build_network():
    """Builds the network; its layers are named as in the weights file, with "-" instead of ".".

    Keras's PyTorch backend doesn't allow dots in layer names. Each batch normalization is merged
    into the kernel and bias of the convolution before it.
    """
    images = keras.Input((299, 299, 3), name="images", dtype="float32")
    # Scale [-1, 1] to pixels in [0, 255], then to (pixel - 128) / 128, as in TensorFlow 1's graph.
    x = layers.Rescaling(127.5 / 128, offset=-0.5 / 128, name="pixels", dtype="float32")(images)
    x = _conv(x, "Conv2d_1a_3x3", 32, 3, 2)
    x = _conv(x, "Conv2d_2a_3x3", 32, 3, padding="valid")
    x = _conv(x, "Conv2d_2b_3x3", 64, 3)
    x = layers.MaxPooling2D(3, 2, **_KIND)(x)
    x = _conv(x, "Conv2d_3b_1x1", 80, 1)
    x = _conv(x, "Conv2d_4a_3x3", 192, 3, padding="valid")
    x = layers.MaxPooling2D(3, 2, **_KIND)(x)
    for name, pool_filters in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = _block_a(x, name, pool_filters)
    x = _block_b(x, "Mixed_6a")
    for name, filters in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160)):
        x = _block_c(x, name, filters)
    x = _block_c(x, "Mixed_6e", 192)
    x = _block_d(x, "Mixed_7a")
    x = _block_e(x, "Mixed_7b", layers.AveragePooling2D)
    x = _block_e(x, "Mixed_7c", layers.MaxPooling2D)  # The original network has max pooling here.
    features = layers.GlobalAveragePooling2D(name="pool", **_KIND)(x)
    dense = layers.Dense(1008, use_bias=False, name="fc", dtype="float32", **_ZEROS)
    outputs = {"features": features, "logits": dense(features)}
    return keras.Model(images, outputs, name="fid_inception")


def _conv(x, name, filters, size, strides=1, padding="same"):
    padding = "valid" if strides > 1 else padding
    arguments = {"activation": "relu", "name": name, **_ZEROS, **_KIND}
    return layers.Conv2D(filters, size, strides, padding, **arguments)(x)


def _chain(x, name, filters, sizes, strides=1):
    """Applies convolutions named `<name>_1`, `<name>_2`, …; only the last one has `strides`."""
    for i, (count, size) in enumerate(zip(filters, sizes), start=1):
        x = _conv(x, f"{name}_{i}", count, size, strides if i == len(sizes) else 1)
    return x


def _pool(x, layer=layers.AveragePooling2D):
    return layer(3, 1, "same", **_KIND)(x)  # The average excludes the padding.


def _join(name, *branches):
    return layers.Concatenate(name=name, dtype="float32")(branches)


def _block_a(x, name, pool_filters):
    return _join(
        name,
        _conv(x, f"{name}-branch1x1", 64, 1),
        _chain(x, f"{name}-branch5x5", [48, 64], [1, 5]),
        _chain(x, f"{name}-branch3x3dbl", [64, 96, 96], [1, 3, 3]),
        _conv(_pool(x), f"{name}-branch_pool", pool_filters, 1),
    )


def _block_b(x, name):
    return _join(
        name,
        _conv(x, f"{name}-branch3x3", 384, 3, 2),
        _chain(x, f"{name}-branch3x3dbl", [64, 96, 96], [1, 3, 3], 2),
        layers.MaxPooling2D(3, 2, **_KIND)(x),
    )


def _block_c(x, name, filters):
    row, column = (1, 7), (7, 1)
    return _join(
        name,
        _conv(x, f"{name}-branch1x1", 192, 1),
        _chain(x, f"{name}-branch7x7", [filters, filters, 192], [1, row, column]),
        _chain(x, f"{name}-branch7x7dbl", [filters] * 4 + [192], [1, column, row, column, row]),
        _conv(_pool(x), f"{name}-branch_pool", 192, 1),
    )


def _block_d(x, name):
    return _join(
        name,
        _chain(x, f"{name}-branch3x3", [192, 320], [1, 3], 2),
        _chain(x, f"{name}-branch7x7x3", [192] * 4, [1, (1, 7), (7, 1), 3], 2),
        layers.MaxPooling2D(3, 2, **_KIND)(x),
    )


def _block_e(x, name, pool):
    single = _conv(x, f"{name}-branch3x3_1", 384, 1)
    double = _chain(x, f"{name}-branch3x3dbl", [448, 384], [1, 3])
    return _join(
        name,
        _conv(x, f"{name}-branch1x1", 320, 1),
        _conv(single, f"{name}-branch3x3_2a", 384, (1, 3)),
        _conv(single, f"{name}-branch3x3_2b", 384, (3, 1)),
        _conv(double, f"{name}-branch3x3dbl_3a", 384, (1, 3)),
        _conv(double, f"{name}-branch3x3dbl_3b", 384, (3, 1)),
        _conv(_pool(x, pool), f"{name}-branch_pool", 192, 1),
    )


def _assign(network, tensors, path):
    """Assigns a file's tensors; raises an error if any are missing or have the wrong shape."""
    convolutions = {x.name.replace("-", "."): x for x in network.layers if hasattr(x, "kernel")}
    dense = convolutions.pop("fc")
    expected = {"fc.weight": dense.kernel.shape[::-1]}
    for name, layer in convolutions.items():
        *size, channels, filters = layer.kernel.shape
        expected[f"{name}.conv.weight"] = (filters, channels, *size)
        for part in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.bn.{part}"] = (filters,)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    wrong = [
        f"{name} of shape {tuple(shape)} (in the file: {found.get(name, 'none')})"
        for name, shape in expected.items()
        if found.get(name) != tuple(shape)
    ]
    if wrong:
        raise ValueError(
            f"`weights` must be the file of the FID Inception network. Received: {path}, where "
            f"{len(wrong)} of {len(expected)} tensors differ, such as {', '.join(wrong[:4])}"
        )
    dense.kernel.assign(tensors["fc.weight"].T)
    for name, layer in convolutions.items():
        kernel, gamma, beta, mean, variance = (
            tensors[f"{name}.{part}"].astype("float64")
            for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        scale = gamma / np.sqrt(variance + 1e-3)
        layer.kernel.assign(kernel.transpose(2, 3, 1, 0) * scale)
        layer.bias.assign(beta - mean * scale)
