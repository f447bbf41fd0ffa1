"""TF-GAN's Inception network as a feature extractor."""

import hashlib
import os
import pathlib
import re
import shutil
import tempfile

import keras

from keras_sagan.checks import check_string
from keras_sagan.lazy import tf
from keras_sagan.metrics.extractors.resizing import (
    as_tensorflow,
    check_resize,
    resize_images,
    to_rgb,
)
from keras_sagan.metrics.extractors.tfgan import load_tensorflow_hub

TFGAN_INCEPTION_HANDLE = "https://tfhub.dev/tensorflow/tfgan/eval/inception/1"
_IMAGE_SIZE = 299


@keras.saving.register_keras_serializable(package="keras_sagan")
class TFGANInception:
    """Feature extractor: the pool_3 activations of TF-GAN's Inception, 2048 numbers an image.

    By TF-GAN's account it has the weights of the original Inception Score. Nothing is downloaded
    or loaded before the first call. Images are resized to 299 pixels bilinearly on TensorFlow 1's
    pixel grid (no half-pixel centres, no anti-aliasing), as TF-GAN's CIFAR example does, or
    anti-aliased; a grey image is repeated over three channels.

    A SavedModel is a program. Pin the one you trust: `sha256` is compared with the digest of the
    whole folder before it is loaded, and `version` gives the digest for a protocol. Nothing is
    downloaded without a `sha256`; what lies on the disk already, in TF-Hub's cache too, is loaded
    without one.

    Args:
        handle: String or `pathlib.Path`, a TF-Hub handle or the folder of a SavedModel. Defaults
            to `TFGAN_INCEPTION_HANDLE`, which is TF-GAN's.
        sha256: Optional string, the expected digest of the folder, as given by `version`.
            Defaults to `None`: not checked, and nothing is downloaded.
        output: String, the output to take from the network's dictionary. Defaults to `"pool_3"`.
        resize: String, `"tfgan"` or `"antialiased"`. Defaults to `"tfgan"`.

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, height, width, 1 or 3), any size.

    Returns:
        Float32 `tf.Tensor` of shape (batch, dim); dim is 2048 for `"pool_3"`.
        `named_outputs(images)` gives a dictionary of `"features"` and `"logits"`.

    Raises:
        ValueError: On a call, if the images have another rank, dtype or number of channels; if
            the digest differs; if the folder holds no such SavedModel or output, or a damaged one.
            For a `sha256` that isn't one.
        RuntimeError: On the first call, if the handle can't be fetched, or would have to be
            without a `sha256`. The message says what to download and where to put it.
        ImportError: On the first call, if TensorFlow isn't installed, which loads it on every
            backend; with a TF-Hub handle also if `tensorflow_hub` is missing.

    Example:

    ```python
    fid = FrechetInceptionDistance(TFGANInception(), value_range=(-1, 1))
    fid = FrechetInceptionDistance(TFGANInception("models/tfgan_inception"), value_range=(-1, 1))
    ```

    Reference:
        [TF-GAN's Inception module](https://tfhub.dev/tensorflow/tfgan/eval/inception/1).
    """

    def __init__(self, handle=TFGAN_INCEPTION_HANDLE, sha256=None, output="pool_3", resize="tfgan"):
        if not isinstance(handle, (str, os.PathLike)) or not str(handle):
            raise ValueError(
                "`handle` must be a TF-Hub handle or the folder of a SavedModel. "
                f"Received: handle={handle!r}"
            )
        check_resize(resize)
        self.handle = str(handle)
        self.sha256 = None if sha256 is None else str(sha256).lower()
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(
                f"`sha256` must be None or 64 hexadecimal digits. Received: sha256={sha256!r}"
            )
        self.output = check_string("output", output)
        self.resize = resize
        self._folder = None
        self._network = None

    @property
    def version(self):
        """String naming the handle, the output and the SHA-256 of the network's files."""
        digest = _folder_sha256(self._resolve())
        return f"{self.handle} resize={self.resize} {self.output} sha256:{digest}"

    @property
    def is_at_hand(self):
        """Boolean, whether it is on the disk, or can be fetched by its digest."""
        try:
            self._resolve()
        except RuntimeError:
            return False
        return True

    def get_config(self):
        """Returns the arguments as a dictionary, for Keras to save."""
        return {
            "handle": self.handle,
            "sha256": self.sha256,
            "output": self.output,
            "resize": self.resize,
        }

    @classmethod
    def from_config(cls, config):
        """Makes an extractor of what `get_config` returned."""
        return cls(**config)

    def __call__(self, images):
        return self._named(images, {"features": self.output})["features"]

    def named_outputs(self, images):
        """Returns `{"features": (batch, dim), "logits": (batch, 1008)}`."""
        return self._named(images, {"features": self.output, "logits": "logits"})

    def _named(self, images, names):
        images = to_rgb(images)
        network = self._load()
        outputs = network(as_tensorflow(resize_images(images, _IMAGE_SIZE, self.resize)))
        result = {}
        for name, output in names.items():
            if not isinstance(outputs, dict) or output not in outputs:
                found = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
                raise ValueError(
                    f"`output` must be an output of the network at {self.handle}, which gives "
                    f"{found}. Received: output={output!r}"
                )
            features = outputs[output]
            result[name] = tf.reshape(features, (tf.shape(features)[0], -1))
        return result

    def _load(self):
        """The callable network, loaded on the first call."""
        if self._network is None:
            folder = self._resolve()
            self._check_digest(folder)
            load = tf.saved_model.load
            try:
                network = load(str(folder))
            except Exception as error:
                raise ValueError(
                    f"`handle` must be a whole SavedModel. Received: the folder {folder}, which is "
                    f"damaged ({type(error).__name__}: {error})"
                ) from error
            if not callable(network):
                raise ValueError(
                    "`handle` must be a SavedModel that can be called on images. "
                    f"Received: handle={self.handle}"
                )
            self._network = network
        return self._network

    def _resolve(self):
        """The folder of the SavedModel; fetches a TF-Hub handle into TF-Hub's cache."""
        if self._folder is None:
            folder = pathlib.Path(os.path.expanduser(self.handle))
            if "://" in self.handle:
                cached = _cached_folder(self.handle)
                is_there = (cached / "saved_model.pb").is_file()
                folder = cached if is_there else self._download(cached)
            if not (folder / "saved_model.pb").is_file():
                raise ValueError(
                    "`handle` must be a TF-Hub handle or a folder that holds a saved_model.pb. "
                    f"Received: handle={self.handle}"
                )
            self._folder = folder
        return self._folder

    def _download(self, cached):
        """The folder of a handle that isn't on the disk yet, once its digest is right."""
        if self.sha256 is None:
            raise RuntimeError(
                f"`sha256` must be given for {self.handle} to be downloaded: what comes is a "
                f"program. Or download it yourself. {_by_hand(self.handle)} "
                "`TFGANInception(<that folder>).version` ends in its `sha256`. "
                "Received: sha256=None"
            )
        folder = pathlib.Path(_fetch(self.handle))
        try:
            self._check_digest(folder)
        except ValueError:
            # Left there it would be on the disk already, the next time.
            if folder == cached:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _check_digest(self, folder):
        digest = _folder_sha256(folder) if self.sha256 is not None else None
        if digest != self.sha256:
            raise ValueError(
                f"`sha256` must be the digest of the files in {folder}, which is {digest}. "
                f"Received: sha256={self.sha256}"
            )


def _cached_folder(handle):
    """Where TF-Hub keeps a handle, or will keep it."""
    cache = os.environ.get("TFHUB_CACHE_DIR") or os.path.join(
        tempfile.gettempdir(), "tfhub_modules"
    )
    return pathlib.Path(cache) / hashlib.sha1(handle.encode("utf-8")).hexdigest()


def _fetch(handle):
    """TF-Hub's local folder for a handle, or an error that says how to do without a network."""
    tensorflow_hub = load_tensorflow_hub()
    try:
        return tensorflow_hub.resolve(handle)
    except Exception as error:
        raise RuntimeError(
            f"`handle` can't be fetched ({type(error).__name__}: {error}). Without a network: "
            f"{_by_hand(handle)} Received: handle={handle}"
        ) from error


def _by_hand(handle):
    return (
        f"Download {handle}?tf-hub-format=compressed (a .tar.gz) and unpack it, so that "
        "saved_model.pb lies directly in the folder, either into any folder and pass "
        f"`handle=<that folder>`, or into $TFHUB_CACHE_DIR/{_cached_folder(handle).name} with the "
        "environment variable TFHUB_CACHE_DIR set."
    )


def _folder_sha256(folder):
    """One SHA-256 over the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
