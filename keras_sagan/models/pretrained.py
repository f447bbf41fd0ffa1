"""Loads the trained weights of presets, and loads models from the Hugging Face Hub."""

import collections
import inspect
import io
import json
import os
import warnings
import zipfile
from pathlib import Path

import h5py
import keras

from keras_sagan.checks import check_choice, check_path, require
from keras_sagan.models.discriminator import build_discriminator
from keras_sagan.models.generator import build_generator
from keras_sagan.models.presets import preset_settings
from keras_sagan.weight_files import fetch_weights

__all__ = []

# The folder of records, one for each preset with trained weights. A weights file is in this folder
# or at the `url` of its record.
RECORDS = Path(__file__).with_name("weights")


def find_weights(preset, settings, load_weights):
    """Returns the path of the weights file, or `None` for `load_weights=False`.

    If a file name ends with a digest prefix, such as `sagan-0123abcd.weights.h5`, it is checked.
    """
    if isinstance(load_weights, (str, os.PathLike)):
        path = check_path("load_weights", load_weights, allow_url=True)
        if "://" not in path and not os.path.isfile(path):
            raise ValueError(
                "`load_weights` must be a boolean, an existing file or a URL. "
                f"Received: load_weights={str(load_weights)!r}"
            )
        return fetch_weights(path)[0]
    if not check_choice(
        "load_weights", load_weights, (True, False), "a boolean, an existing file or a URL"
    ):
        return None
    path = RECORDS / f"{preset}.json"
    if not path.exists():
        raise ValueError(
            f"`load_weights` must be the path of a .keras or .weights.h5 file for {preset!r}, of "
            "which the package has no weights. The repository has weights of some presets in "
            "`examples/weights`. Received: load_weights=True"
        )
    _check_networks(preset, settings)
    record = json.loads(path.read_text(encoding="utf-8"))
    file = record.get("url", path.with_name(f"{preset}.weights.h5"))
    return fetch_weights(file, record["sha256"])[0]


def _check_networks(preset, settings):
    """Raises an error if the settings of the networks differ from those of the trained networks."""
    trained = preset_settings(preset)
    for builder in (build_generator, build_discriminator):
        for name, parameter in inspect.signature(builder).parameters.items():
            expected = trained.get(name, parameter.default)
            value = settings.get(name, parameter.default)
            value = tuple(value) if isinstance(value, list) else value
            # `batch_norm` affects only how statistics are computed.
            if name not in ("name", "batch_norm") and value != expected:
                raise ValueError(
                    f"`{name}` must be {expected!r}, as in the trained networks of preset "
                    f"{preset!r}, or load_weights=False. `SAGAN.from_model` changes the classes of "
                    f"a trained model. Received: {name}={value!r}"
                )


def load_weights(model, path):
    """Loads only the weights in a file, and never runs code from the file."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.load_weights(path)
        _check_all_loaded(model, path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join([x for x in str(error).splitlines() if x][:2])
        raise ValueError(
            "`load_weights` must be a complete .keras or .weights.h5 file of a SAGAN with the same "
            f"networks and averages. Received: load_weights={str(path)!r} ({reason})"
        ) from error
    for found in caught:  # If loading fails, Keras's warnings about each layer aren't shown.
        warnings.warn_explicit(found.message, found.category, found.filename, found.lineno)


def _check_all_loaded(model, path):
    """Raises an error if a file has arrays for layers that a network lacks, which Keras ignores."""
    counts = collections.Counter()

    def count(name, item):
        counts[name.partition("/")[0]] += isinstance(item, h5py.Dataset)

    file = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            file = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(file) as content:
        content.visititems(count)
    for name in ("generator", "discriminator"):
        expected = len(getattr(model, name).weights)
        if counts[name] != expected:
            text = f"its {name} has {counts[name]} arrays, and the model's has {expected}"
            raise ValueError(text)


def load_from_hub(name, kind, recipe, load_weights, overrides):
    """Loads a model that `model.save` uploaded to `"hf://user/name"`."""
    given = {**({} if recipe is None else {"recipe": recipe}), **overrides}
    if not isinstance(load_weights, bool):  # The saved weights are loaded in any case.
        given["load_weights"] = load_weights
    for argument, value in given.items():
        raise ValueError(
            f"`{argument}` must not be given for a model on the Hugging Face Hub, which has its "
            f"own settings and weights. Received: {argument}={value!r}"
        )
    try:
        model = keras.saving.load_model(name)
    except UnboundLocalError as error:  # Keras raises this error if it can't open the weights.
        raise ValueError(
            f"`name` must lead to a complete model. Received: name={name!r}, whose weights file is "
            "damaged"
        ) from error
    except ValueError:  # It was reached, but isn't a model that Keras can load safely.
        raise
    except Exception as error:  # `huggingface_hub` raises errors of several libraries.
        raise OSError(
            f"`name` can't be loaded from the Hugging Face Hub ({type(error).__name__}: {error}). "
            f"Received: name={name!r}"
        ) from error
    if not isinstance(model, kind):
        raise ValueError(
            f"`name` must lead to a saved {kind.__name__}. Received: name={name!r}, which leads to "
            f"a {type(model).__name__}"
        )
    return model


def is_on_hub(path):
    """Returns whether a path is on the Hugging Face Hub; if so, requires `huggingface_hub`."""
    if not str(path).startswith("hf://"):
        return False
    require("huggingface_hub", "A path that starts with hf://", "hub")
    return True
