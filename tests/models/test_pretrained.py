"""Trained weights: of a preset, of one's own file, and of a model on the Hugging Face Hub."""

import functools
import hashlib
import json
import shutil
import sys
import types
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny_networks as tiny

from keras_sagan import SAGAN, FrechetInceptionDistance, data
from keras_sagan.callbacks import FIDEvaluator
from keras_sagan.metrics import GreyClassifierFeatures
from keras_sagan.models import pretrained

ROOT = Path(__file__).parents[2]
PRESET = "sagan_fashion_mnist_32"
RECORD = json.loads((pretrained.RECORDS / f"{PRESET}.json").read_text())
# Of networks that are built in no time.
SMALL = {"image_size": 8, "attention_resolutions": (), "base_filters": 4, "latent_dim": 3}


@pytest.fixture(scope="module")
def model():
    return SAGAN.from_preset(PRESET, load_weights=True)


@pytest.mark.slow
def test_both_networks_and_the_average_are_trained(model):
    real, labels = (array[:64] for array in data.load_fashion_mnist())
    images = model.generate(64, labels=labels, seed=0)
    real, images = (x.astype("float32") / 127.5 - 1.0 for x in (data.pad_to_32(real), images))
    found = GreyClassifierFeatures().named_outputs(images)["logits"]
    assert np.mean(keras.ops.convert_to_numpy(found).argmax(axis=-1) == labels) > 0.7
    logits = [model.discriminator([x, labels], training=False) for x in (real, images)]
    assert keras.ops.mean(logits[0]) > keras.ops.mean(logits[1]) + 0.1
    kernels = [x.get_layer("last_conv").kernel for x in (model.generator, model.ema_generator)]
    assert 0 < keras.ops.max(keras.ops.abs(kernels[0] - kernels[1])) < 0.1
    assert int(model.steps.numpy()) == RECORD["steps"]


@pytest.mark.slow
@pytest.mark.any_backend
def test_the_recorded_fid(model):
    images = data.pad_to_32(data.load_fashion_mnist()[0])
    real = images[data.spread_indices(5000, len(images))]
    metric = FrechetInceptionDistance(GreyClassifierFeatures(), batch_size=250)
    evaluator = FIDEvaluator(metric, real, 5000, batch_size=250, seed=0, verbose=False)
    evaluator.set_model(model)
    assert evaluator.evaluate() == pytest.approx(RECORD["fid"], rel=1e-3)
    assert evaluator.protocol["reference_sha256"] == RECORD["protocol"]["reference_sha256"]
    guide = ROOT / "docs" / "guides" / "fine_tuning.md"
    assert f"FID is\n{RECORD['fid']:.1f}" in guide.read_text(encoding="utf-8")


@pytest.mark.slow
def test_settings_that_leave_the_networks_alone_may_differ():
    changed = {"d_steps": 1, "ema_momentum": None, "seed": 3, "batch_norm": {"momentum": 0.9}}
    other = SAGAN.from_preset(PRESET, load_weights=True, **changed)
    assert (other.d_steps, other.ema_generator, other.seed) == (1, None, 3)
    assert int(other.steps.numpy()) == RECORD["steps"]


@pytest.mark.parametrize(
    "override",
    [
        {"base_filters": 8},
        {"num_classes": None},
        {"attention_resolutions": (8,)},
        {"attention": {"pool_size": 1}},
        {"use_spectral_norm": False},
    ],
)
def test_settings_of_other_networks(override):
    (name,) = override
    with pytest.raises(ValueError, match=f"`{name}` must be .*from_model.*Received: {name}="):
        SAGAN.from_preset(PRESET, load_weights=True, **override)


def test_a_list_is_as_good_as_a_tuple():
    settings = {"attention_resolutions": [16], "use_spectral_norm": True}
    pretrained.find_weights(PRESET, {**pretrained.preset_settings(PRESET), **settings}, True)


def test_a_preset_without_published_weights():
    message = "`load_weights` must be the path of.*'sagan_photos_64'.*load_weights=True"
    with pytest.raises(ValueError, match=message):
        SAGAN.from_preset("sagan_photos_64", load_weights=True)


