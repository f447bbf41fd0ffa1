"""The FID Inception network, against torch-fidelity's with the same random weights.

Without torch-fidelity, features are compared with what it returned.
"""

import hashlib
import importlib
import importlib.util
import sys
import types

import keras
import numpy as np
import pytest

from keras_sagan import metrics
from keras_sagan.metrics.extractors import fid_inception

pytestmark = pytest.mark.slow
RETURNED = {  # By torch-fidelity, for the first of `images()`.
    "features": [0.07002499, 2.4204593, 0.02965708, 0.13865918],
    "logits": [4.4180336, -2.2918155, 0.43829072, -1.5771365],
}


def to_numpy(outputs):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


@pytest.fixture(scope="module")
def tensors():
    """Random weights, with which activations keep their scale and depend on the image."""
    rng, found = np.random.default_rng(0), {}
    for layer in fid_inception._build_network().layers:
        if not layer.weights:
            continue
        *size, channels, filters = layer.kernel.shape
        kernel = rng.normal(0, (2 / np.prod([channels, *size])) ** 0.5, (filters, channels, *size))
        name = layer.name.replace("-", ".")
        if name == "fc":
            found["fc.weight"] = kernel.astype("float32")
            continue
        found[f"{name}.conv.weight"] = kernel.astype("float32")
        for part in ("weight", "running_var", "bias", "running_mean"):
            is_scale = part in ("weight", "running_var")
            values = rng.uniform(0.8, 1.25, filters) if is_scale else rng.normal(0, 0.1, filters)
            found[f"{name}.bn.{part}"] = values.astype("float32")
    return found


@pytest.fixture(scope="module")
def torch_fidelity_network(tensors):
    """Torch-fidelity's extractor with the same weights."""
    torch = pytest.importorskip("torch")
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None:
        pytest.skip("torch-fidelity is missing")
    parent = types.ModuleType("torch_fidelity")  # Its own `__init__` needs torchvision.
    parent.__path__ = spec.submodule_search_locations
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch_fidelity", parent)
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        kind = module.FeatureExtractorInceptionV3
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: None)
        patch.setattr(kind, "load_state_dict", lambda self, state: None)
        network = kind("network", ["2048", "logits_unbiased"])
    for name, value in network.state_dict().items():
        if name in tensors:
            value.copy_(torch.tensor(tensors[name]))
    return network


@pytest.fixture(scope="module")
def extractor(torch_fidelity_network, tmp_path_factory):
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    # The published file is older than PyTorch's zip format.
    torch.save(torch_fidelity_network.state_dict(), path, _use_new_zipfile_serialization=False)
    return metrics.FIDInception(path)


@pytest.fixture
def read(tensors, monkeypatch, tmp_path):
    """A file as which these tensors are read, and the tensors."""
    (path := tmp_path / "weights.pth").write_bytes(b"weights")
    tensors = {**tensors}
    monkeypatch.setattr(fid_inception, "read_torch_weights", lambda path: tensors)
    return path, tensors


def images():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 1), dtype="uint8")
    pixels >>= np.arange(3, dtype="uint8")[:, None, None, None]  # Images of different brightness.
    return np.concatenate([pixels, pixels, pixels // 2], axis=-1)


def test_features_are_those_that_torch_fidelity_returned(read):
    extractor = metrics.FIDInception(read[0])
    outputs = to_numpy(extractor.named_outputs(images()[:1] / np.float32(127.5) - 1))
    for name, expected in RETURNED.items():
        np.testing.assert_allclose(outputs[name][0, :4], expected, rtol=1e-4, atol=1e-4)


def test_features_logits_and_the_shapes_of_all_layers_equal_torch_fidelity(
    torch_fidelity_network, extractor
):
    torch = pytest.importorskip("torch")
    pixels, shapes = images(), {}

    def record(name):
        return lambda module, inputs, output: shapes.update({name: tuple(output.shape[1:])})

    for name, module in torch_fidelity_network.named_modules():
        if hasattr(module, "conv") or name.startswith("Mixed_") and "." not in name:
            module.register_forward_hook(record(name))
    with torch.no_grad():
        expected = torch_fidelity_network(torch.tensor(pixels).permute(0, 3, 1, 2))
    outputs = to_numpy(extractor.named_outputs(pixels / np.float32(127.5) - 1))
    for found, other in zip((outputs["features"], outputs["logits"]), expected):
        other = other.numpy()
        assert other.std(axis=0).mean() > 0.01 * other.std()  # Images have different features.
        np.testing.assert_allclose(found, other, atol=1e-4 * np.abs(other).max())

    found = {
        layer.name.replace("-", "."): tuple(layer.output.shape[i] for i in (3, 1, 2))
        for layer in extractor._load().layers
        if len(layer.output.shape) == 4
    }
    assert len(shapes) == 105 and shapes == {name: found[name] for name in shapes}


def test_the_version_has_the_digest_of_the_file(read):
    extractor = metrics.FIDInception(read[0])
    digest = hashlib.sha256(b"weights").hexdigest()
    assert extractor.version == f"FID Inception resize=tfgan sha256:{digest}"
    again = metrics.FIDInception.from_config(extractor.get_config())
    assert again.version == extractor.version


def test_another_network_is_refused(read):
    path, tensors = read
    tensors["fc.weight"] = tensors["fc.weight"][:1000]  # As in torchvision.
    del tensors["Mixed_7c.branch_pool.bn.bias"]
    message = (
        r"Received: .*weights\.pth, where 2 of 471 tensors differ, such as fc\.weight of shape "
        r"\(1008, 2048\) \(in the file: \(1000, 2048\)\), Mixed_7c\.branch_pool\.bn\.bias of shape "
        r"\(192,\) \(in the file: none\)"
    )
    with pytest.raises(ValueError, match=message):
        metrics.FIDInception(path)(np.zeros((1, 8, 8, 3), "float32"))


def test_nothing_is_downloaded_before_the_first_use(monkeypatch):
    def offline(**kwargs):
        raise OSError(f"no route to {kwargs['origin']}")

    monkeypatch.setattr(keras.utils, "get_file", offline)
    extractor = metrics.FIDInception()
    with pytest.raises(RuntimeError, match="no route to https://github.com.*6726825d.pth"):
        extractor(np.zeros((1, 8, 8, 3), "float32"))
