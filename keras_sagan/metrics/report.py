"""The report of an evaluation: scores, and what a reader must know beside them."""

import hashlib
import importlib
import json
import math
import numbers
import pathlib
import platform
from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np

from keras_sagan.checks import check_dict, check_list, check_path
from keras_sagan.version import __version__

_FORMAT = 1
NO_VERSION = ", without a version"  # ends the name of an extractor that isn't identified


class EvaluationReport:
    """The result of an evaluation: its scores, their protocol and two baselines.

    Two scores are comparable only if both were measured in the same way. `compare` raises if the
    protocols differ, unless the differing fields are ignored.

    Args:
        values: Dictionary from the names of scores to floats.
        baselines: Dictionary of two such dictionaries, measured in place of the generated images:
            `"real"`, other real images (the best that a generator can reach), and `"noise"`,
            uniform noise. Each also has `"num_images"`, and `"note"` if there is something to say.
        protocol: Dictionary, ready for JSON.
        model: What was measured.
        notes: Strings, warnings about scores of too few images. Defaults to `()`.

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

    def __init__(
        self,
        values: dict[str, float],
        baselines: dict[str, dict],
        protocol: dict,
        model: str,
        notes: Sequence[str] = (),
    ):
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

    def compare(
        self, other: "EvaluationReport", ignore: str | Iterable[str] = ()
    ) -> dict[str, float]:
        """Returns `{name: other's score - this report's score}`.

        Args:
            other: `EvaluationReport`.
            ignore: The fields of the protocol that may differ; `"all"` for any.

        Raises:
            ValueError: If the protocols differ in another field, or their extractor has no
                version, so that two extractors may differ.
        """
        ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        differing = self.differences(other)
        extractor = str(self.protocol.get("feature_extractor"))
        if extractor.endswith(NO_VERSION):  # Two functions of one name may compute anything.
            differing["feature_extractor"] = extractor, other.protocol.get("feature_extractor")
        differing = {name: pair for name, pair in differing.items() if name not in ignore}
        if differing and "all" not in ignore:
            shown = "; ".join(f"{name}: {a!r} and {b!r}" for name, (a, b) in differing.items())
            names = ", ".join(f'"{name}"' for name in (*ignore, *differing))
            raise ValueError(
                "Reports can be compared if they have one protocol. Received: reports that differ "
                f"in {shown}. `ignore=({names},)` compares them all the same"
            )
        common = [name for name in self.values if name in other.values]
        return {name: other.values[name] - self.values[name] for name in common}

    def differences(self, other: "EvaluationReport") -> dict[str, tuple]:
        """Returns the fields that differ: `{name: (this report's, other's)}`."""
        pairs = {
            name: (self.protocol.get(name), other.protocol.get(name))
            for name in {**self.protocol, **other.protocol}
        }
        return {name: (a, b) for name, (a, b) in pairs.items() if a != b}

    def to_json(self) -> str:
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
    def from_json(cls, text: str) -> "EvaluationReport":
        """Reads the result of `to_json`; raises `ValueError` for anything else."""
        try:
            content = json.loads(text)
            if content["format"] != _FORMAT:
                raise ValueError(f"format={content['format']!r}")
            return cls(
                _numbers(content["values"]),
                {name: _numbers(part) for name, part in content["baselines"].items()},
                content["protocol"],
                content["model"],
                content.get("notes", ()),  # Older files have none.
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                "`text` must be the JSON of an EvaluationReport of format "
                f"{_FORMAT}. Received: {str(text)[:80]!r} ({type(error).__name__}: {error})"
            ) from error

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the JSON to a file."""
        path = pathlib.Path(check_path("path", path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "EvaluationReport":
        """Reads a file that `save` wrote; raises `ValueError` for another one."""
        path = pathlib.Path(check_path("path", path))
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                "`path` must be a file that `EvaluationReport.save` wrote. "
                f"Received: {path} ({error})"
            ) from error

    def __str__(self):
        def row(name, *cells):
            return " ".join([name.ljust(26), *(cell.rjust(14) for cell in cells)])

        def number(value):
            return "-" if math.isnan(value) else f"{value:.5g}"

        columns = {"generated": self.values, **self.baselines}
        lines = [row("score", *columns)]
        for name in self.values:
            lines.append(row(name, *(number(x.get(name, math.nan)) for x in columns.values())))
        counts = [self.protocol.get("num_generated")]
        counts += [part.get("num_images") for part in self.baselines.values()]
        lines.append(row("images", *("-" if count is None else str(count) for count in counts)))
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
    return {name: math.nan if value is None else value for name, value in values.items()}


def extractor_info(feature_extractor: Callable) -> dict[str, str]:
    """Returns `{"feature_extractor": …, "resize": …}`, as protocols have them."""
    return {
        "feature_extractor": describe_extractor(feature_extractor),
        "resize": getattr(feature_extractor, "resize", "the extractor's own"),
    }


def describe_extractor(feature_extractor: Callable) -> str:
    """Returns the name of an extractor in a protocol.

    That is its `version`, or the name of a Keras model and the digest of its weights. The name of
    any other extractor says that it has no version.
    """
    version = getattr(feature_extractor, "version", None)
    if version is None and isinstance(feature_extractor, keras.Model):
        version = f"{feature_extractor.name} sha256:{weights_sha256(feature_extractor)}"
    if version:
        return str(version)
    kind = getattr(feature_extractor, "__qualname__", type(feature_extractor).__qualname__)
    return f"{getattr(feature_extractor, 'name', None) or kind}{NO_VERSION}"


def check_is_versioned(feature_extractor: Callable, argument: str):
    """Raises for an extractor whose features can't be identified in the files of an argument."""
    version = getattr(feature_extractor, "version", None)
    if not version and not isinstance(feature_extractor, keras.Model):
        raise ValueError(
            f"`{argument}` needs an extractor that can be identified: a Keras model, or an object "
            "with a string `version`, which must change with its features. "
            f"Received: feature_extractor={feature_extractor!r}"
        )


def weights_sha256(model: keras.Model) -> str:
    """Returns the SHA-256 over the shapes and values of all weights of a Keras model."""
    digest = hashlib.sha256()
    for variable in model.variables:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(f"{value.dtype.name} {value.shape}\0".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Returns the versions that a score may depend on."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": f"{backend} {importlib.import_module(backend).__version__}",
        "numpy": np.__version__,
        "keras_sagan": __version__,
    }
