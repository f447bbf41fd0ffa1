import contextlib
import errno
import tempfile
import warnings

import keras

from keras_sagan.callbacks.best_checkpoint import BestCheckpoint
from keras_sagan.callbacks.checkpoint_store import (
    CheckpointStore,
    check_directory,
    check_writable,
)
from keras_sagan.callbacks.data_position import end_passing, pass_steps, position_data
from keras_sagan.callbacks.model_configuration import check_configuration, configuration_of
from keras_sagan.callbacks.model_state import (
    FiniteCheck,
    architecture_of,
    assign_state,
    check_architecture,
    check_model,
    keyed,
    learning_rates_of,
    metrics_of,
    state_of,
)
from keras_sagan.checks import check_boolean, check_integer
from keras_sagan.distribution import check_workers_agree, chief_decides, is_chief


class TrainingCheckpoint(keras.callbacks.Callback):
    """Saves all of a training run, and goes on from the newest checkpoint.

    A checkpoint holds both networks with their batch statistics and `vector_u`, the averaged
    generator, both optimisers with their slots and loss scales, the seed and the states of seed
    generators, the step, how much of which epoch is done, and the sums behind the epoch's
    figures. On the CPU, a run that was killed and started again ends with the same bits as one
    that wasn't. The same script does both:

    ```python
    checkpoint = TrainingCheckpoint("runs/first", every_steps=500)
    step = checkpoint.restore_latest(model)  # 0 if there is none
    dataset = keras_sagan.data.make_dataset(images, labels, start_step=step)
    model.fit(dataset, epochs=20, steps_per_epoch=156, callbacks=[checkpoint])
    ```

    `fit` then begins with the epoch that was interrupted; the steps of it that are done pass
    without work. Without the second and third line, `SAGAN.fit` restores the model too, and reads
    the data up to where they were: as exact, but slower, where the data set gives the same
    batches each time it is read.

    A checkpoint counts once all of it is written. Damaged ones are named in a warning, and the
    one before is used. States that aren't finite aren't saved. Files of other names in the folder
    are left alone. Put the callback last, so that the figures of the others are there, and have
    one `fit` per folder. With several workers the folder must be one that all see; the chief
    writes it.

    Args:
        directory: String or path, the folder of a `tf.train.CheckpointManager`, also `gs://…`.
            It is made if it isn't there. Outside a local disk its path must not contain `*`, `?`,
            `[` or `\\`, which TensorFlow takes for a pattern.
        every_steps: Integer. Save each time so many steps are done. Defaults to `None`: only by
            epoch.
        every_epochs: Integer. Save each time so many epochs are done, or `None`. Training's end
            is saved too. Defaults to `1`.
        keep: Integer. How many of the newest checkpoints to keep. Defaults to `3`.
        monitor: String, a key of an epoch's figures such as `"fid_5k"`. The checkpoint of its
            best value is kept in the folder `best`. Defaults to `None`.
        mode: `"min"`, `"max"`, or `"auto"` to tell from `monitor`. Defaults to `"auto"`.
        restore: Boolean. Whether `fit` begins with the newest checkpoint. Defaults to `True`.

    Raises:
        ValueError: If an argument is out of range or, when training begins, a checkpoint belongs
            to another architecture or configuration, or the folder to another run.
        OSError: If the folder can't be written, the disk is full, or every checkpoint is damaged.
        RuntimeError: On another backend than TensorFlow.

    Example:

    See above; `docs/never_lost.md` says what is promised and how that was tested.
    """

    def __init__(
        self,
        directory,
        every_steps=None,
        every_epochs=1,
        keep=3,
        monitor=None,
        mode="auto",
        restore=True,
    ):
        super().__init__()
        backend = keras.backend.backend()
        if backend != "tensorflow":
            raise RuntimeError(
                "`TrainingCheckpoint` needs the TensorFlow backend. Use "
                "`keras.callbacks.ModelCheckpoint`, or `model.save` after `fit`. "
                f"Received: the {backend} backend"
            )
        self.every_steps = check_integer("every_steps", every_steps, 1, optional=True)
        self.every_epochs = check_integer("every_epochs", every_epochs, 1, optional=True)
        if every_steps is None and every_epochs is None:
            raise ValueError(
                "`every_steps` or `every_epochs` must be given. Received: None for both"
            )
        keep = check_integer("keep", keep, 1)
        self.directory = check_directory("directory", directory)
        self.restore = check_boolean("restore", restore)
        self._store = CheckpointStore(self.directory, keep)
        self._best = BestCheckpoint(self.directory, monitor, mode)
        self._has_begun = False  # A second `fit` in a process is none that was interrupted.
        self._resumed = None  # The manifest to go on from, between restoring and the first epoch.
        self._restored_model = None
        self._is_given = False  # Whether `restore_latest` restored it: the data are the caller's.
        self._positioned = None  # The data that were made from the caller's.
        self._finite_check = self._configuration = None
        self._sums = []  # The values that the metrics get in the first epoch.
        self._pass_over = 0  # Batches to read in that epoch, of a data set that starts over.
        self._step = self._epoch_start = self._epoch = 0
        self._saved_step = None

    # Restoring

    def restore_latest(self, model):
        """Restores the newest checkpoint that isn't damaged, and has `fit` go on from there.

        Args:
            model: A compiled `SAGAN`.

        Returns:
            Integer, the training steps that the model has taken: where the data have to start.
            0 if there is no checkpoint.

        Raises:
            ValueError: If the checkpoint belongs to another architecture.
            OSError: If every checkpoint is damaged.
        """
        check_model(model)
        manifest = self._restore(model)
        if manifest is None:
            self._say(model, f"No checkpoint in {self.directory}: training starts anew.")
        else:
            self._say(
                model, f"Restored {self._store.describe(manifest)}; have the data start there."
            )
        self._resumed, self._restored_model, self._is_given = manifest, model, True
        return _steps(model)

    def restore_best(self, model):
        """Restores the best checkpoint by `monitor`; for use, not to go on training.

        Args:
            model: A `SAGAN`; its optimisers are restored if it is compiled.

        Returns:
            Integer, the step of that checkpoint; 0 if there is none.

        Raises:
            ValueError: If the checkpoint belongs to another architecture.
            OSError: If it is damaged.
        """
        manifest, values = self._best.store.read_newest()
        if manifest is None:
            return 0
        self._assign(model, manifest, values, self._best.store)
        return manifest["step"]

    def continue_data(self, model, data, steps_per_epoch=None):
        """Restores the model and positions its data; `SAGAN.fit` calls it before all else.

        Args:
            model: A compiled `SAGAN`.
            data: What `fit` got as `x`.
            steps_per_epoch: What `fit` got, an integer or `None`.

        Returns:
            The data to train on.

        Raises:
            ValueError: If the data start at another step than the model's.
        """
        if self._has_begun or not self.restore or data is self._positioned:
            return data
        is_given = self._is_given and self._restored_model is model
        manifest = self._resumed if is_given else self._restore(model)
        self._resumed, self._restored_model = manifest, model
        step = _steps(model)
        start = getattr(data, "start_step", None)
        if start is not None and start > step:
            raise ValueError(
                "The data set must start at the model's step or before. "
                f"Received: start_step={start} at step {step}"
            )
        if start is not None:
            promise = "the data go on from there"
            self._positioned = data = data.skip(step - start)
        elif is_given:
            if step:
                self._say(model, f"The data set doesn't say its step; it is taken to be {step}.")
            return data
        else:
            promise, positioned, self._pass_over = position_data(data, steps_per_epoch, manifest)
            if positioned is not data:
                self._positioned = data = positioned
        if manifest is None and start is None:
            self._say(model, f"No checkpoint in {self.directory}. If this is killed, {promise}.")
        elif not is_given:
            said = f"No checkpoint in {self.directory}: training starts anew"
            if manifest is not None:
                said = f"Restored {self._store.describe(manifest)}; {promise}"
            self._say(model, f"{said}.")
        return data

    def _restore(self, model):
        """Restores the model, and returns the manifest or `None`."""
        manifest, values = self._store.read_newest()
        step = 0 if manifest is None else manifest["step"]
        check_workers_agree(model.distribute_strategy, newest_checkpoint=step)
        if manifest is None:
            return None
        if _steps(model) > manifest["step"]:
            raise ValueError(
                "`directory` must not be behind the model. Give TrainingCheckpoint restore=False "
                f"to go on from the model. Received: directory={self.directory!r} at step "
                f"{manifest['step']} for a model that has taken {_steps(model)} steps"
            )
        self._assign(model, manifest, values, self._store)
        self._sums = [values[key] for key in sorted(values) if key.startswith("metrics:")]
        return manifest

    def _assign(self, model, manifest, values, store):
        path = store.path(manifest["step"])
        check_architecture(model, manifest, path)
        check_configuration(model, manifest.get("configuration"), path)
        # A rate may have been set at the end of the epoch, after the step was saved.
        values = {**values, **manifest["learning_rates"]}
        assign_state(model, manifest["seed"], values)

    # During `fit`

    def on_train_begin(self, logs=None):
        check_model(self.model)
        end_passing(self.model)
        self.model._initial_epoch = None  # Of a `fit` that ended before its first epoch.
        if self._is_chief():
            check_writable(self.directory)
        if self.restore and not self._has_begun and self._restored_model is not self.model:
            self._resumed = self._restore(self.model)
            if self._resumed is not None:
                said = self._store.describe(self._resumed)
                self._say(
                    self.model, f"Restored {said}; the data start over, as nobody positioned them."
                )
        self._finite_check = None
        self._step = _steps(self.model)
        if self._resumed is not None or self._saved_step != self._step:
            self._saved_step = None if self._resumed is None else self._step
        if self._resumed is None and not self._has_begun:
            self._check_folder()
        if self._is_chief():
            self._store.remove_incomplete()
            self._best.store.remove_incomplete()
        self._best.begin()
        if self._resumed is not None:
            self._set_initial_epoch()
        self._has_begun = True

    def _check_folder(self):
        newest = max(self._store.steps(), default=0)
        if newest > self._step:
            raise ValueError(
                "`directory` must not hold a run that is ahead of the model: give another one, or "
                f"let it restore. Received: directory={self.directory!r} with step {newest}, for "
                f"a model that has taken {self._step} steps"
            )

    def _set_initial_epoch(self):
        """Has `fit` begin with the epoch of the checkpoint."""
        done, in_epoch = self._resumed["epoch_step"], self._resumed["steps_per_epoch"]
        size, at_a_time = self.params.get("steps"), self.model.steps_per_execution
        if done and ((size and in_epoch and size != in_epoch) or done % at_a_time):
            raise ValueError(
                f"An epoch must have {in_epoch} steps as before, since the checkpoint is {done} "
                "steps into one. "
                f"Received: {size} steps an epoch, steps_per_execution={at_a_time}"
            )
        self.model._initial_epoch = self._resumed["epoch"]  # As Keras's BackupAndRestore does.

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._epoch_start = epoch, self._step
        if self._resumed is None:
            return
        done = self._resumed["epoch_step"]
        self._epoch_start -= done
        if done:
            variables = metrics_of(self.model)
            if [tuple(v.shape) for v in variables] == [v.shape for v in self._sums]:
                for variable, value in zip(variables, self._sums):
                    variable.assign(value)
            calls = done // self.model.steps_per_execution
            logs = self.model.get_metrics_result()
            pass_steps(self.model, calls, min(self._pass_over, done), logs)
        self.model._initial_epoch = None
        self._resumed, self._sums = None, []

    def on_train_batch_end(self, batch, logs=None):
        step = self._epoch_start + batch + 1
        before = self._step
        if step <= before:  # Passed over.
            return
        self._step = step
        if self.every_steps and step // self.every_steps > before // self.every_steps:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        self._step = _steps(self.model)  # Exact also where a data set ended within an execution.
        self._epoch, self._epoch_start = epoch + 1, self._step
        if self.every_epochs and (epoch + 1) % self.every_epochs == 0:
            self.save()
        elif self._saved_step == self._step:
            self.save()  # Only the position: the epoch has ended.
        if self._best.monitor is None:
            return
        value = self._best.find_in(logs)
        # Writing takes all workers, so that one of them has to say whether it is done.
        is_best = chief_decides(self.model.distribute_strategy, value is not None)
        if is_best and self._write(self._best.store, self._best.monitor, value):
            self._best.value = value

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None
        self._step = _steps(self.model)
        if self._saved_step != self._step:
            self.save()
        self._best.warn_if_unseen(logs)

    # Saving

    def save(self):
        """Saves the run as it stands, unless it isn't finite.

        Returns:
            String, the checkpoint's prefix as `tf.train.load_checkpoint` takes it where TensorFlow
            can read the path, or `None` where nothing was saved: no step has been made yet, or
            the model isn't finite.

        Raises:
            OSError: If it can't be written; the checkpoints before it are whole.
        """
        if self.params is None:  # Training hasn't begun; the model may be half restored.
            return None
        self._step = _steps(self.model)  # A step may have ended without its callbacks.
        if self._resumed is not None:  # Nothing was done since, and the position isn't known here.
            return self._store.path(self._step)
        if self._saved_step == self._step:
            if self._is_chief():
                with self._explained():
                    self._store.update_manifest(self._step, self._position_now())
        elif not self._write(self._store):
            return None
        else:
            self._saved_step = self._step
        return self._store.path(self._step)

    def _position_now(self):
        """What may change after a step was saved."""
        return {
            "epoch": self._epoch,
            "epoch_step": self._step - self._epoch_start,
            # `None` in the first epoch, whose length Keras may not know yet.
            "steps_per_epoch": self.params.get("steps"),
            "learning_rates": learning_rates_of(self.model),
        }

    def _write(self, store, monitor=None, value=None):
        """Writes a checkpoint, and returns whether it did."""
        self._step = _steps(self.model)
        if self._finite_check is None:
            self._finite_check = FiniteCheck(self.model)
            self._configuration = configuration_of(self.model)  # Takes longer than a step.
        broken = self._finite_check()
        if broken:
            newest = max(self._store.steps(), default=None)
            kept = f"the newest checkpoint is of step {newest}" if newest else "there is none yet"
            warnings.warn(
                f"Step {self._step} isn't saved, as `{broken[0]}` isn't finite; {kept}.",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        parts = {**state_of(self.model), "metrics": metrics_of(self.model)}
        variables = {key: variable.value for key, variable in keyed(parts).items()}
        manifest = {
            "step": self._step,
            "seed": self.model.seed,
            **self._position_now(),
            **architecture_of(self.model),
            "configuration": self._configuration,
            **({} if monitor is None else {"monitor": monitor, "value": value}),
        }
        if not self._is_chief():
            # Reading some variables takes all workers; a scratch folder takes their part.
            with tempfile.TemporaryDirectory() as scratch:
                CheckpointStore(scratch, 1, is_proven=True).write(self._step, variables, manifest)
            return True
        with self._explained():
            store.write(self._step, variables, manifest)
        return True

    @contextlib.contextmanager
    def _explained(self):
        """Says with an error of writing which checkpoint is whole."""
        try:
            yield
        except OSError as error:
            steps = self._store.steps()
            kept = f"The checkpoint of step {steps[-1]} is whole" if steps else "None was written"
            text = error.strerror if error.errno == errno.ENOSPC else str(error)
            message = f"{text}. {kept}; run the same again when that is put right."
            raise OSError(*([error.errno] if error.errno else []), message) from error

    def _is_chief(self):
        return is_chief(self.model.distribute_strategy)

    def _say(self, model, text):
        if is_chief(model.distribute_strategy):
            print(f"TrainingCheckpoint: {text}", flush=True)


def _steps(model):
    return int(keras.ops.convert_to_numpy(model.steps))
