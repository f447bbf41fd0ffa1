"""The one file that knows how to load TF-GAN and TensorFlow Hub on today's TensorFlow."""

import contextlib
import importlib
import importlib.util
import io
import os
import sys
import types

_PIP_LINE = 'pip install "keras_sagan[metrics]"'
_EVAL = "tensorflow_gan.python.eval"
_loaded = {}


def load_tfgan_eval():
    """Imports the evaluation modules of TF-GAN, also where `import tensorflow_gan` fails.

    TF-GAN 2.1.0 needs `tf.estimator`, which TensorFlow 2.16 removed, but not for its metrics. The
    ordinary import is tried first and a TF-GAN that works is used as it is. Otherwise
    `tensorflow_gan.python.eval` is imported below two empty stand-ins for its parent packages.
    Those leave `sys.modules` again, whether the import worked or not: for everybody else in the
    process `import tensorflow_gan` behaves as if this function had never been called.

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
    if _EVAL not in _loaded:
        _loaded[_EVAL] = _import_ordinary() or _import_below_stubs()
    return _loaded[_EVAL]


def load_tensorflow_hub():
    """Imports TensorFlow Hub, also beside a setuptools that has no `pkg_resources`.

    tensorflow-hub 0.16.1 takes one function from `pkg_resources`, which setuptools 82 removed and
    which isn't in a fresh environment of Python 3.12. A stand-in with that function is in
    `sys.modules` during the import only.

    Returns:
        The module `tensorflow_hub`.

    Raises:
        ImportError: If TensorFlow Hub or a package it needs is missing, with the pip line.
    """
    try:
        with _pkg_resources(), contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module("tensorflow_hub")
    except Exception as error:
        raise _explained("TensorFlow Hub", error) from error


def _import_ordinary():
    """TF-GAN's evaluation modules by the ordinary import, or `None` if that fails."""
    before = _tfgan_modules()
    try:
        with _pkg_resources(), contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module("tensorflow_gan").eval
    except Exception:  # whatever it was, the second way decides
        _restore(before)
        return None


def _import_below_stubs():
    """TF-GAN's evaluation modules without running `tensorflow_gan/__init__.py`."""
    before = _tfgan_modules()
    try:
        _restore({})
        spec = importlib.util.find_spec("tensorflow_gan")
        if spec is None:
            raise ModuleNotFoundError("No module named 'tensorflow_gan'", name="tensorflow_gan")
        root = list(spec.submodule_search_locations or [])
        for name, path in (
            ("tensorflow_gan", root),
            ("tensorflow_gan.python", [os.path.join(folder, "python") for folder in root]),
        ):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = path
        with _pkg_resources(), contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(_EVAL)
    except Exception as error:
        raise _explained("TF-GAN", error) from error
    finally:
        _restore(before)


def _tfgan_modules():
    """What `sys.modules` holds of TF-GAN."""
    return {
        name: module
        for name, module in sys.modules.items()
        if name == "tensorflow_gan" or name.startswith("tensorflow_gan.")
    }


def _restore(before):
    """Makes `sys.modules` hold of TF-GAN exactly what it held before."""
    for name in _tfgan_modules():
        del sys.modules[name]
    sys.modules.update(before)


@contextlib.contextmanager
def _pkg_resources():
    """Lends `pkg_resources.parse_version` to an import, where setuptools has it no more."""
    if "pkg_resources" in sys.modules or importlib.util.find_spec("pkg_resources"):
        yield
        return
    from packaging.version import parse

    stub = types.ModuleType("pkg_resources")
    stub.parse_version = parse
    sys.modules["pkg_resources"] = stub
    try:
        yield
    finally:
        sys.modules.pop("pkg_resources", None)


def _explained(what, error):
    """An ImportError that says what is missing and how to install it."""
    name = getattr(error, "name", None)
    if isinstance(error, ModuleNotFoundError) and name and not name.startswith("tensorflow_gan."):
        return ImportError(
            f"{what} needs the package `{name}`, which isn't installed. Run: {_PIP_LINE}", name=name
        )
    return ImportError(
        f"{what} is installed but can't be imported here ({type(error).__name__}: {error}). "
        f"Update it with: {_PIP_LINE}"
    )
