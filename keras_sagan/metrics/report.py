"""The report of an evaluation: its scores, and how they were measured."""

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
NO_VERSION = ", without a version"  # The name suffix of extractors without a version.


class EvaluationReport:
    """The result of an evaluation: its scores, their protocol and two baselines.

    Args:
        values: Dictionary that maps score names to floats.
        baselines: Dictionary that maps `"real"` and `"noise"` to dictionaries like `values`.
            `"real"` has the scores of real images, the best that a generator can achieve, and
            `"noise"` has the scores of uniform noise. Both may also contain `"num_images"` and a
            `"note"`.
        protocol: JSON-serializable dictionary that describes how the scores were measured.
        model: The name of the evaluated model or images.
        notes: List of warnings, for example about too few images or different image sizes.

    Raises:
        ValueError: If a score isn't a number, or an argument isn't JSON-serializable.

    Example:
    >>> first = EvaluationReport({"fid": 12.5}, {}, {"num_generated": 5000, "seed": 0}, "a")
    >>> second = EvaluationReport({"fid": 10.0}, {}, {"num_generated": 5000, "seed": 1}, "b")
    >>> first.compare(second)
    Traceback (most recent call last):
    ValueError: Reports can be compared if their protocols are equal. Received: reports that differ
    in seed: 0 and 1. Pass `ignore=("seed",)` to compare them anyway
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
        self.values = check_dict("values", values)
        for name, value in self.values.items():
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise ValueError(f"`values` must be numbers. Received: {name}={value!r}")
            self.values[name] = float(value)
        self.baselines = {k: dict(v) for k, v in check_dict("baselines", baselines).items()}
        try:
            self.protocol = json.loads(json.dumps(protocol, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`protocol` must be JSON-serializable. Received: protocol={protocol!r} ({error})"
            ) from error
        self.model = str(model)
        self.notes = [str(note) for note in check_list("notes", notes)]

    def compare(
        self, other: "EvaluationReport", ignore: str | Iterable[str] = ()
    ) -> dict[str, float]:
        """Returns `{name: other's score - this report's score}`.

        Args:
            other: The report to compare with.
            ignore: The fields of the protocol that may differ; `"all"` allows any field to differ.

        Raises:
            ValueError: If the protocols differ in any other field. Extractors without a version
                count as different.
        """
        ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        differing = self.differences(other)
        extractor = str(self.protocol.get("feature_extractor"))
        if extractor.endswith(NO_VERSION):  # Two extractors with the same name may differ.
            differing["feature_extractor"] = extractor, other.protocol.get("feature_extractor")
        differing = {name: pair for name, pair in differing.items() if name not in ignore}
        if differing and "all" not in ignore:
            shown = "; ".join(f"{name}: {a!r} and {b!r}" for name, (a, b) in differing.items())
            names = ", ".join(f'"{name}"' for name in (*ignore, *differing))
            raise ValueError(
                "Reports can be compared if their protocols are equal. Received: reports that "
                f"differ in {shown}. Pass `ignore=({names},)` to compare them anyway"
            )
        return {
            name: other.values[name] - value
            for name, value in self.values.items()
            if name in other.values
        }

    def differences(self, other: "EvaluationReport") -> dict[str, tuple]:
        """Returns the fields that differ: `{name: (value in this report, value in other)}`."""
        fields = {**self.protocol, **other.protocol}
        pairs = {name: (self.protocol.get(name), other.protocol.get(name)) for name in fields}
        return {name: (a, b) for name, (a, b) in pairs.items() if a != b}

    def to_json(self) -> str:
        """Returns the report as a JSON string; numbers that aren't finite become `null`."""

        def finite(part):
            return {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in part.items()
            }

        content = {"format": _FORMAT, "model": self.model, "values": finite(self.values)}
        content["baselines"] = {name: finite(part) for name, part in self.baselines.items()}
        content |= {"protocol": self.protocol, "notes": self.notes}
        return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "EvaluationReport":
        """Reads the result of `to_json`; raises `ValueError` for any other text."""

        def numbers_of(part):
            return {name: math.nan if value is None else value for name, value in part.items()}

        try:
            content = json.loads(text)
            if content["format"] != _FORMAT:
                raise ValueError(f"format={content['format']!r}")
            baselines = {name: numbers_of(part) for name, part in content["baselines"].items()}
            values, notes = numbers_of(content["values"]), content.get("notes", ())
            return cls(values, baselines, content["protocol"], content["model"], notes)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                "`text` must be the JSON of an EvaluationReport of format "
                f"{_FORMAT}. Received: {str(text)[:80]!r} ({type(error).__name__}: {error})"
            ) from error

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the report to a JSON file."""
        path = pathlib.Path(check_path("path", path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "EvaluationReport":
        """Reads a file that `save` wrote; raises `ValueError` for any other file."""
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


def make_protocol(
    metrics: Sequence, num_images: int, info: dict, made: dict, name: str | None = None
) -> dict:
    """Returns a JSON-serializable description of how scores were measured.

    `info` describes the real images, as in `ReferenceStatistics.info`; `made` describes the
    generated images; `name` replaces the name of a single metric.
    """
    extractor = getattr(metrics[0], "feature_extractor", None)
    return {
        "num_generated": num_images,
        "reference": info["dataset"],
        "reference_split": info["split"],
        "num_reference": info["num_images"],
        "reference_sha256": info["sha256"],
        "reference_extractor_is_known": info.get("feature_extractor", extractor) is not None,
        **({} if extractor is None else extractor_info(extractor)),
        "metrics": {name or x.name: getattr(x, "definition", type(x).__name__) for x in metrics},
        **made,
        "versions": package_versions(),
    }


def extractor_info(feature_extractor: Callable) -> dict[str, str]:
    """Returns the entries `"feature_extractor"` and `"resize"` of a protocol."""
    return {
        "feature_extractor": describe_extractor(feature_extractor),
        "resize": getattr(feature_extractor, "resize", "the extractor's own"),
    }


def describe_extractor(feature_extractor: Callable) -> str:
    """Returns an extractor's `version`, or its name and either a weights digest or `NO_VERSION`."""
    version = getattr(feature_extractor, "version", None)
    if version:
        return str(version)
    kind = getattr(feature_extractor, "__qualname__", type(feature_extractor).__qualname__)
    name = getattr(feature_extractor, "name", None) or kind
    is_model = isinstance(feature_extractor, keras.Model)
    return name + (f" sha256:{weights_sha256(feature_extractor)}" if is_model else NO_VERSION)


def check_is_versioned(feature_extractor: Callable, argument: str):
    """Raises an error that names `argument` if the extractor has no version."""
    if describe_extractor(feature_extractor).endswith(NO_VERSION):
        raise ValueError(
            f"`{argument}` needs an extractor that can be identified: a Keras model, or an object "
            "with a string `version`, which must change with its features. "
            f"Received: feature_extractor={feature_extractor!r}"
        )


def weights_sha256(model: keras.Model) -> str:
    """Returns the SHA-256 of the shapes and values of all weights of a Keras model."""
    digest = hashlib.sha256()
    for variable in model.variables:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(f"{value.dtype.name} {value.shape}\0".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Returns the versions of the software that a score may depend on."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": f"{backend} {importlib.import_module(backend).__version__}",
        "numpy": np.__version__,
        "keras_sagan": __version__,
    }
