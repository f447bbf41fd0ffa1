"""Loads TF-GAN and TensorFlow Hub on current versions of TensorFlow."""

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

    Importing [TF-GAN](https://github.com/tensorflow/gan) 2.1.0 requires `tf.estimator`, which
    TensorFlow 2.16 removed and TF-GAN's metrics don't use. This function imports
    `tensorflow_gan.python.eval` under two empty parent packages and then removes them from
    `sys.modules`, so `import tensorflow_gan` behaves as before.

    Returns:
        The module `tensorflow_gan.python.eval`, which contains, for example,
        `frechet_classifier_distance_from_activations` and `INCEPTION_TFHUB`.

    Raises:
        ImportError: If TF-GAN or a package it needs is missing or can't be imported. The message
            states the reason and the pip command.

    Example:
    ```python
    tfgan_eval = load_tfgan_eval()
    distance = tfgan_eval.frechet_classifier_distance_from_activations(real, generated)
    ```
    """
    before = _tfgan_modules()
    try:
        with _explained("TF-GAN"):
            spec = importlib.util.find_spec("tensorflow_gan")
            for root in spec.submodule_search_locations or [] if spec else []:
                for name, *below in (("tensorflow_gan",), ("tensorflow_gan.python", "python")):
                    sys.modules[name] = types.ModuleType(name)
                    sys.modules[name].__path__ = [os.path.join(root, *below)]
            return _import("tensorflow_gan.python.eval")
    finally:
        for name in _tfgan_modules():
            del sys.modules[name]
        sys.modules.update(before)


def load_tensorflow_hub() -> types.ModuleType:
    """Imports TensorFlow Hub, or raises an `ImportError` with the pip command."""
    with _explained("TensorFlow Hub"):
        return _import("tensorflow_hub")


def _tfgan_modules():
    return {name: x for name, x in sys.modules.items() if name.split(".")[0] == "tensorflow_gan"}


def _import(name):
    """Imports a module silently, with a substitute for `pkg_resources` if it is missing.

    tensorflow-hub 0.16.1 uses one function of `pkg_resources`, which setuptools 82 removed.
    """
    is_there = "pkg_resources" in sys.modules or importlib.util.find_spec("pkg_resources")
    if not is_there:
        from packaging.version import parse

        sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
        sys.modules["pkg_resources"].parse_version = parse
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(name)
    finally:
        if not is_there:
            sys.modules.pop("pkg_resources", None)


@contextlib.contextmanager
def _explained(what):
    """Raises an ImportError that says what is missing and how to install it."""
    try:
        yield
    except Exception as error:
        package = getattr(error, "name", None)
        is_missing = isinstance(error, ModuleNotFoundError) and package
        if is_missing and not package.startswith("tensorflow_gan."):
            text = f"{what} needs the package `{package}`, which isn't installed. {_RUN}"
        else:
            reason = f"{type(error).__name__}: {error}"
            text = f"{what} is installed but can't be imported here ({reason}). {_RUN} --upgrade"
        raise ImportError(text, name=package) from error
