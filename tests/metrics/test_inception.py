"""TF-GAN's Inception: a stand-in SavedModel of the same signature, and the way without network."""

import hashlib
import shutil

import numpy as np
import pytest
from inception_stand_in import save_stand_in

from keras_sagan.metrics import FrechetInceptionDistance, TFGANInception
from keras_sagan.metrics.extractors import tfgan_inception

tf = pytest.importorskip("tensorflow")


class NotCallable(tf.Module):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the stand-in SavedModel."""
    path = tmp_path_factory.mktemp("inception") / "module"
    save_stand_in(path, features=2048)
    return path


def images_of(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def test_features_of_images_of_any_size_grey_or_rgb(folder):
    extractor = TFGANInception(folder)
    for shape in ((3, 32, 32, 3), (2, 299, 299, 3), (1, 300, 20, 3), (2, 28, 28, 1)):
        features = extractor(images_of(shape))
        assert features.shape == (shape[0], 2048) and features.dtype == tf.float32


def test_images_are_resized_as_tensorflow_1_did(folder):
    images = images_of((2, 32, 32, 3))
    expected = tf.compat.v1.image.resize_bilinear(images, (299, 299))[:, :2, :2]
    result = TFGANInception(folder, output="corner")(images)
    np.testing.assert_allclose(result, tf.reshape(expected, (2, 12)), atol=1e-6)
    # Output pixel 1 looks at 32 / 299 of the way from input pixel 0 to 1: no half-pixel centre.
    row = images[:, 0, 0] + (images[:, 0, 1] - images[:, 0, 0]) * (32 / 299)
    np.testing.assert_allclose(result[:, 3:6], row, atol=1e-5)


def test_grey_is_the_same_picture_as_rgb(folder):
    extractor, grey = TFGANInception(folder), images_of((2, 32, 32, 1))
    np.testing.assert_array_equal(extractor(grey), extractor(np.repeat(grey, 3, axis=-1)))


def test_inside_the_metric(folder):
    extractor = TFGANInception(folder, output="corner")  # 12 numbers, for speed
    fid = FrechetInceptionDistance(extractor, value_range=(-1, 1), batch_size=4)
    fid.update_state(images_of((6, 32, 32, 3)), real=True)
    fid.update_state(images_of((6, 32, 32, 3)), real=False)
    assert 0.0 <= fid.result() < 1e-6
    assert "corner sha256:" in fid.protocol["feature_extractor"]


def test_nothing_is_loaded_before_the_first_call(monkeypatch):
    monkeypatch.setattr(tfgan_inception, "_fetch", lambda handle: pytest.fail("fetched"))
    extractor = TFGANInception()
    assert extractor.handle == "https://tfhub.dev/tensorflow/tfgan/eval/inception/1"


def test_the_digest_pins_the_network(folder):
    digest = TFGANInception(folder).version.rsplit(":", 1)[1]
    assert TFGANInception(folder, sha256=digest)(images_of((1, 8, 8, 3))).shape == (1, 2048)
    with pytest.raises(ValueError, match="`sha256` must be the digest .*Received: sha256=0000"):
        TFGANInception(folder, sha256="0" * 64)(images_of((1, 8, 8, 3)))


def test_a_handle_is_found_in_the_cache_of_tensorflow_hub(folder, tmp_path, monkeypatch):
    handle = tfgan_inception.TFGAN_INCEPTION_HANDLE
    cached = tmp_path / hashlib.sha1(handle.encode()).hexdigest()
    folder.rename(cached)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    try:
        assert TFGANInception()(images_of((1, 8, 8, 3))).shape == (1, 2048)
    finally:
        cached.rename(folder)


def test_without_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    handle = "http://localhost:9/tfgan/inception/1"  # nobody listens on this port
    with pytest.raises(RuntimeError, match="`handle` can't be fetched") as caught:
        TFGANInception(handle, sha256="0" * 64)(images_of((1, 8, 8, 3)))
    message = str(caught.value)
    assert f"{handle}?tf-hub-format=compressed" in message
    assert f"$TFHUB_CACHE_DIR/{hashlib.sha1(handle.encode()).hexdigest()}" in message
    assert "`handle=<that folder>`" in message and message.endswith(f"Received: handle={handle}")


def test_nothing_is_downloaded_without_a_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tfgan_inception, "_fetch", lambda handle: pytest.fail("fetched"))
    with pytest.raises(RuntimeError, match="`sha256` must be given for https.*run code.*sha256=N"):
        TFGANInception()(images_of((1, 8, 8, 3)))


def test_a_download_with_another_digest_is_refused_and_removed(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    cached = tmp_path / hashlib.sha1(tfgan_inception.TFGAN_INCEPTION_HANDLE.encode()).hexdigest()
    monkeypatch.setattr(
        tfgan_inception, "_fetch", lambda handle: str(shutil.copytree(folder, cached))
    )
    with pytest.raises(ValueError, match="`sha256` must be the digest .*Received: sha256=1111"):
        TFGANInception(sha256="1" * 64)(images_of((1, 8, 8, 3)))
    assert not cached.exists()
    digest = TFGANInception(folder).version.rsplit(":", 1)[1]
    extractor = TFGANInception(sha256=digest.upper())
    assert extractor(images_of((1, 8, 8, 3))).shape == (1, 2048) and cached.exists()


@pytest.mark.parametrize("sha256", ["", "0123", "z" * 64, 3])
def test_a_digest_that_is_none_is_refused(sha256):
    with pytest.raises(ValueError, match="`sha256` must be None or 64 hex.*Received: sha256="):
        TFGANInception(sha256=sha256)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_a_damaged_folder_is_named(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="`handle` must be a complete SavedModel.*copy "):
        TFGANInception(tmp_path / "copy")(images_of((1, 8, 8, 3)))
    path.unlink()
    with pytest.raises(ValueError, match="`handle` must be .*copy"):
        TFGANInception(tmp_path / "copy")(images_of((1, 8, 8, 3)))


def test_a_folder_without_saved_model_is_refused(tmp_path):
    for handle in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="`handle` must be .*saved_model.pb. Received: handle"):
            TFGANInception(handle)(images_of((1, 8, 8, 3)))


def test_a_saved_model_that_is_not_callable_is_refused(tmp_path):
    tf.saved_model.save(NotCallable(), str(tmp_path / "module"))
    with pytest.raises(ValueError, match="`handle` must be .* SavedModel that can be called"):
        TFGANInception(tmp_path / "module")(images_of((1, 8, 8, 3)))


def test_an_unknown_output_is_refused(folder):
    with pytest.raises(ValueError, match=r"`output` must be .*'pool_3'.*Received: output='pool'"):
        TFGANInception(folder, output="pool")(images_of((1, 8, 8, 3)))


@pytest.mark.parametrize("handle", [None, "", 3])
def test_handles_of_the_wrong_type_are_refused(handle):
    with pytest.raises(ValueError, match="`handle` must be .*Received: handle="):
        TFGANInception(handle)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 3), "float32"), r"`images` must have shape .*images.shape=\(8, 8, 3\)"),
        (np.zeros((1, 8, 8, 2), "float32"), "`images` must have shape .*1 or 3 channels"),
        (np.zeros((1, 8, 8, 3), "uint8"), "`images` must be floats .*Received: .*uint8"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(folder, images, message):
    with pytest.raises(ValueError, match=message):
        TFGANInception(folder)(images)


def test_features_and_logits_of_one_pass_and_both_resize_methods(folder):
    images = images_of((2, 320, 320, 3))
    outputs = TFGANInception(folder).named_outputs(images)
    np.testing.assert_array_equal(outputs["features"], TFGANInception(folder)(images))
    assert outputs["logits"].shape == (2, 1008)
    smooth = TFGANInception(folder, output="corner", resize="antialiased")
    expected = tf.image.resize(images, (299, 299), antialias=True)[:, :2, :2]
    np.testing.assert_allclose(smooth(images), tf.reshape(expected, (2, 12)), atol=1e-5)
    assert "resize=antialiased corner sha256:" in smooth.version


def test_config_round_trip(folder):
    extractor = TFGANInception(folder, output="corner", resize="antialiased")
    again = TFGANInception.from_config(extractor.get_config())
    assert again.version == extractor.version
