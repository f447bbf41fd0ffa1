"""The TF-GAN loader, in processes of its own: it is all about `sys.modules`."""

import os
import pathlib
import subprocess
import sys

import pytest

from keras_sagan.metrics import TFGAN_INCEPTION_HANDLE

RUN = 'In a clone of keras_sagan, run: pip install ".[metrics]"'
ROOT = pathlib.Path(__file__).parents[2]
PRELUDE = """
import importlib.util
import sys

# What setuptools 82 leaves behind: nobody knows a pkg_resources.
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: (
    None if name == "pkg_resources" else find_spec(name, *args)
)

from keras_sagan.metrics.extractors import tfgan

def left_behind():
    return sorted(
        name for name in sys.modules if name.split(".")[0] in ("tensorflow_gan", "pkg_resources")
    )

def attempt(load):
    try:
        print(load().__name__)
    except ImportError as error:
        print(error)
"""


def run(code):
    """What a fresh Python prints; fails with its traceback."""
    folders = [str(folder) for folder in (ROOT, os.environ.get("PYTHONPATH")) if folder]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folders),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
    }
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    if result.returncode != 0:
        pytest.fail(f"exit code {result.returncode}\n{result.stderr[-3000:]}")
    return result.stdout


@pytest.mark.slow
def test_missing_packages_are_named_and_then_it_loads_and_leaves_nothing_behind():
    # Each package in turn can't be imported, as if it weren't installed. Twice each: the second
    # time nothing half-imported is in the way.
    output = run(
        PRELUDE
        + """
class Hidden:
    name = None

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

hidden = Hidden()
sys.meta_path.insert(0, hidden)
for hidden.name, load in (
    ("tensorflow_gan", tfgan.load_tfgan_eval),
    ("tf_keras", tfgan.load_tensorflow_hub),
    ("tensorflow_probability", tfgan.load_tfgan_eval),
    ("tensorflow_hub", tfgan.load_tfgan_eval),
):
    attempt(load)
    attempt(load)
    print(left_behind())

hidden.name = None
import tensorflow as tf
tfgan_eval = tfgan.load_tfgan_eval()
x = tf.random.stateless_normal((20, 3), (1, 2))
distance = tfgan_eval.frechet_classifier_distance_from_activations
print(float(distance(x, x + 1.0)))
print(float(tf.function(distance)(x, x + 1.0)))
print(tfgan_eval.INCEPTION_TFHUB)
print(tfgan.load_tfgan_eval() is tfgan_eval, left_behind())
print(tfgan.load_tensorflow_hub().__name__)
"""
    ).splitlines()
    packages = [
        ("TF-GAN", "tensorflow_gan"),
        ("TensorFlow Hub", "tf_keras"),
        ("TF-GAN", "tensorflow_probability"),
        ("TF-GAN", "tensorflow_hub"),
    ]
    for index, (what, package) in enumerate(packages):
        first, second, left = output[3 * index : 3 * index + 3]
        expected = f"{what} needs the package `{package}`, which isn't installed. {RUN}"
        assert (first, second, left) == (expected, expected, "[]")
    distance, compiled, handle, same, hub = output[12:]
    assert float(distance) == pytest.approx(3.0, rel=1e-5)
    assert float(compiled) == pytest.approx(3.0, rel=1e-5)
    assert handle == TFGAN_INCEPTION_HANDLE
    assert same == "True []"
    assert hub == "tensorflow_hub"


@pytest.mark.slow
def test_a_tfgan_that_works_is_left_alone_and_one_that_fails_says_why(tmp_path):
    for folder, marker in (("broken", "raise RuntimeError('second')"), ("mended", "marker = 1")):
        evaluation = tmp_path / folder / "tensorflow_gan" / "python" / "eval"
        evaluation.mkdir(parents=True)
        (evaluation / "__init__.py").write_text(marker)
        (evaluation.parent / "__init__.py").write_text("")
    (tmp_path / "broken" / "tensorflow_gan" / "__init__.py").write_text(
        "raise RuntimeError('first')"
    )
    (tmp_path / "mended" / "tensorflow_gan" / "__init__.py").write_text(
        "from tensorflow_gan.python import eval"
    )
    output = run(
        PRELUDE
        + f"""
sys.path.insert(0, {str(tmp_path / "broken")!r})
attempt(tfgan.load_tfgan_eval)
print(left_behind())
sys.path[0] = {str(tmp_path / "mended")!r}
print(tfgan.load_tfgan_eval().marker)
import tensorflow_gan
print(tensorflow_gan.eval.marker, bool(tensorflow_gan.__file__))
"""
    ).splitlines()
    assert output[0] == (
        f"TF-GAN is installed but can't be imported here (RuntimeError: second). {RUN} --upgrade"
    )
    assert output[1:] == ["[]", "1", "1 True"]