def test_the_weights_of_the_package_are_small():
    assert 0 < sum(x.stat().st_size for x in pretrained.RECORDS.glob("*.h5")) < 4_000_000


@pytest.mark.any_backend
def test_the_emoji_weights_of_the_examples():
    """Smileys are yellow on white, and flags are as wide as the image."""
    (path,) = (ROOT / "examples" / "weights").glob("sagan_emoji_64-*.weights.h5")
    model = SAGAN.from_preset("sagan_emoji_64", load_weights=path)
    record = json.loads((ROOT / "benchmarks" / "results" / "emoji.json").read_text())
    assert int(keras.ops.convert_to_numpy(model.steps)) == record["steps"]
    flags, smileys = np.split(model.generate(32, labels=np.repeat([2, 6], 16), seed=0) / 255.0, 2)
    corners = np.concatenate([flags, smileys])[:, :: 64 - 1, :: 64 - 1]
    assert np.median(corners) > 0.95
    red, green, blue = np.moveaxis(np.median(smileys[:, 24:40, 24:40], axis=(0, 1, 2)), -1, 0)
    assert red > green > blue + 0.3

    def width(images):
        """The share of columns that aren't white in the middle of an image."""
        return np.mean(images[:, 24:40].min(axis=(1, 3)) < 0.8)

    assert width(flags) > 0.95 > width(smileys)


@pytest.fixture
def records(tmp_path, monkeypatch):
    """A folder of records of its own, and a cache that is empty."""
    for suffix in ("json", "weights.h5"):
        shutil.copy(pretrained.RECORDS / f"{PRESET}.{suffix}", tmp_path)
    monkeypatch.setattr(pretrained, "RECORDS", tmp_path)
    download = functools.partial(keras.utils.get_file, cache_dir=str(tmp_path))
    monkeypatch.setattr(keras.utils, "get_file", download)
    return tmp_path


def test_a_damaged_file(records):
    with (records / f"{PRESET}.weights.h5").open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    with pytest.raises(ValueError, match="SHA-256 .* damaged or a different one"):
        SAGAN.from_preset(PRESET, load_weights=True)


def test_a_file_that_is_fetched_by_its_digest(records):
    shipped = records / f"{PRESET}.weights.h5"
    published = shipped.rename(records / "published.h5")
    record = {"url": published.as_uri(), "sha256": RECORD["sha256"]}
    (records / f"{PRESET}.json").write_text(json.dumps(record))
    settings = pretrained.preset_settings(PRESET)
    path = Path(pretrained.find_weights(PRESET, settings, True))
    assert path.is_relative_to(records / "keras_sagan")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == RECORD["sha256"]
    (records / f"{PRESET}.json").write_text(json.dumps({**record, "sha256": "0" * 64}))
    with pytest.raises(ValueError, match="`weights` must have a SHA-256 that begins with 0000"):
        pretrained.find_weights(PRESET, settings, True)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A model, and the folder of its files."""
    folder = tmp_path_factory.mktemp("own")
    model = SAGAN.from_preset("sagan_photos_64", **SMALL)
    model.steps.assign(7)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    return model, folder


def assert_same_weights(found, model):
    assert int(found.steps.numpy()) == 7
    for x, y in zip(found.weights, model.weights):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (x, y)))


def load(path, **changes):
    return SAGAN.from_preset("sagan_photos_64", load_weights=path, **{**SMALL, **changes})


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_file_of_ones_own(own, name):
    model, folder = own
    assert_same_weights(load(folder / name), model)


def test_warnings_of_keras_keep_their_origin(own):
    """Python shows a DeprecationWarning only if it seems to come from the user's script."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(own[1] / "model.weights.h5")
    assert __file__ not in [warning.filename for warning in caught]


