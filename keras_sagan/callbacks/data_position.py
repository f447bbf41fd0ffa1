"""Bringing data to where a run was interrupted."""

from keras_sagan.lazy import is_tensorflow_dataset, tf


def position_data(data, steps_per_epoch, manifest):
    """Positions data that aren't addressed by step.

    Args:
        data: What `fit` got as `x`.
        steps_per_epoch: What `fit` got, an integer or `None`.
        manifest: That of the checkpoint to go on from, or `None` for a new run.

    Returns:
        Tuple of what can be promised, in words; the data; and the number of batches to pass over
        in the first epoch.
    """
    done = {"step": 0, "epoch_step": 0} if manifest is None else manifest
    exact = (
        "its data are read from the start to where they were, and it goes on exactly if the "
        "data set gives the same batches in the same order whenever it is read"
    )
    if is_tensorflow_dataset(data):
        size = int(data.cardinality())
        if size == tf.data.INFINITE_CARDINALITY or (size < 0 and steps_per_epoch):
            return exact, data.skip(done["step"]), 0
        if steps_per_epoch in (None, size):
            return exact + " and in each epoch", data, done["epoch_step"]
    elif hasattr(data, "shape") and steps_per_epoch is None:
        return "it goes on exactly only with shuffle=False", data, done["epoch_step"]
    return "its data start over: this kind of data set can't be positioned", data, 0


def pass_steps(model, calls, batches, logs):
    """Has the next calls of a model's train function do nothing but read batches.

    Args:
        model: A Keras model within `fit`.
        calls: Positive integer.
        batches: Integer, how many batches to read in them.
        logs: Dictionary, the figures that these calls return.

    Raises:
        ValueError: In such a call, if the data end before so many batches.
    """
    train_function = model.train_function

    def pass_step(iterator):
        nonlocal calls, batches
        calls -= 1
        if not calls:
            model.train_function = train_function
        for _ in range(min(batches, model.steps_per_execution)):
            try:
                next(iterator)
            except (StopIteration, tf.errors.OutOfRangeError) as error:
                model.train_function = train_function
                raise ValueError(
                    "The data set must give as many batches as before in an epoch. "
                    f"Received: one that ended {batches} batches before where the data were"
                ) from error
            batches -= 1
        return logs

    pass_step.train_function = train_function
    model.train_function = pass_step


def end_passing(model):
    """Brings back a train function that a `fit` left while it passed over steps."""
    passing = model.train_function
    model.train_function = getattr(passing, "train_function", passing)
