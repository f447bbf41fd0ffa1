"""Every command of the documentation, as it stands there but for fewer and smaller steps."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import short_runs
import tiny_networks as tiny
from example_scripts import load_example

from keras_sagan import cli, data
from keras_sagan.cli.main import build_parser

Image = pytest.importorskip("PIL.Image")
tfds = pytest.importorskip("tensorflow_datasets")
ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*.md"))]

# What makes a command small, by its first words.
SMALL_RUN = "--epochs 1 --fid-images 12 --batch-size 2 --base-filters 4 --steps-per-epoch 1"
SMALL = {
    "keras-sagan train": SMALL_RUN,
    "keras-sagan sample": "--columns 2",
    "keras-sagan attention": "--num-images 1",
    "keras-sagan evaluate": "--num-images 12",
    "keras-sagan export": "--formats onnx",
    "python examples/evaluate.py": "--num-images 24",
}
# Those that another test runs too, that need processes of their own, or are the tests.
ELSEWHERE = {
    "python examples/export_generator.py": "tests/integration/test_export_example.py",
    "python examples/add_attention_to_dcgan.py": "tests/integration/test_small_examples.py",
    "python examples/custom_networks.py": "tests/integration/test_small_examples.py",
    "keras-sagan train --images": "tests/integration/test_image_folder_example.py",
    "keras-sagan train --config": "tests/cli/test_cli.py",
    "python examples/emoji.py": "tests/integration/test_emoji_example.py",
    "npm pack": "tests/data/test_emoji.py",
    "pip install": ".ci/run",
    "python -c": "tests/metrics/test_fid_inception.py",
    "python benchmarks/kill_test.py": "tests/integration/test_kill.py",
    "python benchmarks/tpu_compile.py": "tests/integration/test_tpu_compile.py",
    "python examples/imagenet_tpu.py": "tests/integration/test_imagenet_tpu_example.py",
    "export TF_CONFIG": "tests/integration/test_multi_worker.py",
    "export KERAS_BACKEND=jax": "tests/integration/test_jax_processes.py",
    "python train.py": "tests/integration/test_multi_worker.py",
    "until python": "tests/integration/test_multi_worker.py",
}


def commands():
    """The commands of all pages, each once; those that make a run come first."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(
            r"^```(?:sh|shell|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE
        ):
            found |= dict.fromkeys(block.splitlines())
    return sorted(found, key=lambda line: not line.startswith("keras-sagan train"))


def start_of(line):
    return next((start for start in (*ELSEWHERE, *SMALL) if line.startswith(start)), None)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Where a reader would stand: photographs, samples, a model and the Inception network."""
    from inception_stand_in import save_stand_in

    path = tmp_path_factory.mktemp("reader")
    images, labels = (array[:200] for array in data.load_fashion_mnist())
    for index in range(12):
        place = path / "photos" / "abcdefghij"[labels[index]]
        place.mkdir(exist_ok=True, parents=True)
        Image.fromarray(images[index, ..., 0]).convert("RGB").save(place / f"{index}.png")
    (path / "samples").mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3))):
        Image.fromarray(pixels.astype("uint8")).save(path / "samples" / f"{index}.png")
    tiny.build_sagan_of_pictures().save(path / "model.keras")
    save_stand_in(path / "models" / "tfgan_inception")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(data, "load_fashion_mnist", lambda *x: (images, labels))
        short_runs.train_briefly(patch)
        short_runs.build_little(patch)
        patch.setattr("keras_sagan.run.fit", short_runs.fit)
        means = "keras_sagan.metrics.EfficientNetLite0Features"
        patch.setattr(means, lambda: lambda images: images.mean((1, 2)))
        yield path


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_command(line):
    start = start_of(line)
    assert start, f"nothing runs: {line}"
    if start in ELSEWHERE:
        assert (ROOT / ELSEWHERE[start]).exists()
        if start.startswith("keras-sagan"):
            build_parser().parse_args(shlex.split(line)[1:])  # Raises SystemExit.
        return
    words = shlex.split(f"{line} {SMALL[start]}")
    with tfds.testing.mock_data(num_examples=24):
        if words[0] == "keras-sagan":
            assert cli.main(words[1:]) == 0
        else:
            load_example(Path(words[1]).stem).main(words[2:])
