"""The scripts of `examples/`, to be run in the process of the tests: imports take seconds."""

import functools
import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples"


@functools.cache
def load_example(name):
    """Returns a script as a module; its `main` takes the arguments of the command line."""
    spec = importlib.util.spec_from_file_location(f"{name}_example", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
