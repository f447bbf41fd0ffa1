"""Reads checkpoints of formats 1 and 2, which `tf.train.Checkpoint` wrote."""

import contextlib
import hashlib
import json
import os
import tempfile
import warnings

from keras_sagan.callbacks.checkpoint_files import DamagedCheckpoint, damaged
from keras_sagan.lazy import tf

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def read_newest(directory, steps):
    """Reads the newest checkpoint that isn't damaged, and warns of those that are.

    Args:
        directory: String, the folder with files such as `step-500.index`.
        steps: List of integers, those that have a manifest, ascending.

    Returns:
        Tuple of the manifest and a dictionary from keys to arrays.

    Raises:
        OSError: If every checkpoint is damaged.
        ImportError: If TensorFlow isn't installed.
    """
    for step in reversed(steps):
        path = os.path.join(directory, f"step-{step}")
        try:
            with damaged(path, Exception):  # TensorFlow's reader raises errors of many kinds.
                manifest, values = _manifest(path), _values(directory, step)
        except DamagedCheckpoint as error:
            warnings.warn(
                f"The checkpoint of step {step} is damaged and the one before it is used. {error}.",
                stacklevel=5,
            )
            continue
        warnings.warn(
            f"The run in {directory} is an older version's, which saw the images in another order: "
            'give `make_dataset` or `load_tfds` order="index_shuffle" to continue to the bit.',
            stacklevel=5,
        )
        return manifest, values
    raise OSError(
        f"Every checkpoint in {directory} is damaged; see the warnings. Move the folder away to "
        "train from the first step."
    )


def _manifest(path):
    with tf.io.gfile.GFile(f"{path}.json", "rb") as file:
        content = json.loads(file.read())
    manifest = content["manifest"]
    body = json.dumps(manifest, sort_keys=True)
    with tf.io.gfile.GFile(f"{path}.index", "rb") as file:
        index = hashlib.sha256(file.read()).hexdigest()
    if hashlib.sha256(body.encode()).hexdigest() != content["sha256"] or index != manifest["index"]:
        raise ValueError("its checksum is wrong")
    return manifest


def _values(directory, step):
    with contextlib.ExitStack() as stack:
        if any(sign in directory for sign in "*?[\\") and "://" not in directory:
            # TensorFlow takes the path for a pattern: it is read through a link without the signs.
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            os.symlink(os.path.realpath(directory), f"{scratch}/run")
            directory = f"{scratch}/run"
        path = os.path.join(directory, f"step-{step}")
        # `load_checkpoint` would look into a user's folder of the name `step-7`.
        v1 = tf.compat.v1.train
        load = v1.NewCheckpointReader if tf.io.gfile.isdir(path) else tf.train.load_checkpoint
        reader = load(path)
        # Reading all of it is what checks it.
        found = {x: reader.get_tensor(x) for x in reader.get_variable_to_shape_map()}
        return {x.removesuffix(VALUE): y for x, y in found.items() if x.endswith(VALUE)}
