"""Bringing data to where a run was interrupted."""

import keras

from keras_sagan.data.position import at_step, start_step_of
from keras_sagan.lazy import is_tensorflow_dataset, tf


def position_data(data, steps_per_epoch, step, done, is_given):
    """Positions data at a step.

    Args:
        data: What `fit` got as `x`.
        steps_per_epoch: What `fit` got, an integer or `None`.
        step: Integer, the steps that the model has taken.
        done: Integer, how many of them were in the interrupted epoch, which `fit` skips. On
            PyTorch, Keras reads a batch for each.
        is_given: Boolean, whether the caller has positioned the data.

    Returns:
        Tuple of what can be promised, in words; the data; and the number of batches to read while
        steps are skipped, or `None` where the step of the data had to be guessed.

    Raises:
        ValueError: If the data start after `step`.
    """
    is_read = keras.backend.backend() == "torch"
    target, batches = (step - done, 0) if is_read else (step, done)
    start = start_step_of(data)
    if start is not None:
        if start > step:
            raise ValueError(
                "The data set must start at the model's step or before. "
                f"Received: start_step={start} at step {step}"
            )
        return "the data continue from there", at_step(data, target), 0
    if is_given:
        if target != step:
            raise ValueError(
                "On PyTorch, data that the caller has positioned must be a data set of "
                "keras_sagan.data in the middle of an epoch. Without `restore_latest`, `fit` reads "
                f"other data up to where they were. Received: {type(data).__name__} at step {step}"
            )
        return f"the data set doesn't say its step; it is taken to be {step}", data, None
    exact = (
        "the data are read from the start to where they were, and the run continues exactly if "
        "they give the same batches in the same order whenever they are read"
    )
    if hasattr(data, "shape"):
        if steps_per_epoch is None:
            return "the run continues exactly only with shuffle=False", data, batches
    elif is_tensorflow_dataset(data):
        size = int(data.cardinality())
        if size == tf.data.INFINITE_CARDINALITY or (size < 0 and steps_per_epoch):
            return exact, at_step(data, target), 0
        if steps_per_epoch in (None, size):
            return exact + " and in each epoch", data, batches
    return "the data start over: this kind of data set can't be positioned", data, 0


def check_epoch(manifest, size, steps_per_execution):
    """Raises if the steps of an interrupted epoch can't be skipped in epochs of another size."""
    done, before = manifest["epoch_step"], manifest["steps_per_epoch"]
    if done and ((size and before and size != before) or done % steps_per_execution):
        raise ValueError(
            f"An epoch must have {before} steps as before, since the checkpoint is {done} steps "
            f"into one. Received: {size} steps an epoch, steps_per_execution={steps_per_execution}"
        )
