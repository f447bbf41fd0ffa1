"""What a figure depends on besides the images: extractors and packages, as protocols name them."""

import hashlib
import importlib
import platform

import keras
import numpy as np

from keras_sagan.version import __version__

NO_VERSION = ", without a version"  # how an extractor is named that can't be told from others


def extractor_info(feature_extractor):
    """Returns `{"feature_extractor": …, "resize": …}`, as protocols have them."""
    return {
        "feature_extractor": describe_extractor(feature_extractor),
        "resize": getattr(feature_extractor, "resize", "the extractor's own"),
    }


def describe_extractor(feature_extractor):
    """Returns the string that names an extractor in a protocol, with its hash if it has one.

    An extractor is named by its `version`, a Keras model by its name and the digest of its
    weights. Anything else is named as what can't be told from others of the same name.
    """
    described = getattr(feature_extractor, "version", None)
    if described is None and isinstance(feature_extractor, keras.Model):
        described = f"{feature_extractor.name} sha256:{weights_sha256(feature_extractor)}"
    if not described:
        own = getattr(feature_extractor, "name", None) or getattr(
            feature_extractor, "__qualname__", type(feature_extractor).__qualname__
        )
        described = f"{own}{NO_VERSION}"
    return str(described)


def check_is_versioned(feature_extractor, argument):
    """Raises for an extractor whose features couldn't be told from another's in a file.

    Args:
        feature_extractor: Any extractor.
        argument: String, the argument that names such a file, or a folder for them.
    """
    version = getattr(feature_extractor, "version", None)
    if not version and not isinstance(feature_extractor, keras.Model):
        raise ValueError(
            f"`{argument}` needs an extractor that can be told from others: a Keras model, or an "
            "object with a string `version`, which must change with its features. "
            f"Received: feature_extractor={feature_extractor!r}"
        )


def weights_sha256(model):
    """Returns the SHA-256 over the shapes and values of all weights of a Keras model."""
    digest = hashlib.sha256()
    for variable in model.variables:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(f"{value.dtype.name} {value.shape}\0".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def package_versions():
    """Returns the versions that a score may depend on: `{name: string}`."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": f"{backend} {importlib.import_module(backend).__version__}",
        "numpy": np.__version__,
        "keras_sagan": __version__,
    }
