"""PyTorch's weights files without PyTorch: tensors alone, and no code."""

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from keras_sagan.metrics.extractors.torch_weights import read_torch_weights


class Planted:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def write_zip(path, content, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, data in storages:
            archive.writestr(f"archive/data/{key}", data)
    return path


def state_dict():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    tensors = model.state_dict()  # An OrderedDict with the attribute `_metadata`.
    tensors["permuted"] = torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4).permute(2, 0, 1)
    tensors["half"] = torch.ones(5).half()[1:3]
    tensors["shared"] = tensors["0.weight"][1:]
    tensors["scalar"], tensors["empty"] = torch.tensor(True), torch.zeros(0, 3)
    tensors["parameter"] = torch.nn.Parameter(torch.arange(3.0))
    return tensors


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_equal_those_of_pytorch(tmp_path, is_zip):
    torch = pytest.importorskip("torch")
    tensors = state_dict()
    path = tmp_path / "weights.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=is_zip)
    arrays = read_torch_weights(path)
    assert list(arrays) == list(tensors)
    for name, tensor in tensors.items():
        assert arrays[name].dtype == tensor.detach().numpy().dtype
        np.testing.assert_array_equal(arrays[name], tensor.detach().numpy())


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_cut_file_is_refused(tmp_path, is_zip):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    for tensors in (state_dict(), {"empty": torch.zeros(0)}):
        torch.save(tensors, path, _use_new_zipfile_serialization=is_zip)
        content = path.read_bytes()
        for size in (0, 5, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:size])
            with pytest.raises(ValueError, match=r"`path` must be a complete .*weights\.pth"):
                read_torch_weights(path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_planted_code_does_not_run(tmp_path, is_zip):
    path, effect = tmp_path / "weights.pth", tmp_path / "effect"
    content = pickle.dumps({"weight": Planted(effect)}, protocol=2)
    assert pickle.loads(content) and effect.exists()  # It would run.
    effect.unlink()
    if is_zip:
        write_zip(path, content)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"names (posix|nt)\.system, which was not called"):
        read_torch_weights(path)
    assert not effect.exists()


def pickled(shape=(2,), strides=(1,), size=2):
    """The pickle of one tensor, written by hand as PyTorch writes it."""

    def number(x):
        return b"J" + x.to_bytes(4, "little")

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    text = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    storage = text + number(size) + b"tQ"
    arguments = b"(" + storage + number(0) + numbers(shape) + numbers(strides) + b"\x89Nt"
    return b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def test_a_file_written_by_hand(tmp_path):
    path = write_zip(tmp_path / "weights.pth", pickled(), [("0", np.float32([1.5, -2]).tobytes())])
    np.testing.assert_array_equal(read_torch_weights(path)["a"], [1.5, -2.0])


@pytest.mark.parametrize(
    "content, message",
    [
        (pickled(size=3), "storage 0 has 8 bytes"),
        (pickled(shape=(4,), strides=(0,)), "storage 0 has 8 bytes"),  # A bomb, if copied.
        (pickled(strides=(2,)), "ValueError: strides"),
        (pickle.dumps({"a": 1}), "AttributeError"),
        (pickle.dumps([1]), "AttributeError"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, message):
    path = write_zip(tmp_path / "weights.pth", content, [("0", bytes(8))])
    with pytest.raises(ValueError, match=f"`path` must be a complete PyTorch file.*{message}"):
        read_torch_weights(path)


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(7))
    with pytest.raises(ValueError, match="doesn't begin with PyTorch's magic number"):
        read_torch_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("document.xml", "")
    with pytest.raises(ValueError, match="holds 0 files data.pkl"):
        read_torch_weights(path)


class Fake(collections.OrderedDict):
    """Takes the place of a storage; its dtype would read addresses in memory from the file."""

    key, dtype, size = "0", "O", 1


@pytest.mark.parametrize("is_persistent", [True, False])
def test_an_array_of_objects_is_refused(tmp_path, is_persistent):
    torch = pytest.importorskip("torch")

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (storage, 0, (1,), (1,))

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            is_storage = is_persistent and value is storage
            return ("storage", "O", "0", "cpu", 1) if is_storage else None

        def reducer_override(self, value):
            if value is storage:  # An allowed class with the attributes of a storage.
                state = {"key": "0", "dtype": "O", "size": 1}
                return collections.OrderedDict, (), state
            return NotImplemented

    storage, content = Fake(), io.BytesIO()
    Pickler(content).dump({"weight": Tensor()})
    path = write_zip(tmp_path / "planted.pth", content.getvalue(), [("0", b"AAAAAA\0\0")])
    with pytest.raises(
        ValueError, match="only a dictionary of tensors.*something other than numbers"
    ):
        read_torch_weights(path)
