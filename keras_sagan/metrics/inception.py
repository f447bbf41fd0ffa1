"""TF-GAN's Inception network as a feature extractor."""

import hashlib
import os
import pathlib

import keras

from keras_sagan.metrics.resizing import check_resize, resize_images, to_rgb
from keras_sagan.metrics.tfgan import load_tensorflow_hub

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
    whole folder before it is loaded, and `version` gives the digest for a protocol.

    Args:
        handle: String or `pathlib.Path`, a TF-Hub handle or the folder of a SavedModel. Defaults
            to `TFGAN_INCEPTION_HANDLE`, which is TF-GAN's.
        sha256: Optional string, the expected digest of the folder, as given by `version`.
            Defaults to `None`: not checked.
        output: String, the output to take from the network's dictionary. Defaults to `"pool_3"`.
        resize: String, `"tfgan"` or `"antialiased"`. Defaults to `"tfgan"`.

    Call arguments:
        images: Float tensor in [-1, 1] of shape (batch, height, width, 1 or 3), any size.

    Returns:
        Float32 `tf.Tensor` of shape (batch, dim); dim is 2048 for `"pool_3"`.
        `named_outputs(images)` gives a dictionary of `"features"` and `"logits"`.

    Raises:
        ValueError: On a call, if the images have another rank, dtype or number of channels; if
            the digest differs; if the folder holds no such SavedModel or output.
        RuntimeError: On the first call, if the handle can't be fetched. The message says what to
            download and where to put it.
        ImportError: On the first call with a TF-Hub handle, if `tensorflow_hub` is missing.

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
        self.sha256 = sha256
        self.output = output
        self.resize = resize
        self._folder = None
        self._network = None

    @property
    def version(self):
        """String naming the handle, the output and the SHA-256 of the network's files."""
        digest = _folder_sha256(self._resolve())
        return f"{self.handle} resize={self.resize} {self.output} sha256:{digest}"

    def get_config(self):
        return {
            "handle": self.handle,
            "sha256": self.sha256,
            "output": self.output,
            "resize": self.resize,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __call__(self, images):
        return self._named(images, {"features": self.output})["features"]

    def named_outputs(self, images):
        """Returns `{"features": (batch, dim), "logits": (batch, 1008)}`."""
        return self._named(images, {"features": self.output, "logits": "logits"})

    def _named(self, images, names):
        import tensorflow as tf

        images = to_rgb(images)
        network = self._load()
        outputs = network(resize_images(images, _IMAGE_SIZE, self.resize))
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
            import tensorflow as tf

            folder = self._resolve()
            if self.sha256 is not None:
                digest = _folder_sha256(folder)
                if digest != str(self.sha256).lower():
                    raise ValueError(
                        f"`sha256` must be the digest of the files in {folder}, which is "
                        f"{digest}. Received: sha256={self.sha256}"
                    )
            network = tf.saved_model.load(str(folder))
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
            if "://" in self.handle:
                folder = pathlib.Path(_fetch(self.handle))
            else:
                folder = pathlib.Path(self.handle)
            if not (folder / "saved_model.pb").is_file():
                raise ValueError(
                    "`handle` must be a TF-Hub handle or a folder that holds a saved_model.pb. "
                    f"Received: handle={self.handle}"
                )
            self._folder = folder
        return self._folder


def _fetch(handle):
    """TF-Hub's local folder for a handle, or an error that says how to do without a network."""
    tensorflow_hub = load_tensorflow_hub()
    try:
        return tensorflow_hub.resolve(handle)
    except Exception as error:
        name = hashlib.sha1(handle.encode("utf-8")).hexdigest()
        raise RuntimeError(
            f"`handle` can't be fetched ({type(error).__name__}: {error}). Without a network: "
            f"download {handle}?tf-hub-format=compressed (a .tar.gz) elsewhere and unpack it, "
            "so that saved_model.pb lies directly in the folder, either into any folder and pass "
            f"`handle=<that folder>`, or into $TFHUB_CACHE_DIR/{name} with the environment "
            f"variable TFHUB_CACHE_DIR set. Received: handle={handle}"
        ) from error


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
