"""Loads TF-GAN and TensorFlow Hub on today's TensorFlow."""

import contextlib
import functools
import importlib
import importlib.util
import io
import os
import sys
import types

_RUN = 'In a clone of keras_sagan, run: pip install ".[metrics]"'


@functools.cache
def load_tfgan_eval() -> types.ModuleType:
    """Imports the evaluation modules of TF-GAN, even where `import tensorflow_gan` fails.

    TF-GAN 2.1.0 needs `tf.estimator`, which TensorFlow 2.16 removed, but not for its metrics. The
    ordinary import is tried first. If it fails, `tensorflow_gan.python.eval` is imported below two
    empty parent packages, which are then removed from `sys.modules`: elsewhere in the process,
    `import tensorflow_gan` behaves as if this function had never been called.

    Returns:
        The module `tensorflow_gan.python.eval`, with for example
        `frechet_classifier_distance_from_activations` and `INCEPTION_TFHUB`.

    Raises:
        ImportError: If TF-GAN or a package it needs is missing, with the pip line; or if the
            modules can't be imported for another reason, with that reason.

    Example:

    ```python
    tfgan_eval = load_tfgan_eval()
    distance = tfgan_eval.frechet_classifier_distance_from_activations(real, generated)
    ```

    Reference:
        [TF-GAN](https://github.com/tensorflow/gan).
    """
    before = _tfgan_modules()
    try:
        return _import("tensorflow_gan").eval
    except Exception:  # Whatever it was, the second way decides.
        _restore({})
    try:
        spec = importlib.util.find_spec("tensorflow_gan")
        if spec is None:
            raise ModuleNotFoundError("No module named 'tensorflow_gan'", name="tensorflow_gan")
        roots = list(spec.submodule_search_locations or [])
        for name, *below in (("tensorflow_gan",), ("tensorflow_gan.python", "python")):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [os.path.join(root, *below) for root in roots]
        return _import("tensorflow_gan.python.eval")
    except Exception as error:
        raise _explained("TF-GAN", error) from error
    finally:
        _restore(before)


def load_tensorflow_hub() -> types.ModuleType:
    """Imports TensorFlow Hub, or raises an `ImportError` that has the pip line."""
    try:
        return _import("tensorflow_hub")
    except Exception as error:
        raise _explained("TensorFlow Hub", error) from error


def _tfgan_modules():
    return {name: x for name, x in sys.modules.items() if name.split(".")[0] == "tensorflow_gan"}


def _restore(before):
    """Makes `sys.modules` hold of TF-GAN exactly what it held before."""
    for name in _tfgan_modules():
        del sys.modules[name]
    sys.modules.update(before)


def _import(name):
    """Imports a module silently, with a `pkg_resources` where setuptools no longer has one.

    tensorflow-hub 0.16.1 takes one function from it, and setuptools 82 removed it.
    """
    is_missing = "pkg_resources" not in sys.modules and not importlib.util.find_spec(
        "pkg_resources"
    )
    if is_missing:
        from packaging.version import parse

        sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
        sys.modules["pkg_resources"].parse_version = parse
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(name)
    finally:
        if is_missing:
            sys.modules.pop("pkg_resources", None)


def _explained(what, error):
    """Returns an ImportError that says what is missing and how to install it."""
    name = getattr(error, "name", None)
    if isinstance(error, ModuleNotFoundError) and name and not name.startswith("tensorflow_gan."):
        return ImportError(
            f"{what} needs the package `{name}`, which isn't installed. {_RUN}", name=name
        )
    return ImportError(
        f"{what} is installed but can't be imported here ({type(error).__name__}: {error}). "
        f"{_RUN} --upgrade"
    )
