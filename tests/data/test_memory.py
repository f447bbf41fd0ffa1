"""What the data sets take of memory at their peak, in a new process."""

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
import gc, itertools, pathlib, sys
import numpy as np
from PIL import Image
from keras_sagan.data import load_image_folder, make_dataset

root = pathlib.Path(sys.argv[1])

def peak():
    # `ru_maxrss` would begin with the size of the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

def folder(name):
    path = root / name
    path.mkdir()
    for index in range(int(name)):
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
    return load_image_folder(folder(str(count)), 256).images

def use_stream(count):
    images = load_image_folder(folder(f"0{count}"), 256, stream=True).images
    dataset = make_dataset(images, batch_size=4, repeat=False)
    assert sum(len(np.asarray(batch)) for batch in dataset) == count
    return np.empty(images.shape, "uint8")  # As large as the images would be; never touched.

for use, count in ((use_stream, 400), (use_folder, 1000), (use_array, 1000)):
    use(4)  # What TensorFlow takes by itself.
    gc.collect()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak begins again.
    before = peak()
    images = use(count)
    print((peak() - before) / images.nbytes, flush=True)
    del images

(root / "large").mkdir()
for index in range(24):
    pixels = np.random.default_rng(index).integers(0, 256, (300, 300, 3)).astype("uint8")
    Image.fromarray(pixels).save(root / "large" / f"{index}.png")
iterators = []
for stream in (False, True):
    images = load_image_folder(root / "large", 64, stream=stream).images
    iterators.append(iter(make_dataset(images, batch_size=8)))
    next(iterators[-1])
raise KeyboardInterrupt
"""
LIMITS = {"stream": (0.0, 0.3), "folder": (0.9, 1.2), "array": (0.9, 1.2)}


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def done(request, tmp_path_factory):
    """A process that uses each kind of data set and is interrupted within the last one."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("images"))],
        env={**os.environ, "KERAS_BACKEND": request.param},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("kind", LIMITS)
def test_images_are_held_once_and_streams_never(done, kind):
    found = dict(zip(LIMITS, map(float, done.stdout.split())))
    low, high = LIMITS[kind]
    assert low <= found[kind] < high, done.stderr[-3000:]


def test_a_process_that_streams_can_end(done):
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
