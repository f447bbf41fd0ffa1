"""Operations, layers, penalties, training, callbacks, data and metrics pass on every backend."""

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
    *(
        TESTS / "models" / f"test_{name}.py"
        for name in ("inversion", "pretrained", "selection", "top_k")
    ),
    *(
        TESTS / "models" / f"test_{name}"
        for name in (
            "averaging.py::test_half_life_is_at_most_a_twentieth_of_the_steps",
            "averaging.py::test_statistics_of_keras_batch_norm_begin_with_plain_means",
            "transfer.py::test_weights_that_fit_are_taken_and_others_listed",
            "transfer.py::test_frozen_blocks_stay_and_the_rest_trains",
        )
    ),
    *(TESTS / "data" / f"test_{name}.py" for name in ("batches", "folder")),
    *(
        TESTS / "callbacks" / f"test_{name}.py"
        for name in ("run_history", "sample_grid", "stop_any_model")
    ),
    *(
        TESTS / "metrics" / f"test_{name}.py"
        for name in (
            *("dinov2", "efficientnet_lite", "every_backend", "extractors", "fid_inception"),
            *("grey_classifier", "inception"),
        )
    ),
    *(TESTS / "callbacks" / f"test_checkpoint_{x}.py" for x in ("crashes", "writing")),
    *(TESTS / "integration" / f"{x}.py" for x in ("other_backends", "test_keras_io_example")),
)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_another_backend(backend):
    assert len(OPS) >= 3
    run_on(backend, WHAT)


@pytest.mark.slow
def test_half_precision_resumes_on_tensorflow_too():
    name = "other_backends.py::test_a_run_resumes_to_the_bit"
    cases = ("mixed_float16-made", "mixed_bfloat16-restored")
    run_on("tensorflow", [TESTS / "integration" / f"{name}[{case}]" for case in cases])
