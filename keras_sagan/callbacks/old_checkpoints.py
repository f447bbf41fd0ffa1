"""Reads checkpoints of formats 1 and 2, which were written with `tf.train.Checkpoint`."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import warnings

from keras_sagan.callbacks.checkpoint_files import reading
from keras_sagan.callbacks.storage import digest_of
from keras_sagan.lazy import tf

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def steps_of(names: list[str]) -> list[int]:
    """Returns the steps of the checkpoints in a list of file names, in ascending order."""
    found = [name[1] for name in map(re.compile(r"step-([0-9]+)\.json").fullmatch, names) if name]
    return sorted(int(step) for step in found if f"step-{step}.index" in names)


def read(directory: str, step: int) -> tuple[dict, dict]:
    """Returns the manifest and the arrays, or raises DamagedCheckpoint if a file was changed."""
    with reading(directory, f"step-{step}"):
        manifest, values = _manifest(f"{directory}/step-{step}"), _values(directory, step)
    warnings.warn(
        f"The run in {directory} is of an older version, which used a different order of images: "
        'pass `make_dataset` or `load_tfds` order="index_shuffle" to continue with the same bits.',
        stacklevel=5,
    )
    return manifest, values


def _manifest(path):
    with tf.io.gfile.GFile(f"{path}.json", "rb") as file:
        content = json.loads(file.read())
    with tf.io.gfile.GFile(f"{path}.index", "rb") as file:
        index = hashlib.sha256(file.read()).hexdigest()
    manifest = content["manifest"]
    if digest_of(manifest) != content["sha256"] or index != manifest["index"]:
        raise ValueError("its checksum is wrong")
    return manifest


def _values(directory, step):
    with contextlib.ExitStack() as stack:
        if any(sign in directory for sign in "*?[\\") and "://" not in directory:
            # TensorFlow would treat the path as a pattern, so read it through a symlink.
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            os.symlink(os.path.realpath(directory), f"{scratch}/run")
            directory = f"{scratch}/run"
        # Don't use `tf.train.load_checkpoint`, which prefers a folder with the same name.
        reader = tf.compat.v1.train.NewCheckpointReader(f"{directory}/step-{step}")
        # Read all values, because reading verifies their checksums.
        found = {x: reader.get_tensor(x) for x in reader.get_variable_to_shape_map()}
        return {x.removesuffix(VALUE): y for x, y in found.items() if x.endswith(VALUE)}
