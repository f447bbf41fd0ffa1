"""Gets and sets the step at which a dataset starts."""

import functools
import inspect
import warnings

import keras

from keras_sagan.checks import check_integer
from keras_sagan.lazy import is_tensorflow_dataset, tf

# After these methods of `tf.data`, each element is still one batch, so the position is known.
_KEEP_POSITION = ("map", "prefetch", "with_options")


def start_step_of(data):
    """Returns the step of the first batch of a dataset, or `None` if it is unknown."""
    lost_in = getattr(data, "position_lost_in", None)
    if lost_in is not None:
        warnings.warn(
            f"`Dataset.{lost_in}` lost the position of a dataset of keras_sagan, so `fit` can't "
            "start it at a step: after `restore_latest`, `fit` uses it as it is, and otherwise, it "
            "reads and drops all earlier batches. These methods keep the position: "
            f"{', '.join(_KEEP_POSITION)}.",
            stacklevel=2,
        )
    # A user's dataset may use the name `start_step` for something else.
    return getattr(data, "start_step", None) if hasattr(data, "at_step") else None


def at_step(data, step):
    """Returns `data` starting at a step; without a method `at_step`, skips batches from step 0."""
    return data.at_step(step) if hasattr(data, "at_step") else data.skip(step)


def position_data(data, steps_per_epoch, step, done, is_given):
    """Advances the training data to the model's step.

    `step` is the number of steps that the model has taken, and `done` is the number of steps taken
    in the interrupted epoch. `fit` skips these `done` steps. On PyTorch, Keras reads a batch for
    each skipped step. `is_given` is `True` if the caller has already advanced the data to the
    model's step.

    Returns three values: a message about the data's position, the data, and the number of batches
    to read during the skipped steps. This number is `None` if the step at which the data start is
    unknown.
    """
    is_torch = keras.backend.backend() == "torch"
    target, batches = (step - done, 0) if is_torch else (step, done)
    start = start_step_of(data)
    if start is not None:
        if start > step:
            raise ValueError(
                "The dataset must start at the model's step or earlier. "
                f"Received: start_step={start} at step {step}"
            )
        return "the data continue from there", at_step(data, target), 0
    if is_given:
        if target != step:
            raise ValueError(
                "On PyTorch, data that the caller has positioned must be a dataset of "
                "keras_sagan.data in the middle of an epoch. Without `restore_latest`, `fit` reads "
                f"other data up to this step. Received: {type(data).__name__} at step {step}"
            )
        return f"the dataset has no known step; it is taken to be {step}", data, None
    exact = (
        "the data are read from the start up to this step, and the run continues exactly if they "
        "yield the same batches in the same order each time"
    )
    size = None
    if is_tensorflow_dataset(data):
        size = int(data.cardinality())
        if size == tf.data.INFINITE_CARDINALITY or (size < 0 and steps_per_epoch):
            return exact, at_step(data, target), 0
    elif hasattr(data, "at_step"):  # `make_dataset(repeat=False)` on JAX and PyTorch.
        size = data.num_batches
    if size is not None and steps_per_epoch in (None, size):
        return exact + " and in each epoch", data, batches
    return "the data start over: this kind of dataset can't be positioned", data, 0


def check_epoch(manifest, size, steps_per_execution):
    """Raises an error if `fit` can't resume the interrupted epoch with epochs of `size` steps."""
    done, before = manifest["epoch_step"], manifest["steps_per_epoch"]
    if done and ((size and before and size != before) or done % steps_per_execution):
        raise ValueError(
            f"An epoch must have {before} steps as before, since the checkpoint is {done} steps "
            f"into one. Received: {size} steps an epoch, steps_per_execution={steps_per_execution}"
        )


def check_step(step, name="step"):
    """Checks that a step is an integer in [0, 2**62), and returns it."""
    return check_integer(name, step, 0, 2**62 - 1)


def positioned(make, start_step, dataset=None, lost_in=None):
    """Returns a `tf.data.Dataset` with `at_step` and, for an endless dataset, `start_step`.

    `make` is a function that takes a step and returns a plain dataset starting at this step.
    `dataset` is the result of `make(start_step)`. Methods such as `map` would return datasets
    without `at_step`, so the class of the returned dataset overrides them. `lost_in` is the name of
    the method after which the position is unknown, or `None` if the position is known.
    """
    dataset = make(start_step) if dataset is None else dataset
    dataset.__class__ = _positioned_class(type(dataset))
    dataset._made = make, start_step
    dataset.position_lost_in = lost_in
    if lost_in is None and int(dataset.cardinality()) < 0:
        dataset.start_step = start_step
    return dataset


@functools.cache
def _positioned_class(kind):
    """Returns a subclass of a `tf.data` class whose methods return datasets with `at_step`."""

    def at_step(self, step):
        """Returns the same dataset, starting at a given step."""
        step, (make, _) = check_step(step), self._made
        return positioned(make, step) if self.position_lost_in is None else make(0).skip(step)

    def following(name):
        function = getattr(kind, name)

        @functools.wraps(function)
        def method(self, *args, **kwargs):
            result = function(self, *args, **kwargs)
            if not is_tensorflow_dataset(result) or hasattr(result, "position_lost_in"):
                return result
            make, start_step = self._made
            lost_in = self.position_lost_in or (None if name in _KEEP_POSITION else name)

            def remake(step):
                return getattr(make(step), name)(*args, **kwargs)

            return positioned(remake, start_step, result, lost_in)

        return method

    names = [n for n, x in vars(tf.data.Dataset).items() if inspect.isfunction(x) and n[0] != "_"]
    return type(kind.__name__, (kind,), {"at_step": at_step, **{n: following(n) for n in names}})
