"""What the data sets take at their peak beside the images themselves, each in a new process."""

import subprocess
import sys

import pytest

pytest.importorskip("tensorflow")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the peak"),
]

PROGRAM = """
import pathlib, sys
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
        for _ in make_dataset(images, batch_size=2, **kind).take(5):
            pass
    return images

def use_folder(count):
    return load_image_folder(folder(count), 256).images

use = {"array": use_array, "folder": use_folder}[sys.argv[2]]
use(4)  # What TensorFlow takes by itself.
before = peak()
images = use(int(sys.argv[3]))
print((peak() - before) / images.nbytes)
"""


@pytest.mark.parametrize("kind, count", [("array", 1000), ("folder", 400)])
def test_images_are_held_once(kind, count, tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), kind, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout.split()[-1]) < 1.2
