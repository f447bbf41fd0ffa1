"""Runs the examples in the docstrings of every module, and the README's Python blocks."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import keras_sagan

README = Path(__file__).parents[1] / "README.md"
MODULES = [
    module.name for module in pkgutil.walk_packages(keras_sagan.__path__, prefix="keras_sagan.")
]
BLOCKS = []
if README.exists():
    BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def examples(module):
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(module) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report = []
    for test in examples(module):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_there_are_examples():
    documented = {name.rpartition(".")[2] for name in MODULES if examples(_module(name))}
    wanted = {"sagan", "generator", "discriminator", "presets", "self_attention2d", "sn_conv2d"}
    assert wanted | {"sn_dense", "sn_embedding", "conditional_batch_norm"} <= documented


def _module(name):
    return importlib.import_module(name)


@pytest.mark.skipif(not BLOCKS, reason="The README has no Python blocks.")
def test_readme(tmp_path, monkeypatch):
    """One after the other, as a reader would run them: names carry over."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"Python block {number} of README.md", "exec"), names)
