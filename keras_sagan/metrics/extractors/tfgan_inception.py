"""TF-GAN's Inception network as a feature extractor."""

import hashlib
import os
import pathlib
import re
import shutil
import tempfile

import keras

from keras_sagan.checks import check_choice, check_path, check_string
from keras_sagan.lazy import tf
from keras_sagan.metrics.extraction import Extractor
from keras_sagan.metrics.extractors.resizing import RESIZE_METHODS, resize_images, to_rgb
from keras_sagan.metrics.extractors.tfgan import load_tensorflow_hub

TFGAN_INCEPTION_HANDLE = "https://tfhub.dev/tensorflow/tfgan/eval/inception/1"


@keras.saving.register_keras_serializable(package="keras_sagan")
class TFGANInception(Extractor):
    """Feature extractor: the 2048 pool_3 activations of TF-GAN's Inception.

    According to [TF-GAN](https://tfhub.dev/tensorflow/tfgan/eval/inception/1), the original
    Inception Score used the same weights. Images are resized bilinearly to 299 × 299 pixels; a gray
    image is repeated over three channels. Nothing is downloaded or loaded before the first call.

    A SavedModel can run code, so pass the `sha256` of a SavedModel that you trust. The digest of
    the folder is compared with `sha256` before loading. Without `sha256`, nothing is downloaded,
    and a folder on disk or in TF-Hub's cache is loaded without a check.

    Args:
        handle: A TF-Hub handle, or the folder of a SavedModel.
        sha256: The expected digest of the folder, which is the last part of `version`.
        output: The name of the features in the network's output dictionary.
        resize: `"tfgan"` uses TensorFlow 1's pixel grid without half-pixel centers or
            anti-aliasing, as in TF-GAN's CIFAR example. `"antialiased"` averages over all pixels.

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, height, width, 1 or 3). Any image size is
            allowed.

    Returns:
        Float32 `tf.Tensor` of shape (batch, dim); dim is 2048 for `"pool_3"`.
        `named_outputs(images)` returns a dictionary with `"features"` and `"logits"`.

    Raises:
        ValueError: If an argument is invalid. When called, if images have the wrong shape or
            dtype, the digest doesn't match `sha256`, or the SavedModel or output is missing.
        RuntimeError: On the first call, if the handle can't be downloaded, or if a download is
            needed and `sha256` is missing. The message says what to download and where to put it.
        ImportError: On the first call, if TensorFlow isn't installed (it is needed on every
            backend) or, for a TF-Hub handle, if `tensorflow_hub` is missing.

    Example:
    ```python
    fid = FrechetInceptionDistance(TFGANInception(), value_range=(-1, 1))
    fid = FrechetInceptionDistance(TFGANInception("models/tfgan_inception"), value_range=(-1, 1))
    ```
    """

    arguments = ("handle", "sha256", "output", "resize")

    def __init__(
        self,
        handle: str | pathlib.Path = TFGAN_INCEPTION_HANDLE,
        sha256: str | None = None,
        output: str = "pool_3",
        resize: str = "tfgan",
    ):
        self.handle = check_path("handle", handle, allow_url=True)
        self.sha256 = None if sha256 is None else str(sha256).lower()
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(
                f"`sha256` must be None or 64 hexadecimal digits. Received: sha256={sha256!r}"
            )
        self.output = check_string("output", output)
        self.resize = check_choice("resize", resize, RESIZE_METHODS)
        self._folder = None

    @property
    def version(self) -> str:
        """The handle, the resize method, the output and the SHA-256 of the network's files."""
        digest = _folder_sha256(self._resolve())
        return f"{self.handle} resize={self.resize} {self.output} sha256:{digest}"

    def named_outputs(self, images: keras.KerasTensor) -> dict:
        """Returns a dictionary: `"features"` (batch, dim) and `"logits"` (batch, 1008)."""
        images = resize_images(to_rgb(images), 299, self.resize)
        if keras.backend.backend() != "tensorflow":
            images = tf.constant(keras.ops.convert_to_numpy(images))
        names, outputs = {"features": self.output, "logits": "logits"}, self._load()(images)
        found = outputs if isinstance(outputs, dict) else {}
        missing = [output for output in names.values() if output not in found]
        if missing:
            raise ValueError(
                f"`output` must be an output of the network at {self.handle}, which returns "
                f"{sorted(found) or type(outputs).__name__}. Received: output={missing[0]!r}"
            )
        return {
            name: tf.reshape(found[output], (tf.shape(found[output])[0], -1))
            for name, output in names.items()
        }

    def _build(self):
        folder = self._resolve()
        self._check_digest(folder)
        load = tf.saved_model.load  # Outside of `try`, which would catch an ImportError.
        try:
            network = load(str(folder))
            if not callable(network):
                raise TypeError("it can't be called on images")
        except Exception as error:
            raise ValueError(
                "`handle` must be a complete SavedModel that can be called on images. "
                f"Received: the folder {folder} ({type(error).__name__}: {error})"
            ) from error
        return network

    def _resolve(self):
        """Returns the folder of the SavedModel; downloads a TF-Hub handle to TF-Hub's cache."""
        if self._folder is None:
            folder = pathlib.Path(self.handle)
            if "://" in self.handle:
                folder = _cached_folder(self.handle)
                if not (folder / "saved_model.pb").is_file():
                    folder = self._download(folder)
            if not (folder / "saved_model.pb").is_file():
                raise ValueError(
                    "`handle` must be a TF-Hub handle or a folder that holds a saved_model.pb. "
                    f"Received: handle={self.handle}"
                )
            self._folder = folder
        return self._folder

    def _download(self, cached):
        """Downloads the SavedModel and returns its folder; deletes it if the digest is wrong."""
        by_hand = (
            f"Download {self.handle}?tf-hub-format=compressed (a .tar.gz) and unpack it, so that "
            "saved_model.pb is directly in the folder. Unpack it into any folder and pass "
            f"`handle=<that folder>`, or into $TFHUB_CACHE_DIR/{cached.name} with the environment "
            "variable TFHUB_CACHE_DIR set."
        )
        if self.sha256 is None:
            raise RuntimeError(
                f"`sha256` must be given for {self.handle} to be downloaded: the download is a "
                f"SavedModel, which can run code. Or download it yourself. {by_hand} "
                "`TFGANInception(<that folder>).version` ends in its `sha256`. "
                "Received: sha256=None"
            )
        try:
            folder = pathlib.Path(_fetch(self.handle))
        except ImportError:
            raise
        except Exception as error:
            raise RuntimeError(
                f"`handle` can't be fetched ({type(error).__name__}: {error}). If you are offline: "
                f"{by_hand} Received: handle={self.handle}"
            ) from error
        try:
            self._check_digest(folder)
        except ValueError:
            shutil.rmtree(cached, ignore_errors=True)
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
    """Returns the folder in which TF-Hub caches the download of a handle."""
    cache = os.environ.get("TFHUB_CACHE_DIR") or f"{tempfile.gettempdir()}/tfhub_modules"
    return pathlib.Path(cache) / hashlib.sha1(handle.encode()).hexdigest()


def _fetch(handle):
    return load_tensorflow_hub().resolve(handle)


def _folder_sha256(folder):
    """Returns a SHA-256 of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
