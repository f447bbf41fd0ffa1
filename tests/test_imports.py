"""Who may import whom: the layering of the package, read from its syntax trees."""

import ast
import sys
from pathlib import Path

import pytest

import keras_sagan

PACKAGE = Path(keras_sagan.__file__).parent
MAY_IMPORT = {
    "version": set(),
    "checks": set(),
    "ops": {"ops"},
    "layers": {"layers", "ops"},
    "losses": set(),
    "penalties": {"training"},
    "training": {"training", "layers", "losses", "ops", "distribution"},
    "models": {
        "models",
        "training",
        "layers",
        "losses",
        "penalties",
        "ops",
        "distribution",
        "weight_files",
        "lazy",
    },
    "metrics": {"metrics", "ops", "image_files", "weight_files", "lazy"},
    "visualization": {"visualization", "ops"},
    "data": {"data", "ops", "image_files", "lazy"},
    "image_files": set(),
    "lazy": set(),
    "private_keras": set(),
    "quiet": set(),
    "weight_files": set(),
    "whole_files": set(),
    "callbacks": {
        "callbacks",
        "data",
        "metrics",
        "visualization",
        "layers",
        "ops",
        "distribution",
        "lazy",
    },
    "distribution": {"lazy"},
    "options": set(),
    "log": set(),
    "sources": {"data", "metrics"},
    "run": {
        "callbacks",
        "distribution",
        "log",
        "metrics",
        "models",
        "options",
        "sources",
        "visualization",
    },
    "cli": {
        "cli",
        "run",
        "sources",
        "options",
        "log",
        "quiet",
        "image_files",
        "metrics",
        "models",
        "visualization",
    },
    "__main__": {"cli"},
}
IMPORTS_TENSORFLOW = (
    "training/tensorflow.py",
    "ops/cpu/",
    "ops/programs.py",
    "lazy.py",
)
# By `keras_sagan.lazy`, so that other backends import them without TensorFlow.
USES_TENSORFLOW = (
    "models/export.py",
    "data/order.py",
    "data/position.py",
    "data/tensorflow_pipeline.py",
    "data/tfds.py",
    "distribution.py",
    "metrics/extractors/tfgan_inception.py",
    "callbacks/old_checkpoints.py",
    "callbacks/model_state.py",
    "callbacks/tensorboard.py",
)
FOR_ALL = {"version", "checks", "whole_files", "private_keras"}
OPS_MAY_USE = {"keras", "numpy"}
FILES = {p.relative_to(PACKAGE).as_posix(): p for p in sorted(PACKAGE.rglob("*.py"))}


def imports(path):
    """Full dotted names of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", [n for n in FILES if n != "__init__.py"])
def test_imports(name):
    unit = name.split("/")[0].removesuffix(".py")
    for imported in imports(FILES[name]):
        top, *rest = imported.split(".")
        if top == "keras_sagan":
            assert rest[0] in MAY_IMPORT[unit] | FOR_ALL, f"{name} imports {imported}"
        if top == "tensorflow":
            assert name.startswith(IMPORTS_TENSORFLOW), f"{name} imports TensorFlow"
        if imported == "keras_sagan.lazy.tf":
            assert name in USES_TENSORFLOW, f"{name} uses TensorFlow"
        if top in ("jax", "torch"):
            rooms = (
                f"training/{top}.py",
                "distribution.py",
                "ops/programs.py",
                "callbacks/model_state.py",
            )
            assert name in rooms, f"{name} imports {top}"
        if unit == "checks":
            known = sys.stdlib_module_names | {"numpy", "keras"}
            assert top in known, f"{name} imports {imported}"
        if unit == "ops" and top != "keras_sagan":
            allowed = OPS_MAY_USE | {"tensorflow", "jax"} | sys.stdlib_module_names
            assert top in allowed, f"{name} imports {imported}"
        assert imported not in ("keras.src", "keras_src") and not imported.startswith("keras.src.")
