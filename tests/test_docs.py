"""The documentation: its code runs, its commands exist, no public name is missing, it builds."""

import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import types
import zlib
from pathlib import Path

import keras
import pytest
from short_runs import build_little, load_few, train_briefly

import keras_sagan
from keras_sagan import SAGAN
from keras_sagan.cli.main import build_parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md")) if DOCS.exists() else []
NAMES = [page.relative_to(DOCS).as_posix() for page in PAGES]

if not PAGES:
    pytest.skip("The documentation isn't in this tree.", allow_module_level=True)


def blocks(text, languages):
    return re.findall(rf"^```(?:{languages})\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_few_steps(monkeypatch):
    """Has `fit` run one step."""
    fit = SAGAN.fit

    def short_fit(self, *arguments, **given):
        return fit(self, *arguments, **{**given, "epochs": 1, "steps_per_epoch": 1})

    monkeypatch.setattr(SAGAN, "fit", short_fit)
    train_briefly(monkeypatch)
    load_few(monkeypatch)


# Pages that name layers or load weights of a preset.
WHOLE = ["guides/attention.md", "guides/emoji.md", "guides/fine_tuning.md"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if "```python" in (DOCS / n).read_text()])
def test_python_blocks(name, tmp_path, monkeypatch):
    """One after the other, as a reader would run them, after what the page's setup prepares."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run_few_steps(monkeypatch)
    if name not in WHOLE:
        build_little(monkeypatch)
    text = (DOCS / name).read_text(encoding="utf-8")
    setup = re.findall(r"^<!--setup\n(.*?)^-->", text, re.DOTALL | re.MULTILINE)
    names = {}
    for number, block in enumerate([*setup, *blocks(text, "python")]):
        exec(compile(block, f"block {number} of {name}", "exec"), names)


# What `importlib` finds where TensorFlow isn't installed.
WITHOUT_TENSORFLOW = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: (
    None if name.startswith("tensorflow") else find(name, *rest)
)
"""
OTHER_BACKENDS = {"jax": "JAX", "torch": "PyTorch"}  # And the titles of their blocks.


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_python_blocks_of_another_backend(backend, tmp_path):
    """In a process of their own, where TensorFlow isn't installed."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    text = (DOCS / "guides" / "backends.md").read_text(encoding="utf-8")
    code = blocks(text, f'python title="{OTHER_BACKENDS[backend]}"')
    preset = 'SAGAN.from_preset("sagan_fashion_mnist_32", base_filters=4)'
    assert preset in "".join(code)
    little = "__import__('tiny_networks').build_sagan_of_pictures()"
    code = [block.replace(preset, little) for block in code]
    paths = str(ROOT), str(ROOT / "tests" / "reference"), os.environ.get("PYTHONPATH", "")
    flags = os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([WITHOUT_TENSORFLOW, *code])],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # A program that runs twice.
            "OMP_NUM_THREADS": "1",
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=2",  # For JAX.
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert int(model.steps.numpy()) == 2 and model.generate(2, seed=0).shape == (2, 32, 32, 1)


TITLES = {
    "guides/backends.md": set(OTHER_BACKENDS.values()),
    "guides/scaling.md": {"train.py"},  # Run by two processes in integration/test_multi_worker.py.
}


@pytest.mark.parametrize("name", NAMES)
def test_blocks_with_a_title_are_run(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    found = re.findall(r"^```python +(.+)$", text, re.MULTILINE)
    assert set(found) <= {f'title="{title}"' for title in TITLES.get(name, ())}


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("api/")])
def test_a_page_ends_with_where_to_go(name):
    last = (DOCS / name).read_text(encoding="utf-8").rstrip().split("\n\n")[-1]
    assert last.startswith("Next: ") and "](" in last


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_nothing_is_left_to_fill_in(path):
    assert not re.findall(r"\b\w*(?:PLACE|TODO|FIXME|XXX)\w*\b", path.read_text(encoding="utf-8"))


KNOWN_COMMANDS = ("pip", "npm", "python", "pytest", "cd", "git", "export", "until")


@pytest.mark.parametrize("name", NAMES)
def test_commands(name):
    """Commands of the package parse, and scripts are there and know the options."""
    text = (DOCS / name).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in "\n".join(blocks(text, "sh|shell|bash")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["keras-sagan"]:
            build_parser().parse_args(words[1:])
        elif words[:1] == ["python"] and re.match(r"\w+/.*\.py$", words[1]):
            source = (ROOT / words[1]).read_text(encoding="utf-8")
            if 'cli.main(["train"' in source:
                build_parser().parse_args(["train", *words[2:]])
                continue
            if "common.argument_parser(" in source:
                source += '"--json"'
            for option in words[2:]:
                assert not option.startswith("--") or f'"{option}"' in source, line
        else:
            assert words == [] or words[0] in KNOWN_COMMANDS, line


def test_the_table_of_the_paper_names_files_and_tests_that_are_there():
    text = (DOCS / "paper.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    parts = " ".join(row.split("**")[1] for row in rows)
    assert all(f"equation {n}" in parts for n in range(1, 5))
    assert all(f"table {n}" in parts for n in (1, 2))
    for row in rows:
        path, tests = None, 0
        for name in re.findall(r"`([\w/.]+)`", row.split("|")[2]):
            if name.endswith(".py"):
                path = name
                is_test = Path(name).name.startswith("test_")
                assert (ROOT / ("tests" if is_test else "keras_sagan") / name).exists(), name
            elif name.startswith("test_"):
                tests += 1
                source = (ROOT / "tests" / path).read_text(encoding="utf-8")
                assert f"\ndef {name}(" in source, f"{path}: {name}"
        assert tests or "not reproduced: no" in row, row


def test_tests_of_the_table_of_backends_are_there():
    text = (DOCS / "compatibility.md").read_text(encoding="utf-8").split("## On JAX and PyTorch")[1]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    for line in text.splitlines():
        names = re.findall(r"`(test_\w+)`", line)
        assert all(any(f"\ndef {name}(" in source for source in sources) for name in names), line
        assert names or not line.startswith("|") or "works" not in line, line


def test_pictures_of_the_pages_are_there():
    for page in PAGES:
        for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / path).exists(), f"{path} of {page.name}"


def test_every_page_is_in_the_navigation():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = re.findall(r"(\S+\.md)$", config, re.MULTILINE)
    # One of them is made of the notebook.
    assert sorted(navigation) == sorted([*NAMES, "tutorial.md"])


def test_the_citation_has_the_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {keras_sagan.__version__}\n" in text


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} isn't installed.")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    # The tutorial comes with its pictures, and with links that lead to pages.
    tutorial = (tmp_path / "tutorial" / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'src="(\.\./tutorial_\d\.png)"', tutorial)
    assert len(pictures) == 7 and 'href="../guides/add_attention/"' in tutorial
    assert all((tmp_path / "tutorial" / name).resolve().exists() for name in pictures)
    inventory = (tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    names = public_names()
    assert len(names) > 100
    missing = {name: thing_of(name) for name in sorted(names - listed)}
    # Listed by their path: functions with the name of their module, and members of a base class.
    found = {n for n, x in missing.items() if path_of(x) in listed}
    assert missing.keys() - found == set()


def thing_of(name):
    *path, last = name.split(".")
    owner = ".".join(path)
    try:
        return pkgutil.resolve_name(f"{owner}:{last}")
    except ModuleNotFoundError:  # A member of a class.
        return getattr(thing_of(owner), last)


def path_of(thing):
    function = thing.fget if isinstance(thing, property) else thing
    return f"{function.__module__}.{function.__qualname__}"


# Members that are the same in every Keras layer or metric.
FROM_KERAS = ("get_config", "from_config", "reset_state")


def public_names():
    """Each name of an `__all__`, and in modules without one each that has no underscore.

    With the methods and properties of classes that have a docstring, of their bases here too.
    Modules of `keras_sagan.ops` and `keras_sagan.training` are internal: their pages show a part.
    """
    names = set()
    for found in pkgutil.walk_packages(keras_sagan.__path__, "keras_sagan."):
        if found.name in ("keras_sagan.training.jax", "keras_sagan.training.torch"):
            continue  # For the package alone, and not for this backend.
        module = importlib.import_module(found.name)
        own = [
            name
            for name, thing in vars(module).items()
            if name[0] != "_"
            and (getattr(thing, "__module__", None) == found.name or name.isupper())
        ]
        if found.name.count(".") == 1:
            names |= {f"{found.name}.{name}" for name in getattr(module, "__all__", own)}
    for name in sorted(names):
        thing = thing_of(name)
        if inspect.isclass(thing):
            members = {}
            for part in reversed(thing.__mro__):
                members |= vars(part) if part.__module__.startswith("keras_sagan.") else {}
            names |= {
                f"{name}.{key}"
                for key, value in members.items()
                if key[0] != "_"
                and key not in FROM_KERAS
                and isinstance(value, property | classmethod | types.FunctionType)
                # What overrides a base's is told there.
                if value.__doc__ or not any(hasattr(x, key) for x in thing.__mro__[1:])
            }
    return names


def test_the_notebook_has_the_outputs_of_one_run_and_no_more():
    path = DOCS / "tutorial.ipynb"
    assert path.stat().st_size < 500_000
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs)
    # What a cell ends with is a picture in all but three: parameters, protocol, and a yes.
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 7
