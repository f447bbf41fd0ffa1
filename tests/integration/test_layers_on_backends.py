"""Operations, layers and penalties pass their tests on every backend."""

import pytest
from on_backends import TESTS, run_on

# Functions of numpy's are the same everywhere.
OPS = [
    path
    for path in (TESTS / "ops").glob("test_*.py")
    if "from keras import ops" in path.read_text()
]
WHAT = (
    *sorted(OPS),
    TESTS / "layers",
    TESTS / "test_checks.py::test_values_are_plain",
    TESTS / "test_penalties.py",
)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_another_backend(backend):
    assert len(OPS) >= 3
    run_on(backend, WHAT)
