"""The TF-GAN loader, in a process of its own: it is all about `sys.modules`."""

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


def run(code, folder):
    """What a fresh Python prints; fails with its traceback."""
    folders = [str(folder) for folder in (ROOT, os.environ.get("PYTHONPATH")) if folder]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folders),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
    }
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if result.returncode != 0:
        pytest.fail(f"exit code {result.returncode}\n{result.stderr[-3000:]}")
    return result.stdout


ONE_THAT_FAILS_AND_ONE_THAT_WORKS = """
# In a copy of this process, which is left as it is.
import os
import traceback

child = os.fork()
if not child:
    try:
        sys.path.insert(0, "broken")
        attempt(tfgan.load_tfgan_eval)
        print(left_behind())
        sys.path[0] = "mended"
        print(tfgan.load_tfgan_eval().marker)
        import tensorflow_gan
        print(tensorflow_gan.eval.marker, bool(tensorflow_gan.__file__))
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
print("THE REAL ONE", flush=True)
"""
MISSING_PACKAGES_AND_THE_REAL_ONE = """
# Each package in turn can't be imported, as if it weren't installed. Twice each: the second time
# nothing half-imported is in the way.
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


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What the process prints before and after `THE REAL ONE`."""
    folder = tmp_path_factory.mktemp("fakes")
    for name, marker in (("broken", "raise RuntimeError('second')"), ("mended", "marker = 1")):
        evaluation = folder / name / "tensorflow_gan" / "python" / "eval"
        evaluation.mkdir(parents=True)
        (evaluation / "__init__.py").write_text(marker)
        (evaluation.parent / "__init__.py").write_text("")
    (folder / "broken" / "tensorflow_gan" / "__init__.py").write_text("raise RuntimeError('first')")
    (folder / "mended" / "tensorflow_gan" / "__init__.py").write_text(
        "from tensorflow_gan.python import eval"
    )
    code = PRELUDE + ONE_THAT_FAILS_AND_ONE_THAT_WORKS + MISSING_PACKAGES_AND_THE_REAL_ONE
    return [part.splitlines() for part in run(code, folder).split("THE REAL ONE\n")]


@pytest.mark.slow
def test_missing_packages_are_named_and_then_it_loads_and_leaves_nothing_behind(outputs):
    output = outputs[1]
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
def test_a_tfgan_that_works_is_left_alone_and_one_that_fails_says_why(outputs):
    output = outputs[0]
    assert output[0] == (
        f"TF-GAN is installed but can't be imported here (RuntimeError: second). {RUN} --upgrade"
    )
    assert output[1:] == ["[]", "1", "1 True"]
