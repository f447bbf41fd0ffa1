"""What the data sets take of memory at their peak, each in a new process."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the peak"),
]

PROGRAM = """
import itertools, pathlib, sys
import numpy as np
from PIL import Image
from keras_sagan.data import load_image_folder, make_dataset

def peak():
    # `ru_maxrss` would begin with the size of the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

def folder(count):
    path = pathlib.Path(sys.argv[1]) / str(count)
    path.mkdir()
    for index in range(count):
        Image.new("RGB", (8, 8), (index % 256, 0, 0)).save(path / f"{index}.png")
    (path / "broken.png").write_bytes(b"nothing")
    return path

def use_array(count):
    images = np.ones((count, 256, 256, 3), "uint8")
    for kind in ({}, {"labels": np.zeros(count, "int32"), "repeat": False}):
        for _ in itertools.islice(make_dataset(images, batch_size=2, **kind), 5):
            pass
    return images

def use_folder(count):
    return load_image_folder(folder(count), 256).images

def use_stream(count):
    images = load_image_folder(folder(count), 256, stream=True).images
    dataset = make_dataset(images, batch_size=4, repeat=False)
    assert sum(len(np.asarray(batch)) for batch in dataset) == count
    return np.empty(images.shape, "uint8")  # As large as the images would be; never touched.

use = {"array": use_array, "folder": use_folder, "stream": use_stream}[sys.argv[2]]
use(4)  # What TensorFlow takes by itself.
before = peak()
images = use(int(sys.argv[3]))
print((peak() - before) / images.nbytes)
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize(
    "kind, count, low, high",
    [("array", 1000, 0.9, 1.2), ("folder", 1000, 0.9, 1.2), ("stream", 400, 0.0, 0.3)],
)
def test_images_are_held_once_and_streams_never(kind, count, low, high, backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), kind, str(count)],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    assert low <= float(done.stdout.split()[-1]) < high


PROGRAM_THAT_ENDS = """
import sys
import numpy as np
from PIL import Image
from keras_sagan.data import load_image_folder, make_dataset
for index in range(24):
    pixels = np.random.default_rng(index).integers(0, 256, (300, 300, 3)).astype("uint8")
    Image.fromarray(pixels).save(f"{sys.argv[1]}/{index}.png")
images = load_image_folder(sys.argv[1], 64, stream=sys.argv[2] == "stream").images
iterator = iter(make_dataset(images, batch_size=8))
next(iterator)
raise KeyboardInterrupt
"""


@pytest.mark.parametrize("kind", ["array", "stream"])
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_process_that_reads_can_end(backend, kind, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM_THAT_ENDS, str(tmp_path), kind],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
