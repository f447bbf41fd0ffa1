"""Scores with everything that a reader must know beside them."""

import hashlib
import importlib
import json
import math
import numbers
import pathlib
import platform

import keras
import numpy as np

from keras_sagan.checks import check_dict, check_list, check_path
from keras_sagan.version import __version__

_FORMAT = 1
NO_VERSION = ", without a version"  # how an extractor is named that can't be told from others


class EvaluationReport:
    """The result of an evaluation: its scores, their protocol and two baselines.

    A score can be compared with another only if both were measured alike. `compare` says what
    differs and refuses, unless it is told to let that pass.

    Args:
        values: Dictionary from the names of scores to floats.
        baselines: Dictionary of two such dictionaries: `"real"`, other real images in place of
            the generated (the floor: what a generator is compared with), and `"noise"`, uniform
            noise in their place. Each also has `"num_images"`, and `"note"` where there is
            something to say.
        protocol: Dictionary, ready for JSON.
        model: String, what was measured.
        notes: List of strings, what a reader must know of scores of too few images. Defaults to
            `()`.

    Raises:
        ValueError: If a score isn't a number, or an argument isn't ready for JSON.

    Example:

    >>> first = EvaluationReport({"fid": 12.5}, {}, {"num_generated": 5000, "seed": 0}, "a")
    >>> second = EvaluationReport({"fid": 10.0}, {}, {"num_generated": 5000, "seed": 1}, "b")
    >>> first.compare(second)
    Traceback (most recent call last):
    ValueError: Reports can be compared if they have one protocol. Received: reports that differ in
    seed: 0 and 1. `ignore=("seed",)` compares them all the same
    >>> first.compare(second, ignore=("seed",))
    {'fid': -2.5}
    """

    def __init__(self, values, baselines, protocol, model, notes=()):
        values, baselines = check_dict("values", values), check_dict("baselines", baselines)
        self.values = {}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise ValueError(f"`values` must be numbers. Received: {name}={value!r}")
            self.values[name] = float(value)
        try:
            self.protocol = json.loads(json.dumps(protocol, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`protocol` must be ready for JSON. Received: protocol={protocol!r} ({error})"
            ) from error
        self.baselines = {name: dict(part) for name, part in baselines.items()}
        self.model = str(model)
        self.notes = [str(note) for note in check_list("notes", notes)]

    def compare(self, other, ignore=()):
        """Returns how much `other`'s scores are above this report's: `{name: float}`.

        Args:
            other: `EvaluationReport`.
            ignore: Strings, the fields of the protocol that may differ; `"all"` for any.

        Raises:
            ValueError: If the protocols differ in another field, or their extractor has no
                version, so that they may.
        """
        ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        differing = {} if "all" in ignore else self.differences(other)
        differing = {name: pair for name, pair in differing.items() if name not in ignore}
        extractor = str(self.protocol.get("feature_extractor"))
        if extractor.endswith(NO_VERSION) and not {"all", "feature_extractor"} & set(ignore):
            # Two functions of one name may compute anything.
            differing["feature_extractor"] = extractor, other.protocol.get("feature_extractor")
        if differing:
            shown = "; ".join(f"{name}: {a!r} and {b!r}" for name, (a, b) in differing.items())
            names = ", ".join(f'"{name}"' for name in (*ignore, *differing))
            raise ValueError(
                "Reports can be compared if they have one protocol. Received: reports that differ "
                f"in {shown}. `ignore=({names},)` compares them all the same"
            )
        common = [name for name in self.values if name in other.values]
        return {name: other.values[name] - self.values[name] for name in common}

    def differences(self, other):
        """Returns the fields that differ: `{name: (this report's, other's)}`."""
        names = [*self.protocol, *(x for x in other.protocol if x not in self.protocol)]
        pairs = {name: (self.protocol.get(name), other.protocol.get(name)) for name in names}
        return {name: (a, b) for name, (a, b) in pairs.items() if a != b}

    def to_json(self):
        """Returns the report as a JSON string; numbers that aren't finite become `null`."""
        content = {
            "format": _FORMAT,
            "model": self.model,
            "values": _finite(self.values),
            "baselines": {name: _finite(part) for name, part in self.baselines.items()},
            "protocol": self.protocol,
            "notes": self.notes,
        }
        return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text):
        """Reads what `to_json` wrote.

        Args:
            text: String.

        Raises:
            ValueError: If it isn't a report.
        """
        try:
            content = json.loads(text)
            if content["format"] != _FORMAT:
                raise ValueError(f"format={content['format']!r}")
            baselines = {name: _numbers(part) for name, part in content["baselines"].items()}
            return cls(
                _numbers(content["values"]),
                baselines,
                content["protocol"],
                content["model"],
                content.get("notes", ()),  # Older files have none.
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                "`text` must be the JSON of an EvaluationReport of format "
                f"{_FORMAT}. Received: {str(text)[:80]!r} ({type(error).__name__}: {error})"
            ) from error

    def save(self, path):
        """Writes the JSON to a file."""
        path = pathlib.Path(check_path("path", path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path):
        """Reads a file that `save` wrote.

        Raises:
            ValueError: If it isn't such a file.
        """
        path = pathlib.Path(check_path("path", path))
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                "`path` must be a file that `EvaluationReport.save` wrote. "
                f"Received: {path} ({error})"
            ) from error

    def __str__(self):
        columns = {"generated": self.values, **self.baselines}
        lines = [" ".join(["score".ljust(26), *(name.rjust(14) for name in columns)])]
        for name in self.values:
            shown = [
                "-".rjust(14) if math.isnan(part.get(name, math.nan)) else f"{part[name]:14.5g}"
                for part in columns.values()
            ]
            lines.append(" ".join([name.ljust(26), *shown]))
        counts = [self.protocol.get("num_generated")]
        counts += [part.get("num_images") for part in self.baselines.values()]
        shown = [("-" if count is None else str(count)).rjust(14) for count in counts]
        lines.append(" ".join(["images".ljust(26), *shown]))
        lines += [f"{name}: {x['note']}" for name, x in self.baselines.items() if "note" in x]
        lines += [f"note: {note}" for note in self.notes]
        lines += ["", f"model: {self.model}"]
        for name, value in self.protocol.items():
            if isinstance(value, dict):
                lines += [f"{name}:", *(f"    {key}: {each}" for key, each in value.items())]
            else:
                lines.append(f"{name}: {value}")
        return "\n".join(lines)

    def __repr__(self):
        return f"<EvaluationReport {self.values} of {self.model}>"


def _finite(values):
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _numbers(values):
    return {name: float("nan") if value is None else value for name, value in values.items()}


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
