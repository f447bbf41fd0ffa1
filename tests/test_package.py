import ast
import inspect
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import keras
import pytest

import keras_sagan
from keras_sagan import distribution, run

PACKAGE = Path(keras_sagan.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
OPTIONAL = [
    "tensorflow_datasets",
    "tensorflow_gan",
    "tensorflow_probability",
    "tensorflow_hub",
    "tf_keras",
    "matplotlib",
    "tensorboard",
    "PIL",
    "scipy",
    "tf2onnx",
    "onnxruntime",
    "ai_edge_litert",
]
SUBMODULES = [
    *("callbacks", "data", "layers", "losses", "metrics", "models", "penalties", "visualization")
]
# Methods that override Keras's, with its arguments.
OF_KERAS = {
    "add_weight",
    "call",
    "compile_from_config",
    "compute_mask",
    "compute_output_spec",
    "enable_lora",
    "fit",
    "from_config",
    "load_own_variables",
    "make_test_function",
    "make_train_function",
    "quantize",
    "save_own_variables",
    "test_on_batch",
    "train_on_batch",
}


def test_public_names_are_frozen():
    assert keras_sagan.__all__ == [
        "ConditionalBatchNorm",
        "ConditionalGroupNorm",
        "ConditionalLayerNorm",
        "FrechetInceptionDistance",
        "SAGAN",
        "SNConv1D",
        "SNConv2D",
        "SNConv2DTranspose",
        "SNConv3D",
        "SNDense",
        "SNEmbedding",
        "SelfAttention1D",
        "SelfAttention2D",
        "SelfAttention3D",
        "SpectralNorm",
        "__version__",
        "build_discriminator",
        "build_generator",
        "callbacks",
        "data",
        "layers",
        "losses",
        "metrics",
        "models",
        "penalties",
        "visualization",
    ]
    assert all(hasattr(keras_sagan, name) for name in keras_sagan.__all__)


@pytest.mark.parametrize(
    "name", ["callbacks", "data", "layers", "metrics", "models", "penalties", "visualization"]
)
def test_names_of_subpackages_exist(name):
    module = getattr(keras_sagan, name)
    assert module.__all__ and all(hasattr(module, each) for each in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


def test_version():
    from keras_sagan import version

    assert keras_sagan.__version__ == version.__version__
    assert keras_sagan.__version__ == metadata.version("keras_sagan")  # setup.py's
    assert all(part.isdigit() for part in keras_sagan.__version__.split(".")[:2])


BLOCKED = """
import sys
for name in {names}:
    sys.modules[name] = None
import keras_sagan
for name in keras_sagan.__all__:
    getattr(keras_sagan, name)
loaded = [m for m in sys.modules if m.split(".")[0] in {names} and sys.modules[m] is not None]
print(loaded)
"""


@pytest.mark.slow
def test_import_needs_no_optional_package():
    code = BLOCKED.format(names=OPTIONAL)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip() == "[]"


def test_no_assert_in_the_library():
    assert len(FILES) > 20
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        assert not found, f"{path.relative_to(PACKAGE)} lines {found}"


def test_only_classes_are_registered_with_keras():
    """A registered function could be called by a `.keras` file from anywhere."""
    registered = {
        name: value
        for name, value in keras.saving.get_custom_objects().items()
        if name.startswith("keras_sagan>")
    }
    expected = {"ConditionalBatchNorm", "SAGAN", "SNConv2D", "SNDense", "SNEmbedding"}
    assert expected | {"FusedAdam", "SelfAttention2D"} <= {
        name.split(">")[1] for name in registered
    }
    assert all(inspect.isclass(value) for value in registered.values())
    ours = [v for v in keras.saving.get_custom_objects().values() if _is_ours(v)]
    assert len(ours) == len(registered)


def _is_ours(value):
    return _module_of(value).startswith("keras_sagan.")


def _module_of(value):
    return getattr(value, "__module__", "")


@pytest.mark.parametrize(
    "module",
    [keras_sagan, distribution, run]
    + [value for name, value in vars(keras_sagan).items() if name in SUBMODULES],
    ids=lambda module: module.__name__,
)
def test_public_functions_have_type_hints(module):
    own = [name for name, x in vars(module).items() if _module_of(x) == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    functions = {x.__qualname__: x for name in names for x in _functions(vars(module)[name])}
    assert functions
    lacking = {name: _without_hint(x) for name, x in functions.items()}
    assert not {name: arguments for name, arguments in lacking.items() if arguments}


def _functions(value):
    """Returns a function, or the `__init__`, public methods and properties of a class."""
    if not inspect.isclass(value):
        return [value] if inspect.isfunction(value) else []
    members = {
        name: getattr(x, "fget", getattr(x, "__func__", x))
        for name, x in inspect.getmembers_static(value)
        if name == "__init__" or not name.startswith("_")
    }
    return [
        x
        for name, x in members.items()
        if inspect.isfunction(x) and _is_ours(x) and name not in OF_KERAS
    ]


def _without_hint(function):
    """Returns the arguments that have no type hint, and "return" if the result has none."""
    signature = inspect.signature(function)
    names = [
        x.name
        for x in signature.parameters.values()
        if x.annotation is x.empty and x.name not in ("self", "cls")
        if x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)
    ]
    if function.__name__ != "__init__" and signature.return_annotation is signature.empty:
        names.append("return")
    return names