def test_a_url_and_a_digest_in_the_name(own, records):
    model, folder = own
    content = (folder / "model.weights.h5").read_bytes()
    prefix = hashlib.sha256(content).hexdigest()[:8]
    named = records / f"mine-{prefix}.weights.h5"
    named.write_bytes(content)
    assert_same_weights(load(named), model)
    assert_same_weights(load(named.as_uri()), model)
    wrong = named.rename(records / "mine-01234567.weights.h5")
    for path in (wrong, wrong.as_uri()):
        with pytest.raises(ValueError, match="must have a SHA-256 that begins with 01234567"):
            load(path)
    with pytest.raises(RuntimeError, match="can't be downloaded"):
        load((records / "missing.weights.h5").as_uri())


def test_nothing_but_weights_is_read(own, tmp_path):
    with zipfile.ZipFile(own[1] / "model.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name, text in content.items():
            archive.writestr(name, b"planted" if name == "config.json" else text)
    assert int(load(tmp_path / "model.keras").steps.numpy()) == 7


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_files_that_are_cut_short(own, tmp_path, name):
    whole = (own[1] / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="`load_weights` must be a complete .*Received: .*" + name):
        load(tmp_path / name)


@pytest.mark.any_backend
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("changes", [{"base_filters": 2}, {"num_classes": 3}])
def test_a_file_of_other_networks(own, changes):
    with pytest.raises(ValueError, match="`load_weights` must be .* the same networks"):
        load(own[1] / "model.weights.h5", **changes)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_file_with_a_layer_more(tmp_path, name):
    """Keras ignores what a file has in addition."""
    model = SAGAN.from_preset("sagan_photos_64", **{**SMALL, "attention_resolutions": (4,)})
    (model.save if name == "model.keras" else model.save_weights)(tmp_path / name)
    load(tmp_path / name, attention_resolutions=(4,))
    with pytest.raises(ValueError, match="same networks.*its generator has .* arrays, and the mod"):
        load(tmp_path / name)


@pytest.mark.parametrize("value", ["no such file", 3, None])
def test_no_file(value):
    with pytest.raises(
        ValueError, match="`load_weights` must be a boolean, an existing file or .*Received: "
    ):
        load(value)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Stands for the package `huggingface_hub`: its repositories are folders."""

    class HfApi:
        def __init__(self, *, library_name, library_version):
            pass

        def create_repo(self, repo_id, *, exist_ok):
            return types.SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            for path in Path(folder_path).rglob("*"):  # A repository has no empty folders.
                if path.is_file():
                    copy = tmp_path / repo_id / path.relative_to(folder_path)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, copy)

    def snapshot_download(repo_id, *, library_name, library_version):
        return str(tmp_path / repo_id)

    module = types.SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setattr("keras.src.saving.saving_lib.huggingface_hub", module)
    return tmp_path


def test_a_model_on_the_hub(own, hub):
    model, _ = own
    model.save("hf://user/name")
    assert "library_name: keras" in (hub / "user" / "name" / "README.md").read_text()
    found = SAGAN.from_preset("hf://user/name")
    assert_same_weights(found, model)
    assert not found.compiled
    for given in ({"recipe": "paper"}, {"d_steps": 2}, {"load_weights": "mine.weights.h5"}):
        (name,) = given
        with pytest.raises(ValueError, match=f"`{name}` must not be given .*Received: {name}="):
            SAGAN.from_preset("hf://user/name", **given)


def test_a_hub_that_cannot_be_reached(hub, monkeypatch):
    def offline(*arguments, **options):
        raise RuntimeError("no route")

    monkeypatch.setattr(sys.modules["huggingface_hub"], "snapshot_download", offline)
    with pytest.raises(OSError, match=r"`name` can't be .*\(RuntimeError: no route\).*user/name"):
        SAGAN.from_preset("hf://user/name")


def test_another_model_on_the_hub(hub):
    keras.saving.save_model(tiny.build_generator(), "hf://user/other")
    with pytest.raises(ValueError, match="`name` must lead to a saved SAGAN.*a Functional"):
        SAGAN.from_preset("hf://user/other")


def test_without_the_package_of_the_hub(own, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (own[0].save, SAGAN.from_preset):
        with pytest.raises(ImportError, match=r"huggingface_hub.*\n.*pip install .*\[hub\]"):
            call("hf://user/name")
